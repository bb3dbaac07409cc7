/*
 * Disks in Stellarium: a read goes, as one request of the ring, from the object (or the delta, or nowhere:
 * zeros) into the guest's memory; a write goes to the delta. src/store/volume.h has what is where and what a
 * flush is.
 *
 *   read     lookup -> descriptor of the object, verified at first use (disk_cas_objects.c) -> readv
 *   write    writev to the delta -> its pages are marked
 *   discard  a hole is punched into the delta -> its pages are marked
 *   flush    fdatasync of the delta -> the map's blocks that changed -> fdatasync of the map
 *
 * A write of part of a page that is not in the delta needs the rest of the page there first: a *fill*. It
 * happens alone: writes that come wait, and it waits for those in flight, so that it cannot put old bytes
 * over new ones. Guests that use the block size they are told, 4096, never cause one.
 */
#include "dev/disk_cas.h"
#include "base/log.h"
#include "dev/disk_cas_internal.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>

struct disk_cas {
    struct disk disk;
    struct store *store;
    struct volume *volume;
    struct disk_objects objects;
    unsigned writes_in_flight;
    struct io_queue held; /* writes and discards that wait for a fill, their own the first */
    struct {
        struct loop_op op;
        bool wanted, active;
        uint64_t page;
        struct disk_io read; /* of the page, as a request of our own */
        struct iovec iov;
        uint8_t bytes[STORE_PAGE];
    } fill;
    struct {
        struct loop_op op;
        bool active;
        unsigned step;
        int result;
        struct volume_checkpoint checkpoint;
        struct io_queue served, waiting; /* flushes that this round ends; that came later */
    } flush;
};

/* A read of several stretches, done one after the other. */
struct split_read {
    struct loop_op op;
    struct disk_io *io;
    struct iovec iov[];
};

static struct disk_cas *cas_of(struct disk *disk)
{
    return container_of(disk, struct disk_cas, disk);
}

/* --- reading --- */

static void read_continue(struct disk_io *io);

/* Takes the first `bytes` off the iovecs. */
static void skip(struct disk_io *io, uint64_t bytes)
{
    io->progress += bytes;
    while (bytes > 0 && bytes >= io->iov->iov_len) {
        bytes -= io->iov->iov_len;
        io->iov++;
        io->iov_count--;
    }
    if (bytes > 0) {
        io->iov->iov_base = (char *)io->iov->iov_base + bytes;
        io->iov->iov_len -= bytes;
    }
}

static void read_part_done(struct disk_io *io, int result)
{
    if (result > 0)
        skip(io, (uint64_t)result);
    if (io->progress == io->length)
        io->done(io, 0);
    else if (result > 0 || result == -EINTR)
        read_continue(io);
    else /* a file that ends early was truncated under us */
        io->done(io, result < 0 ? result : -EIO);
}

static void read_done(struct loop_op *op, int result, unsigned flags)
{
    (void)flags;
    read_part_done(container_of(op, struct disk_io, op), result);
}

static void split_done(struct loop_op *op, int result, unsigned flags)
{
    struct split_read *split = container_of(op, struct split_read, op);
    struct disk_io *io = split->io;
    (void)flags;
    free(split);
    read_part_done(io, result);
}

/* Starts reading `part` bytes, fewer than the request has left, at `offset` of `fd`. */
static void read_split(struct disk_io *io, int fd, uint64_t offset, uint64_t part)
{
    struct split_read *split = malloc(sizeof(*split) + io->iov_count * sizeof(split->iov[0]));
    if (!split) {
        io->done(io, -ENOMEM);
        return;
    }
    *split = (struct split_read){.op.done = split_done, .io = io};
    unsigned count = 0;
    for (uint64_t left = part; left > 0; left -= split->iov[count++].iov_len) {
        split->iov[count] = io->iov[count];
        split->iov[count].iov_len = MIN(split->iov[count].iov_len, left);
    }
    loop_readv(io->disk->loop, &split->op, fd, split->iov, count, offset);
}

static void read_zeros(struct disk_io *io, uint64_t part)
{
    uint64_t left = part;
    for (unsigned i = 0; left > 0; i++) {
        uint64_t length = MIN((uint64_t)io->iov[i].iov_len, left);
        memset(io->iov[i].iov_base, 0, length);
        left -= length;
    }
}

/* Reads on from where the request is, as far as one stretch goes. Zeros are done at once, and then the next
 * one. */
static void read_continue(struct disk_io *io)
{
    struct disk_cas *cas = cas_of(io->disk);
    for (;;) {
        uint64_t at = io->offset + io->progress, left = io->length - io->progress, into = at % STORE_PAGE;
        struct volume_run run =
            volume_lookup(cas->volume, at / STORE_PAGE, (into + left + STORE_PAGE - 1) / STORE_PAGE);
        uint64_t part = MIN(run.pages * STORE_PAGE - into, left);
        if (run.place == VOLUME_ZERO) {
            read_zeros(io, part);
            skip(io, part);
            if (part < left)
                continue;
            io->done(io, 0);
            return;
        }
        int fd = volume_delta(cas->volume);
        if (run.place == VOLUME_OBJECT) {
            int r = disk_objects_get(&cas->objects, run.object, io, &fd);
            if (r < 0)
                io->done(io, -EIO);
            if (r <= 0)
                return;
            at = (uint64_t)run.object_page * STORE_PAGE + into;
        }
        if (part < left)
            read_split(io, fd, at, part);
        else if (io->iov_count == 1) /* spares the kernel an array to copy */
            loop_read(io->disk->loop, &io->op, fd, io->iov->iov_base, (uint32_t)io->iov->iov_len, at);
        else
            loop_readv(io->disk->loop, &io->op, fd, io->iov, io->iov_count, at);
        return;
    }
}

static void resume_read(void *owner, struct disk_io *io)
{
    (void)owner;
    read_continue(io);
}

static void disk_cas_read(struct disk *disk, struct disk_io *io)
{
    io->disk = disk;
    io->progress = 0;
    io->op = (struct loop_op){.done = read_done};
    read_continue(io);
}

/* --- writing, discarding --- */

static void change_start(struct disk_cas *cas, struct disk_io *io);

/* The first page that the operation changes in part and that is not in the delta: false if there is none. */
static bool needs_fill(const struct disk_cas *cas, const struct disk_io *io, uint64_t *ret_page)
{
    uint64_t end = io->offset + io->length, disk_end = cas->disk.size;
    const uint64_t edges[2] = {io->offset, end};
    for (unsigned i = 0; i < 2; i++) {
        uint64_t page = edges[i] / STORE_PAGE;
        /* The end of the disk may lie in a page: what is behind it is nobody's. */
        if (edges[i] % STORE_PAGE && edges[i] < disk_end &&
            volume_lookup(cas->volume, page, 1).place != VOLUME_DELTA) {
            *ret_page = page;
            return true;
        }
    }
    return false;
}

/* Starts those that waited again, from the beginning; one of them may need the next fill. */
static void release_held(struct disk_cas *cas)
{
    struct io_queue held = cas->held;
    cas->held = (struct io_queue){0};
    for (unsigned i = 0; i < held.count; i++)
        change_start(cas, held.items[i]);
    free(held.items);
}

static void fill_end(struct disk_cas *cas, int result)
{
    cas->fill.active = cas->fill.wanted = false;
    if (result == 0) {
        volume_mark(cas->volume, cas->fill.page, 1);
    } else {
        struct disk_io *first = cas->held.items[0];
        memmove(&cas->held.items[0], &cas->held.items[1], --cas->held.count * sizeof(struct disk_io *));
        first->done(first, result);
    }
    release_held(cas);
}

static void fill_written(struct loop_op *op, int result, unsigned flags)
{
    struct disk_cas *cas = container_of(op, struct disk_cas, fill.op);
    (void)flags;
    fill_end(cas, result == STORE_PAGE ? 0 : result < 0 ? result : -EIO);
}

static void fill_read(struct disk_io *io, int result)
{
    struct disk_cas *cas = container_of(io, struct disk_cas, fill.read);
    if (result < 0) {
        fill_end(cas, result);
        return;
    }
    cas->fill.op = (struct loop_op){.done = fill_written};
    loop_write(cas->disk.loop, &cas->fill.op, volume_delta(cas->volume), cas->fill.bytes, STORE_PAGE,
               cas->fill.page * STORE_PAGE);
}

/* When nothing is being written any more. */
static void fill_start(struct disk_cas *cas)
{
    cas->fill.active = true;
    cas->fill.iov = (struct iovec){.iov_base = cas->fill.bytes, .iov_len = STORE_PAGE};
    cas->fill.read = (struct disk_io){.iov = &cas->fill.iov,
                                      .iov_count = 1,
                                      .offset = cas->fill.page * STORE_PAGE,
                                      .length = STORE_PAGE,
                                      .done = fill_read};
    disk_cas_read(&cas->disk, &cas->fill.read);
}

static void hold(struct disk_cas *cas, struct disk_io *io)
{
    if (io_queue_add(&cas->held, io) < 0)
        io->done(io, -ENOMEM);
}

/* The operation on the delta is over: what it changed is in the delta from now on. */
static void change_end(struct disk_io *io, int result)
{
    struct disk_cas *cas = cas_of(io->disk);
    if (result == 0) {
        uint64_t first = io->offset / STORE_PAGE;
        uint64_t end = align_up(io->offset + io->length, STORE_PAGE) / STORE_PAGE;
        volume_mark(cas->volume, first, end - first);
    }
    cas->writes_in_flight--;
    io->done(io, result);
    if (cas->fill.wanted && !cas->fill.active && cas->writes_in_flight == 0)
        fill_start(cas);
}

static void write_continue(struct disk_io *io)
{
    loop_writev(io->disk->loop, &io->op, volume_delta(cas_of(io->disk)->volume), io->iov, io->iov_count,
                io->offset + io->progress);
}

static void write_done(struct loop_op *op, int result, unsigned flags)
{
    struct disk_io *io = container_of(op, struct disk_io, op);
    (void)flags;
    if (result > 0)
        skip(io, (uint64_t)result);
    if (io->progress == io->length)
        change_end(io, 0);
    else if (result > 0 || result == -EINTR)
        write_continue(io);
    else
        change_end(io, result < 0 ? result : -EIO);
}

static void punch_done(struct loop_op *op, int result, unsigned flags)
{
    (void)flags;
    change_end(container_of(op, struct disk_io, op), result);
}

/* Writes have iovecs, discards none. */
static void change_start(struct disk_cas *cas, struct disk_io *io)
{
    uint64_t page;
    if (cas->fill.wanted) {
        hold(cas, io);
        return;
    }
    if (needs_fill(cas, io, &page)) {
        if (io_queue_add(&cas->held, io) < 0) {
            io->done(io, -ENOMEM);
            return;
        }
        cas->fill.wanted = true;
        cas->fill.page = page;
        if (cas->writes_in_flight == 0)
            fill_start(cas);
        return;
    }
    cas->writes_in_flight++;
    if (io->op.done == write_done)
        write_continue(io);
    else /* zeroes the parts of pages at its ends, and gives back the space of whole ones */
        loop_fallocate(cas->disk.loop, &io->op, volume_delta(cas->volume),
                       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, io->offset, io->length);
}

static void change_begin(struct disk *disk, struct disk_io *io, loop_done *done)
{
    io->disk = disk;
    io->progress = 0;
    io->op = (struct loop_op){.done = done};
    change_start(cas_of(disk), io);
}

static void disk_cas_write(struct disk *disk, struct disk_io *io)
{
    change_begin(disk, io, write_done);
}

static void disk_cas_discard(struct disk *disk, struct disk_io *io)
{
    change_begin(disk, io, punch_done);
}

/* --- flushing --- */

static void flush_round(struct disk_cas *cas);

static void flush_end(struct disk_cas *cas)
{
    struct io_queue served = cas->flush.served;
    int result = cas->flush.result;
    volume_checkpoint_end(cas->volume, &cas->flush.checkpoint, result == 0);
    cas->flush.served = cas->flush.waiting;
    cas->flush.waiting = (struct io_queue){0};
    cas->flush.active = false;
    if (cas->flush.served.count > 0)
        flush_round(cas);
    for (unsigned i = 0; i < served.count; i++)
        served.items[i]->done(served.items[i], result);
    free(served.items);
}

/* The steps of volume.h, each started when the one before is done: the delta, the descriptors of its name, the blocks, the
 * map. */
static void flush_next(struct disk_cas *cas)
{
    const struct volume_checkpoint *checkpoint = &cas->flush.checkpoint;
    unsigned step = cas->flush.step++;
    if (step == 0)
        loop_fdatasync(cas->disk.loop, &cas->flush.op, volume_delta(cas->volume));
    else if (--step < checkpoint->name_fd_count)
        loop_fdatasync(cas->disk.loop, &cas->flush.op, checkpoint->name_fds[step]);
    else if ((step -= checkpoint->name_fd_count) < checkpoint->count)
        loop_write(cas->disk.loop, &cas->flush.op, volume_map(cas->volume), checkpoint->blocks[step].bytes,
                   STORE_PAGE, checkpoint->blocks[step].offset);
    else if (step == checkpoint->count && checkpoint->count > 0)
        loop_fdatasync(cas->disk.loop, &cas->flush.op, volume_map(cas->volume));
    else
        flush_end(cas);
}

static void flush_step_done(struct loop_op *op, int result, unsigned flags)
{
    struct disk_cas *cas = container_of(op, struct disk_cas, flush.op);
    (void)flags;
    if (result >= 0) {
        flush_next(cas);
        return;
    }
    cas->flush.result = result;
    flush_end(cas);
}

static void flush_round(struct disk_cas *cas)
{
    cas->flush.active = true;
    cas->flush.step = 0;
    cas->flush.op = (struct loop_op){.done = flush_step_done};
    cas->flush.result = volume_checkpoint_begin(cas->volume, &cas->flush.checkpoint);
    if (cas->flush.result < 0)
        flush_end(cas);
    else
        flush_next(cas);
}

static void disk_cas_flush(struct disk *disk, struct disk_io *io)
{
    struct disk_cas *cas = cas_of(disk);
    io->disk = disk;
    if (volume_map(cas->volume) < 0) { /* scratch: nothing of it is to last */
        io->done(io, 0);
        return;
    }
    if (io_queue_add(cas->flush.active ? &cas->flush.waiting : &cas->flush.served, io) < 0)
        io->done(io, -ENOMEM);
    else if (!cas->flush.active)
        flush_round(cas);
}

/* --- opening and closing --- */

/* A flush, so that no power cut afterwards finds a page marked in the map that is not in the delta. After the
 * guest's own last flush there is nothing to do. */
static void disk_cas_write_back(struct disk *disk)
{
    struct disk_cas *cas = cas_of(disk);
    if (cas->volume && volume_unsaved(cas->volume) && volume_flush(cas->volume) < 0)
        log_warn("volume %s: what its guest wrote and did not flush is lost: %s", volume_id(cas->volume),
                 fail_text());
}

static void disk_cas_close(struct disk *disk)
{
    struct disk_cas *cas = cas_of(disk);
    disk_cas_write_back(disk);
    disk_objects_free(&cas->objects);
    volume_close(cas->volume);
    store_close(cas->store);
    free(cas->held.items);
    free(cas->flush.served.items);
    free(cas->flush.waiting.items);
    free(cas);
}

static const struct disk_ops disk_cas_ops = {
    .read = disk_cas_read,
    .write = disk_cas_write,
    .flush = disk_cas_flush,
    .discard = disk_cas_discard,
    .write_zeroes = disk_cas_discard,
    .write_back = disk_cas_write_back,
    .close = disk_cas_close,
};

static const char volume_prefix[] = "volume:", image_prefix[] = "cas:";

bool disk_cas_is(const char *spec)
{
    return strncmp(spec, volume_prefix, sizeof(volume_prefix) - 1) == 0 ||
           strncmp(spec, image_prefix, sizeof(image_prefix) - 1) == 0;
}

static int open_volume(struct disk_cas *cas, const char *spec, bool read_only)
{
    const char *scratch = getenv("TMPDIR");
    if (strncmp(spec, volume_prefix, sizeof(volume_prefix) - 1) == 0)
        return volume_open(cas->store, spec + sizeof(volume_prefix) - 1, read_only, &cas->volume);
    return volume_open_image(cas->store, spec + sizeof(image_prefix) - 1,
                             read_only             ? NULL
                             : scratch && *scratch ? scratch
                                                   : "/var/tmp",
                             &cas->volume);
}

int disk_cas_open(struct loop *loop, const char *store_path, const char *spec, bool read_only,
                  struct disk **ret_disk)
{
    if (!store_path)
        return fail(-EINVAL, "%s: in which store? Give --cas-store DIR (or set STELLARIUM_STORE)", spec);
    struct disk_cas *cas = calloc(1, sizeof(*cas));
    if (!cas)
        return fail(-ENOMEM, "%s: no memory for a disk", spec);
    int r = store_open(store_path, &cas->store);
    if (r == 0)
        r = open_volume(cas, spec, read_only);
    if (r == 0)
        r = disk_objects_init(&cas->objects, loop, cas->store, volume_manifest(cas->volume));
    if (r < 0) {
        disk_cas_close(&cas->disk);
        return r;
    }
    cas->objects.resume = resume_read;
    cas->disk = (struct disk){.ops = &disk_cas_ops,
                              .loop = loop,
                              .size = volume_bytes(cas->volume),
                              .block_size = STORE_PAGE,
                              .read_only = !volume_writable(cas->volume)};
    snprintf(cas->disk.serial, sizeof(cas->disk.serial), "%.20s", volume_id(cas->volume));
    *ret_disk = &cas->disk;
    return 0;
}
