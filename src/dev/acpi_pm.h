/* The ACPI registers of a hardware-reduced machine (ACPI 6.4, 4.8.3.6 and .7): sleep, reset, and which event
 * the generic event device reports (the power button, another VM generation ID). */
#pragma once

#include "base/state.h"
#include "dev/bus.h"
#include "dev/irq.h"
#include "dev/shutdown.h"

struct acpi_pm {
    struct bus *bus;
    struct bus_call shutdown_call;
    struct shutdown_handler shutdown;
    struct irq_source irq;
    _Atomic uint32_t events; /* irq.pending: what LAYOUT_ACPI_EVENTS reads as */
};

/* Before the vCPUs run; `pm` is lent to the bus. Errors as bus_add() and irq_connect() have them. */
int acpi_pm_attach(struct acpi_pm *pm, struct bus *bus, struct irq_lines *lines,
                   const struct shutdown_handler *shutdown);

/* Presses the power button (ACPI device PNP0C0C through the generic event device). Any thread. */
void acpi_pm_power_button(struct acpi_pm *pm);

/* Tells the guest that the VM generation ID has changed. Any thread. */
void acpi_pm_new_generation(struct acpi_pm *pm);

/* While the vCPUs are parked; the owner is the struct acpi_pm. */
extern const struct state_part acpi_pm_state;
