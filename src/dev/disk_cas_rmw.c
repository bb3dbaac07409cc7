/*
 * Read-modify-write: a write or discard of a part of a page that is not in the delta. The rest of the page
 * has to be there first, so the whole page is copied from where it is to the delta; then the request goes on
 * as any other.
 *
 *   waiting   for the writes that are in flight on its pages (disk_ranges.h)
 *   RMW_READ  the page, into our buffer
 *   RMW_WRITE the buffer, into the delta; then the next page: a request has two at most, at its ends
 *   write     of what the guest sent (disk_cas.c)
 */
#include "dev/disk_cas_internal.h"

enum rmw_state { RMW_READ, RMW_WRITE };

struct rmw {
    struct disk_cas *cas;
    struct disk_io *io; /* the request */
    enum rmw_state state;
    uint64_t page;
    struct disk_io read; /* of the page, as a request of our own */
    struct iovec iov;
    struct loop_op write;
    uint8_t bytes[STORE_PAGE];
};

bool disk_cas_needs_rmw(const struct disk_cas *cas, const struct disk_io *io, uint64_t *ret_page)
{
    const uint64_t edges[2] = {io->offset, io->offset + io->length};
    for (unsigned i = 0; i < 2; i++) {
        uint64_t page = edges[i] / STORE_PAGE;
        /* The end of the disk may lie in a page: nothing reads what is behind it. */
        if (edges[i] % STORE_PAGE && edges[i] < cas->disk.size &&
            volume_lookup(cas->volume, page, 1).place != VOLUME_DELTA) {
            *ret_page = page;
            return true;
        }
    }
    return false;
}

static void rmw_next(struct rmw *rmw)
{
    if (!disk_cas_needs_rmw(rmw->cas, rmw->io, &rmw->page)) {
        struct disk_io *io = rmw->io;
        free(rmw);
        disk_cas_change(io);
        return;
    }
    rmw->state = RMW_READ;
    rmw->iov = (struct iovec){.iov_base = rmw->bytes, .iov_len = STORE_PAGE};
    rmw->read.offset = rmw->page * STORE_PAGE;
    rmw->read.iov = &rmw->iov;
    rmw->read.iov_count = 1;
    disk_cas_read(&rmw->cas->disk, &rmw->read);
}

static void rmw_step_done(struct rmw *rmw, int result)
{
    if (result < 0) {
        struct disk_io *io = rmw->io;
        free(rmw);
        disk_cas_change_end(io, result);
        return;
    }
    switch (rmw->state) {
    case RMW_READ:
        rmw->state = RMW_WRITE;
        loop_write(rmw->cas->disk.loop, &rmw->write, volume_delta(rmw->cas->volume), rmw->bytes, STORE_PAGE,
                   rmw->page * STORE_PAGE);
        break;
    case RMW_WRITE:
        volume_mark(rmw->cas->volume, rmw->page, 1);
        rmw_next(rmw);
        break;
    }
}

static void read_done(struct disk_io *io, int result)
{
    rmw_step_done(container_of(io, struct rmw, read), result);
}

/* A page that was written in part (the disk is full) is not in the delta. */
static void write_done(struct loop_op *op, int result, unsigned flags)
{
    (void)flags;
    rmw_step_done(container_of(op, struct rmw, write),
                  result >= 0 && result < (int)STORE_PAGE ? -EIO : result);
}

void disk_cas_rmw(struct disk_cas *cas, struct disk_io *io)
{
    struct rmw *rmw = malloc(sizeof(*rmw));
    if (!rmw) {
        disk_cas_change_end(io, -ENOMEM);
        return;
    }
    rmw->cas = cas;
    rmw->io = io;
    rmw->read = (struct disk_io){.length = STORE_PAGE, .done = read_done};
    rmw->write = (struct loop_op){.done = write_done};
    rmw_next(rmw);
}
