/* The kernel's command line (/proc/cmdline), taken apart by the kernel's own rules. Pure: touches nothing but
 * its text. */
#pragma once

#include "base/base.h"

/* Words of a command behind "--". The kernel itself passes at most 32 to an init (MAX_INIT_ARGS,
 * init/main.c). */
#define COMMAND_WORDS 32

/* Strings point into the line that was parsed; NULL where the line does not name the option. */
struct boot_line {
    const char *root;       /* root=      the device of the root file system */
    const char *root_type;  /* rootfstype= */
    const char *root_flags; /* rootflags= */
    bool root_writable;     /* the last of `ro` and `rw`; neither is read-only, as in the kernel */
    const char *init;       /* init=      what an initramfs starts on the root */
    const char *hostname;   /* volt.hostname= */
    const char *run;        /* volt.run=  a command for the shell */
    const char *command[COMMAND_WORDS + 1]; /* the words behind "--", then NULL */
};

/* Takes `line` apart in place: it is changed, and must outlive *ret_boot. -E2BIG, with words, for a command
 * of more than COMMAND_WORDS words. */
int boot_line_parse(char *line, struct boot_line *ret_boot);
