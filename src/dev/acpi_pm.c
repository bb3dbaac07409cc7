#include "dev/acpi_pm.h"
#include "vcpu/layout.h"

#define ACPI_REGISTERS   8u /* LAYOUT_ACPI_SLEEP to the end of LAYOUT_ACPI_EVENTS */
#define ACPI_SLEEP_RESET 2u
#define ACPI_SLP_EN      0x20u
#define EVENT_POWER      1u
#define EVENT_GENERATION 2u

static uint64_t acpi_read(void *device, uint64_t offset, unsigned length)
{
    struct acpi_pm *pm = device;
    (void)length;
    if (offset != LAYOUT_ACPI_EVENTS - LAYOUT_ACPI_SLEEP)
        return 0; /* sleep status: no wake-up has happened */
    uint32_t events = atomic_load(&pm->events);
    irq_ack(&pm->irq, events);
    return events;
}

static void acpi_write(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    struct acpi_pm *pm = device;
    /* S5 is the only state that the DSDT offers, so SLP_TYP is not looked at. */
    if ((offset == 0 && (value & ACPI_SLP_EN)) || offset == ACPI_SLEEP_RESET)
        bus_post(pm->bus, &pm->shutdown_call, offset, length, value);
}

static void end_requested(void *device, uint64_t offset, unsigned length, uint64_t value,
                          struct bus_waiter *waiter)
{
    struct acpi_pm *pm = device;
    (void)length, (void)value, (void)waiter;
    pm->shutdown.request(pm->shutdown.context, offset == 0 ? MACHINE_POWEROFF : MACHINE_REBOOT_ACPI);
}

int acpi_pm_attach(struct acpi_pm *pm, struct bus *bus, struct irq_lines *lines,
                   const struct shutdown_handler *shutdown)
{
    static const struct bus_ops ops = {.read = acpi_read, .write = acpi_write};
    *pm = (struct acpi_pm){
        .bus = bus, .shutdown_call = {.run = end_requested, .device = pm}, .shutdown = *shutdown};
    pm->irq.pending = &pm->events;
    int r = irq_connect(lines, LAYOUT_GED_GSI, &pm->irq);
    return r < 0 ? r : bus_add(bus, VCPU_PORT, LAYOUT_ACPI_SLEEP, ACPI_REGISTERS, &ops, pm);
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
    irq_raise(&pm->irq, EVENT_POWER);
}

void acpi_pm_new_generation(struct acpi_pm *pm)
{
    irq_raise(&pm->irq, EVENT_GENERATION);
}

static int save_acpi(const void *owner, struct state_writer *to)
{
    const struct acpi_pm *pm = owner;
    uint32_t events = atomic_load(&pm->events);
    state_put(to, &events, sizeof(events));
    return 0;
}

static int load_acpi(void *owner, struct state_reader *from, uint16_t version)
{
    struct acpi_pm *pm = owner;
    uint32_t events;
    (void)version;
    int r = state_get(from, &events, sizeof(events));
    if (r == 0)
        atomic_store(&pm->events, events);
    return r;
}

const struct state_part acpi_pm_state = {"ACPI", 1, STATE_REQUIRED, save_acpi, load_acpi};
