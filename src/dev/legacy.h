/*
 * The few PC leftovers that kernels still touch: the i8042's reset line, the CMOS clock, and the ACPI
 * registers of a hardware-reduced machine (sleep, reset, power button).
 */
#pragma once

#include "dev/bus.h"
#include "dev/irq.h"

enum shutdown_cause {
    MACHINE_REBOOT_I8042, /* 0xfe to port 0x64 */
    MACHINE_REBOOT_ACPI,  /* the FADT's reset register */
    MACHINE_POWEROFF,     /* S5 in the sleep control register */
};

struct legacy;

struct legacy_config {
    /* Loop thread: the guest asked for its end. May come more than once. */
    void (*shutdown)(void *context, enum shutdown_cause cause);
    void *context;
};

int legacy_new(const struct legacy_config *config, struct legacy **ret_legacy);

/* Before the vCPUs run. -EEXIST or -ENOSPC as bus_add() has them. */
int legacy_attach(struct legacy *legacy, struct bus *bus, struct irq_lines *lines);

/* Presses the power button (ACPI device PNP0C0C through the generic event device). Any thread. */
void legacy_power_button(struct legacy *legacy);
void legacy_free(struct legacy *legacy);
