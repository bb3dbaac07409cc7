/* The CMOS clock (MC146818): the host's time, read on vCPU threads. The guest cannot set it. */
#pragma once

#include "base/state.h"
#include "dev/bus.h"
#include <stdatomic.h>

struct cmos {
    _Atomic uint8_t index; /* which register port 0x71 is; set and used on vCPU threads alone */
};

/* Before the vCPUs run; `cmos` is lent to the bus. -EEXIST or -ENOSPC as bus_add() has them. */
int cmos_attach(struct cmos *cmos, struct bus *bus);

/* While the vCPUs are parked; the owner is the struct cmos. */
extern const struct state_part cmos_state;
