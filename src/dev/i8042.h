/* The i8042 keyboard controller, without a keyboard: only the line that resets the machine. It has no
 * state. */
#pragma once

#include "dev/bus.h"
#include "dev/shutdown.h"

struct i8042 {
    struct bus *bus;
    struct bus_call reset_call;
    struct shutdown_handler shutdown;
};

/* Before the vCPUs run; `chip` is lent to the bus. -EEXIST or -ENOSPC as bus_add() has them. */
int i8042_attach(struct i8042 *chip, struct bus *bus, const struct shutdown_handler *shutdown);
