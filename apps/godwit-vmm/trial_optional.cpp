// A build that saves an optional section which no other build knows (state/schema_trial.h).
extern "C" {
const char* godwit_trial_optional_section = "trial";
}
