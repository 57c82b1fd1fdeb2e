// A build that is one version ahead in a section that every machine has (state/schema_trial.h).
extern "C" {
const char* godwit_trial_newer_section = "vmm-consoles";
}
