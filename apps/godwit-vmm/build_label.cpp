// Overrides the weak, empty label of base/version.cpp, so that version() tells this build apart.
extern "C" {
const char* godwit_build_label = GODWIT_BUILD_LABEL;
}
