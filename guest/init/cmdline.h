/* Takes the kernel's command line (/proc/cmdline) apart by the kernel's own rules. Pure: touches only its
 * text. */
#pragma once

#include "base/base.h"

/* Words of a command behind "--". The kernel passes at most 32 to an init (MAX_INIT_ARGS, init/main.c). */
#define COMMAND_WORDS 32

/* Words of one kind that may be there several times, as far as they are kept. */
#define BOOT_WORDS 16

/* Strings point into the line that was parsed; NULL where the line does not name the option. */
struct boot_line {
    const char *root;               /* root=      the device of the root file system */
    const char *root_type;          /* rootfstype= */
    const char *root_flags;         /* rootflags= */
    bool root_writable;             /* the last of `ro` and `rw`; neither is read-only, as in the kernel */
    const char *init;               /* init=      what an initramfs starts on the root */
    const char *hostname;           /* volt.hostname= */
    const char *run;                /* volt.run=  a command for the shell */
    const char *ip[BOOT_WORDS + 1]; /* ip=         a network card each, then NULL */
    const char *nameservers[BOOT_WORDS + 1]; /* nameserver= */
    const char *routes[BOOT_WORDS + 1];      /* rd.route= */
    const char *command[COMMAND_WORDS + 1];  /* the words behind "--", then NULL */
};

/* Changes `line`, which must outlive *ret_boot. -E2BIG, with a message, for a command of more than
 * COMMAND_WORDS words. */
int boot_line_parse(char *line, struct boot_line *ret_boot);
