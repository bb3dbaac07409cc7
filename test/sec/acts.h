/* Between acts.c and evil.c. */
#pragma once

#include "loop/loop.h"

/* What is to come of an act: T trapped, R refused by the kernel, A allowed, - not tried. */
struct act {
    const char *name;
    long (*act)(void);
    /* The loop, the loop of a VM with a control socket, a vCPU, a loop that may make files, one whose copies
     * go on as VMs, one with a vsock device. */
    const char loop, files, vcpu, makes, copies, connects;
};

/* Ends with one that has no name. */
extern const struct act acts[];

/* The ring that they are tried on. */
extern struct loop *ring_of;
