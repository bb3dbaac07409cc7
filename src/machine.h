/* A machine: memory, vCPUs, devices and loop put together from a configuration, and run to its end. */
#pragma once

#include "config.h"

/* How a machine ends, as the process's exit status (documented in --help and the manual). */
enum machine_status {
    MACHINE_ENDED = 0,       /* reboot, poweroff, or the user's request */
    MACHINE_BAD_CONFIG = 1,  /* a value, a kernel or a disk that cannot be used */
    MACHINE_HOST_FAILED = 2, /* KVM, io_uring, memory, threads */
    MACHINE_PANICKED = 3,    /* the guest's kernel says so on its console */
    MACHINE_CRASHED = 4,     /* triple fault that nobody asked for, or an instruction that KVM cannot do */
    MACHINE_SIGNAL = 128,    /* + the signal's number */
};

/*
 * Runs a machine in this thread, which becomes its loop thread, until it ends; returns the exit status. Words
 * for failures go to stderr. vCPU threads still exist when this returns: the caller ends the process without
 * running destructors that they might look at (_exit).
 */
int machine_run(const struct config *config);
