// The lines that describe everything: boot, report, verified, final. Fields as in beacon's.
#pragma once

void report_boot(int count, char** words);
void report_write(const char* event);
