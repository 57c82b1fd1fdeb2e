// The end of the machine, as the command line says.
#pragma once

_Noreturn void power_end(void);
