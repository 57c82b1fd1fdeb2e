#include "state/saved_state.h"
