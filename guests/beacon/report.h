// Everything beacon has counted, as one line; and the line about itself at the start.
#pragma once

void report_boot(void);

// The last two follow a verification and say what it found.
enum report_kind { report_regular, report_verified, report_final };
void report_write(enum report_kind kind);
