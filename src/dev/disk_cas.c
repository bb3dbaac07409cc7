/*
 * Disks in Stellarium: a read goes, as one request of the ring, from the object (or the delta, or nowhere:
 * zeros) into the guest's memory; a write goes to the delta. src/store/volume.h has what is where and what a
 * flush is.
 *
 *   read     lookup -> descriptor of the object, verified at first use (disk_cas_objects.c) -> readv
 *   write    writev to the delta -> its pages are marked
 *   discard  a hole is punched into the delta -> its pages are marked
 *   flush    fdatasync of the delta -> the map's changed blocks -> fdatasync of the map (disk_cas_flush.c)
 *
 * A write of a part of a page that is not in the delta is a read-modify-write (disk_cas_rmw.c). Guests are
 * told that 4096 bytes are the physical sector, and most of them never cause one.
 */
#include "dev/disk_cas.h"
#include "dev/disk_cas_internal.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>

/* A read of several stretches, done one after the other. */
struct split_read {
    struct loop_op op;
    struct disk_io *io;
    struct iovec iov[];
};

/* --- reading --- */

static void read_continue(struct disk_io *io);

static void read_part_done(struct disk_io *io, int result)
{
    if (result > 0 && (uint64_t)result == io->length - io->progress) {
        io->done(io, 0);
    } else if (result > 0 || result == -EINTR) {
        disk_io_advance(io, (uint64_t)MAX(result, 0));
        read_continue(io);
    } else { /* a file that ends early was truncated under us */
        io->done(io, result < 0 ? result : -EIO);
    }
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
            if (part < left) {
                disk_io_advance(io, part);
                continue;
            }
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

void disk_cas_resume(struct disk_io *io, int result)
{
    if (result < 0)
        io->done(io, -EIO);
    else
        read_continue(io);
}

void disk_cas_read(struct disk *disk, struct disk_io *io)
{
    io->disk = disk;
    io->progress = 0;
    io->op = (struct loop_op){.done = read_done};
    read_continue(io);
}

/* --- writing, discarding --- */

static void write_done(struct loop_op *op, int result, unsigned flags);

/* Enters its pages: from the beginning, also when it had to wait. */
static void change_start(struct disk_io *io)
{
    struct disk_cas *cas = cas_of(io->disk);
    uint64_t page;
    bool rmw = disk_cas_needs_rmw(cas, io, &page);
    if (!disk_ranges_enter(&cas->ranges, io, align_down(io->offset, STORE_PAGE),
                           align_up(io->offset + io->length, STORE_PAGE), rmw))
        return;
    if (rmw)
        disk_cas_rmw(cas, io);
    else
        disk_cas_change(io);
}

void disk_cas_change_end(struct disk_io *io, int result)
{
    disk_ranges_leave(&cas_of(io->disk)->ranges, io, change_start);
    io->done(io, result);
}

/* What the operation changed is in the delta from now on. */
static void changed(struct disk_io *io)
{
    uint64_t first = io->offset / STORE_PAGE;
    uint64_t end = align_up(io->offset + io->length, STORE_PAGE) / STORE_PAGE;
    volume_mark(cas_of(io->disk)->volume, first, end - first);
    disk_cas_change_end(io, 0);
}

static void write_start(struct disk_io *io)
{
    int delta = volume_delta(cas_of(io->disk)->volume);
    uint64_t at = io->offset + io->progress;
    if (io->iov_count == 1)
        loop_write(io->disk->loop, &io->op, delta, io->iov->iov_base, (uint32_t)io->iov->iov_len, at);
    else
        loop_writev(io->disk->loop, &io->op, delta, io->iov, io->iov_count, at);
}

static void write_done(struct loop_op *op, int result, unsigned flags)
{
    struct disk_io *io = container_of(op, struct disk_io, op);
    (void)flags;
    if (result > 0 && (uint64_t)result == io->length - io->progress) {
        changed(io);
    } else if (result > 0 || result == -EINTR) {
        disk_io_advance(io, (uint64_t)MAX(result, 0));
        write_start(io);
    } else {
        disk_cas_change_end(io, result < 0 ? result : -EIO);
    }
}

static void punch_done(struct loop_op *op, int result, unsigned flags)
{
    struct disk_io *io = container_of(op, struct disk_io, op);
    (void)flags;
    if (result < 0)
        disk_cas_change_end(io, result);
    else
        changed(io);
}

void disk_cas_change(struct disk_io *io)
{
    if (io->op.done == write_done)
        write_start(io);
    else /* zeroes the parts of pages at its ends, and gives back the space of whole ones */
        loop_fallocate(io->disk->loop, &io->op, volume_delta(cas_of(io->disk)->volume),
                       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, io->offset, io->length);
}

static void change_begin(struct disk *disk, struct disk_io *io, loop_done *done)
{
    io->disk = disk;
    io->progress = 0;
    io->op = (struct loop_op){.done = done};
    change_start(io);
}

static void disk_cas_write(struct disk *disk, struct disk_io *io)
{
    change_begin(disk, io, write_done);
}

static void disk_cas_discard(struct disk *disk, struct disk_io *io)
{
    change_begin(disk, io, punch_done);
}

/* --- opening and closing --- */

static void disk_cas_attach(struct disk *disk)
{
    disk_objects_attach(&cas_of(disk)->objects, disk->loop);
}

static void disk_cas_each_fd(struct disk *disk, disk_fd_told *told, void *context)
{
    store_each_fd(cas_of(disk)->store, told, context);
    volume_each_fd(cas_of(disk)->volume, told, context);
}

static int disk_cas_copy(struct disk *disk, int fd)
{
    return volume_copy_delta(cas_of(disk)->volume, fd);
}

static void disk_cas_copied(struct disk *disk, int fd)
{
    disk_objects_copied(&cas_of(disk)->objects);
    if (fd >= 0)
        volume_copied(cas_of(disk)->volume, fd);
}

static void disk_cas_close(struct disk *disk)
{
    struct disk_cas *cas = cas_of(disk);
    if (cas->volume)
        disk_cas_write_back(disk);
    disk_objects_free(&cas->objects);
    volume_close(cas->volume);
    store_close(cas->store);
    free(cas->ranges.waiting.items);
    free(cas);
}

static const struct disk_ops disk_cas_ops = {
    .attach = disk_cas_attach,
    .read = disk_cas_read,
    .write = disk_cas_write,
    .flush = disk_cas_flush,
    .discard = disk_cas_discard,
    .write_zeroes = disk_cas_discard,
    .each_fd = disk_cas_each_fd,
    .copy = disk_cas_copy,
    .copied = disk_cas_copied,
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

static int open_all(struct disk_cas *cas, const char *store_path, const char *spec,
                    const struct disk_options *options)
{
    int r = store_open(store_path, &cas->store);
    if (r == 0)
        r = open_volume(cas, spec, options->read_only);
    if (r == 0)
        r = disk_choose_sector(spec, options, volume_bytes(cas->volume), &cas->disk.sector);
    if (r == 0)
        r = disk_objects_init(&cas->objects, cas->store, volume_manifest(cas->volume));
    return r;
}

int disk_cas_open(const char *store_path, const char *spec, const struct disk_options *options,
                  struct disk **ret_disk)
{
    if (!store_path)
        return fail(-EINVAL, "%s: in which store? Give --cas-store DIR (or set STELLARIUM_STORE)", spec);
    struct disk_cas *cas = calloc(1, sizeof(*cas));
    if (!cas)
        return fail(-ENOMEM, "%s: no memory for a disk", spec);
    cas->disk.ops = &disk_cas_ops;
    int r = open_all(cas, store_path, spec, options);
    if (r < 0) {
        disk_cas_close(&cas->disk);
        return r;
    }
    cas->disk.size = volume_bytes(cas->volume);
    cas->disk.read_only = !volume_writable(cas->volume);
    snprintf(cas->disk.serial, sizeof(cas->disk.serial), "%.20s", volume_id(cas->volume));
    *ret_disk = &cas->disk;
    return 0;
}
