// Everything beacon has counted, as one line; and the line about itself at the start.
#pragma once

void report_boot(void);

// `event` is "report", "verified" or "final".
void report_write(const char* event);
