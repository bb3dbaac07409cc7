#include "dev/disk_ranges.h"

static bool overlap(const struct disk_range *range, uint64_t start, uint64_t end)
{
    return range->start < end && start < range->end;
}

/* One that waits counts as well: it is not overtaken for ever by those that come later. */
static bool must_wait(const struct disk_ranges *ranges, uint64_t start, uint64_t end, bool alone)
{
    if (ranges->alone > 0 || alone)
        for (const struct disk_io *io = ranges->in_flight; io; io = io->range.next)
            if ((io->range.alone || alone) && overlap(&io->range, start, end))
                return true;
    for (unsigned i = 0; i < ranges->waiting.count; i++)
        if (overlap(&ranges->waiting.items[i]->range, start, end))
            return true;
    return false;
}

bool disk_ranges_enter(struct disk_ranges *ranges, struct disk_io *io, uint64_t start, uint64_t end,
                       bool alone)
{
    bool wait = must_wait(ranges, start, end, alone);
    io->range = (struct disk_range){.start = start, .end = end, .alone = alone};
    if (wait) {
        int r = disk_queue_add(&ranges->waiting, io);
        if (r < 0)
            io->done(io, r);
        return false;
    }
    io->range.next = ranges->in_flight;
    if (ranges->in_flight)
        ranges->in_flight->range.previous = io;
    ranges->in_flight = io;
    ranges->alone += alone;
    return true;
}

void disk_ranges_leave(struct disk_ranges *ranges, struct disk_io *io, void (*start)(struct disk_io *io))
{
    struct disk_range *range = &io->range;
    if (range->previous)
        range->previous->range.next = range->next;
    else
        ranges->in_flight = range->next;
    if (range->next)
        range->next->range.previous = range->previous;
    ranges->alone -= range->alone;
    if (ranges->waiting.count > 0)
        disk_queue_start(&ranges->waiting, start);
}
