// The course of a run: reports, commands from outside, verification, the end. The first CPU steps
// it; the others read what it has decided.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Raised by one whenever all memory is to be verified.
extern volatile uint64_t control_verify_epoch;
// No more load, for good.
extern volatile bool control_stopping;

void control_start(uint64_t now);

// Returns the TSC when it wants to be called again.
uint64_t control_step(uint64_t now);

// Says why the run cannot begin, and ends the machine.
_Noreturn void control_refuse(const char* reason, const char* detail);
