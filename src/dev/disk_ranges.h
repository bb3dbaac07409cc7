/*
 * Which writes of a disk may be in flight beside each other. Most run side by side, also where they overlap:
 * that is the driver's own affair. A read-modify-write also puts back bytes that its driver did not send, so
 * it runs alone on its range: it waits for what is in flight there, and what comes for that range waits for
 * it.
 *
 * Loop thread.
 */
#pragma once

#include "dev/disk.h"

/* All zero is: nothing in flight. The caller frees waiting.items at the end. */
struct disk_ranges {
    struct disk_io *in_flight; /* a list, by disk_io.range */
    unsigned alone;            /* how many of them are */
    struct disk_queue waiting;
};

/*
 * Before a write: true if it may begin on bytes [start, end), and disk_ranges_leave() ends it. False: it
 * waits, and disk_ranges_leave() of another one starts it again, from the beginning; or it failed for want of
 * memory and done() was called.
 */
bool disk_ranges_enter(struct disk_ranges *ranges, struct disk_io *io, uint64_t start, uint64_t end,
                       bool alone);

/* After a write that entered; `start` is called for each that waited. To be followed by io->done(). */
void disk_ranges_leave(struct disk_ranges *ranges, struct disk_io *io, void (*start)(struct disk_io *io));
