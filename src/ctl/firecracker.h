/*
 * What is different when the program was started under the name `firecracker`: its command line with its
 * words, what it says on standard output, its exit statuses and its signals. All else is the same program.
 */
#pragma once

#include "ctl/logger.h"
#include "ctl/options.h"

/* The data format of its snapshots. */
#define FIRECRACKER_SNAPSHOT_VERSION "v11.0.0"
#define FIRECRACKER_SNAPSHOT_BEFORE  10u /* versions that it had before our first */

/* Exit statuses (src/vmm/src/lib.rs, FcExitCode). */
enum {
    FIRECRACKER_GENERIC_ERROR = 1,
    FIRECRACKER_BAD_SYSCALL = 148,
    FIRECRACKER_BAD_CONFIGURATION = 152,
    FIRECRACKER_ARG_PARSING = 153,
};

bool firecracker_is_name(const char *argv0);

/*
 * Reads the command line into `to`, whose strings are those of `argv`. Returns -1 to go on, or the status to
 * exit with, all said: after --version, or wrong usage.
 */
int firecracker_args(int argc, char **argv, struct ctl_options *to);

/* One of the program's lines before there is a log, or after it, on standard output. */
void firecracker_say(const char *id, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Takes the signals that Firecracker handles, once, after machine_new(). One that a process sent comes to
 * `sent` on the loop's thread; a fault of this program ends it at once, with Firecracker's status. -errno
 * with a message.
 */
int firecracker_watch_signals(struct loop *loop, void (*sent)(void *context, int number), void *context);

/* The exit status for how a machine ended (enum machine_status). */
int firecracker_status(int status);

/* At the process's end: one that SIGTERM or SIGINT ended dies of it, as its launcher expects. Returns for any
 * other status. */
void firecracker_die(int status);
