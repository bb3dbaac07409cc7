/* How a guest asks for its end, and whom the devices tell. */
#pragma once

enum shutdown_cause {
    MACHINE_REBOOT_I8042, /* 0xfe to port 0x64 */
    MACHINE_REBOOT_ACPI,  /* the FADT's reset register */
    MACHINE_POWEROFF,     /* S5 in the sleep control register */
};

struct shutdown_handler {
    /* Loop thread. May be called more than once. */
    void (*request)(void *context, enum shutdown_cause cause);
    void *context;
};
