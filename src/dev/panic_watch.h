/*
 * Whether the guest's kernel has panicked, as its console tells.
 *
 * A panicking kernel says "Kernel panic - not syncing" (kernel/panic.c), stops everything else, and resets
 * the machine. So a panic is believed if the line begins with these words, or has them right after a time in
 * brackets, and if nothing that a running system says comes after it:
 *
 *   - after a line with a time, any line without one: a program's
 *   - "reboot: ", with which an orderly reboot or power-off ends (kernel/reboot.c); a panic's reset does not
 *
 * A program that prints an old log and lives on is told from a panic so. One that prints these words and
 * resets the machine in the next instant cannot be.
 */
#pragma once

#include "base/base.h"

#define PANIC_LINE_MAX 256u /* of a longer line the rest is not looked at */

struct panic_watch {
    char line[PANIC_LINE_MAX];
    uint32_t length;
    bool panicked, with_time; /* as of the last whole line; the panic's line had a time */
};

void panic_watch_byte(struct panic_watch *watch, uint8_t byte);

/* Also false if a prompt stands behind the panic's lines. */
bool panic_watch_panicked(const struct panic_watch *watch);
