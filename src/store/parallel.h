/* The same work on many numbers, on all cores. */
#pragma once

#include "base/base.h"

/* Calls work(opaque, n) for every n below `count`, on one thread per core, in no order; stops early at the
 * first negative return, which it returns with its message. */
int parallel(uint64_t count, int (*work)(void *opaque, uint64_t number), void *opaque);
