/*
 * Firecracker's boot timer: a guest that has booted writes 123 to the byte at LAYOUT_BOOT_TIMER_GPA, and the
 * owner is told. Only on request (--boot-timer).
 */
#pragma once

#include "dev/bus.h"

struct boot_timer {
    void (*booted)(void *context); /* loop thread */
    void *context;
    struct bus *bus;
    struct bus_call call;
};

/* Before the vCPUs run; `timer` with booted and context set is lent to the bus. As bus_add(). */
int boot_timer_attach(struct boot_timer *timer, struct bus *bus);
