#include "dev/i8042.h"
#include "vcpu/layout.h"

/*
 * Status: output buffer always full, input buffer empty. Linux drains the output buffer before it believes in
 * a controller, and gives up at once on one that never empties (drivers/input/serio/i8042.c, i8042_flush).
 * One that stays silent costs it five time-outs of half a second. Its reboot waits for an empty input buffer
 * (kb_wait in arch/x86/kernel/reboot.c), 131 ms if that never comes, as on an open bus.
 */
#define I8042_STATUS 0x01u

static uint64_t i8042_read(void *device, uint64_t offset, unsigned length)
{
    (void)device, (void)offset, (void)length;
    return I8042_STATUS; /* the data port reads the same: no scan code that means anything */
}

static void reset(void *device, uint64_t offset, unsigned length, uint64_t value, struct bus_waiter *waiter)
{
    struct i8042 *chip = device;
    (void)offset, (void)length, (void)value, (void)waiter;
    chip->shutdown.request(chip->shutdown.context, MACHINE_REBOOT_I8042);
}

static void write_command(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    struct i8042 *chip = device;
    /* 0xf0 to 0xff pulse the output lines whose bits are zero; line 0 is the reset (IBM PC AT, keyboard
     * controller). */
    if ((value & 0xf1) == 0xf0)
        bus_post(chip->bus, &chip->reset_call, offset, length, value);
}

static void write_data(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    (void)device, (void)offset, (void)length, (void)value;
}

int i8042_attach(struct i8042 *chip, struct bus *bus, const struct shutdown_handler *shutdown)
{
    static const struct bus_ops data = {.read = i8042_read, .write = write_data};
    static const struct bus_ops command = {.read = i8042_read, .write = write_command};
    *chip = (struct i8042){.bus = bus, .reset_call = {.run = reset, .device = chip}, .shutdown = *shutdown};
    int r = bus_add(bus, VCPU_PORT, LAYOUT_I8042_DATA, 1, &data, chip);
    return r < 0 ? r : bus_add(bus, VCPU_PORT, LAYOUT_I8042_COMMAND, 1, &command, chip);
}
