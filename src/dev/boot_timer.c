#include "dev/boot_timer.h"

#include "vcpu/layout.h"

#define BOOTED 123u

static uint64_t timer_read(void *device, uint64_t offset, unsigned length)
{
    (void)device;
    (void)offset;
    (void)length;
    return 0;
}

static void timer_write(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    struct boot_timer *timer = device;
    if (offset == 0 && length == 1 && value == BOOTED)
        bus_post(timer->bus, &timer->call, offset, length, value);
}

static void tell(void *device, uint64_t offset, unsigned length, uint64_t value, struct bus_waiter *waiter)
{
    struct boot_timer *timer = device;
    (void)offset;
    (void)length;
    (void)value;
    (void)waiter;
    timer->booted(timer->context);
}

int boot_timer_attach(struct boot_timer *timer, struct bus *bus)
{
    static const struct bus_ops ops = {.read = timer_read, .write = timer_write};
    timer->bus = bus;
    timer->call = (struct bus_call){.run = tell, .device = timer};
    return bus_add(bus, VCPU_MMIO, LAYOUT_BOOT_TIMER_GPA, GUEST_PAGE, &ops, timer);
}
