/* The user's terminal in raw mode while a guest has it, and given back on every way out. */
#pragma once

#include "base/base.h"

/* Puts stdin into raw mode if it is a terminal and this process is in its foreground. Returns true if so. The
 * old mode comes back by terminal_restore(), at exit(), and when a fatal signal ends the process. */
bool terminal_raw(void);
void terminal_restore(void);

/* In a copy of the process: the terminal is the other one's. */
void terminal_forget(void);

/* What the user asked for with Ctrl-A. */
enum terminal_command { TERMINAL_NOTHING, TERMINAL_END, TERMINAL_POWER_BUTTON, TERMINAL_HELP };

/*
 * Takes Ctrl-A commands out of what was typed: `bytes` keeps what is for the guest, its length is returned.
 * Ctrl-A and the key after it may come in different calls. At most one command a call is reported (the last).
 */
size_t terminal_filter(uint8_t *bytes, size_t length, enum terminal_command *ret_command);

/* What Ctrl-A h prints. */
extern const char terminal_help[];
