/*
 * virtio-blk (virtio 1.2, 5.2): a kick takes all requests that are there, each becomes one operation of the
 * disk with the guest's own buffers as its memory, and each is given back as its operation ends, in whatever
 * order.
 */
#include "base/log.h"
#include "dev/disk.h"
#include "dev/virtio.h"
#include "dev/virtio_limiter.h"

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <string.h>

/* Buffers of a request's data that a driver may send: half a MiB of 4 KiB pages, nearly. With header and
 * status a request is then 128 descriptors. */
#define BLK_SEG_MAX 126u
#define BLK_IOV_MAX (BLK_SEG_MAX + 2)

/* DISCARD and WRITE_ZEROES: ranges in one request, and sectors in one range (2 GiB). */
#define BLK_RANGES_MAX        16u
#define BLK_RANGE_SECTORS_MAX (UINT32_C(1) << 22)

/* The walker lets no more be in flight. */
#define BLK_REQUESTS_MAX VIRTQUEUE_SIZE_MAX

struct blk_request {
    struct disk_io io;
    struct virtio_blk *blk;
    struct blk_request *next_free;
    uint8_t *status; /* the chain's last writable byte */
    uint32_t type;   /* VIRTIO_BLK_T_... */
    uint16_t head;
    uint32_t room;   /* writable bytes before the status byte */
    uint32_t filled; /* of them, how many are written when the request succeeds */
    unsigned range, range_count;
    union {
        struct iovec iov[BLK_IOV_MAX];
        struct virtio_blk_discard_write_zeroes ranges[BLK_RANGES_MAX]; /* these two have no data besides */
    };
};

struct virtio_blk {
    struct virtio_device device; /* first */
    struct disk *disk;
    struct virtio_limiter limiter;
    unsigned in_flight;
    /* The disk that takes the other one's place when nothing of that is in flight; NULL: none. */
    struct disk *next;
    struct loop_timer swap_timer;
    virtio_done *swapped;
    void *swapped_context;
    struct blk_counts {
        uint64_t reads, writes, flushes, discards, read_bytes, write_bytes, failed;
    } counts;
    /* Last in, first out, and fresh ones only when there is no other: memory is touched for as many requests
     * as were ever in flight at once. */
    struct blk_request *free, *requests;
    unsigned fresh;
};

static struct virtio_blk *blk_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_blk, device);
}

static struct blk_request *request_new(struct virtio_blk *blk)
{
    struct blk_request *request = blk->free;
    if (request) {
        blk->free = request->next_free;
    } else {
        CHECK(blk->fresh < BLK_REQUESTS_MAX);
        request = &blk->requests[blk->fresh++];
        request->blk = blk;
    }
    blk->in_flight++;
    return request;
}

static void request_free(struct blk_request *request)
{
    struct virtio_blk *blk = request->blk;
    request->next_free = blk->free;
    blk->free = request;
    blk->in_flight--;
}

static void end_quiesce(struct virtio_device *device)
{
    const struct virtio_blk *blk = blk_of(device);
    if (device->state == VIRTIO_QUIESCING && blk->in_flight == 0 && !blk->next &&
        !blk->limiter.timer.op.in_flight)
        virtio_quiesced(device);
}

/* --- the end of a request --- */

static void count_request(const struct blk_request *request, uint8_t status)
{
    struct blk_counts *counts = &request->blk->counts;
    if (status != VIRTIO_BLK_S_OK) {
        counts->failed++;
        return;
    }
    switch (request->type) {
    case VIRTIO_BLK_T_IN:
        counts->reads++;
        counts->read_bytes += request->filled;
        break;
    case VIRTIO_BLK_T_OUT:
        counts->writes++;
        counts->write_bytes += request->io.length;
        break;
    case VIRTIO_BLK_T_FLUSH: counts->flushes++; break;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES: counts->discards++; break;
    default: break;
    }
}

/* Gives the request back with `status` (VIRTIO_BLK_S_...). */
static void finish(struct blk_request *request, uint8_t status)
{
    struct virtio_blk *blk = request->blk;
    struct virtio_device *device = &blk->device;
    /* What is reported as written begins at the first writable byte and has no gaps (2.7.8.2): the status
     * byte counts when all before it is filled. */
    uint32_t written = status == VIRTIO_BLK_S_OK ? request->filled : 0;
    count_request(request, status);
    if (written == request->room)
        written++;
    *request->status = status;
    virtio_push(device, 0, request->head, written);
    request_free(request);
    if (blk->next && blk->in_flight == 0) /* in a turn of its own: the old disk is at work */
        loop_timer_start(device->loop, &blk->swap_timer, 1);
    end_quiesce(device);
}

static uint8_t status_of(const struct blk_request *request, int result)
{
    if (result == 0)
        return VIRTIO_BLK_S_OK;
    if (result == -EOPNOTSUPP)
        return VIRTIO_BLK_S_UNSUPP;
    log_warn("%s: request of type %u at byte %llu: %s", request->blk->device.label, request->type,
             (unsigned long long)request->io.offset, strerror(-result));
    return VIRTIO_BLK_S_IOERR;
}

static void io_done(struct disk_io *io, int result)
{
    struct blk_request *request = container_of(io, struct blk_request, io);
    finish(request, status_of(request, result));
}

/* --- requests --- */

/* Takes `length` bytes off the front of `*iov`, which holds as many, into `to`. */
static inline void take_front(struct iovec **iov, unsigned *count, void *to, size_t length)
{
    char *at = to;
    if ((*iov)->iov_len == length) { /* as drivers send it */
        memcpy(to, (*iov)->iov_base, length);
        (*iov)++;
        (*count)--;
        return;
    }
    while (length > 0) {
        size_t part = MIN(length, (*iov)->iov_len);
        memcpy(at, (*iov)->iov_base, part);
        at += part;
        length -= part;
        (*iov)->iov_base = (char *)(*iov)->iov_base + part;
        (*iov)->iov_len -= part;
        if ((*iov)->iov_len == 0) {
            (*iov)++;
            (*count)--;
        }
    }
}

/* True if [sector, sector + length) is on the disk; its start in bytes. */
static bool on_disk(const struct disk *disk, uint64_t sector, uint64_t length, uint64_t *ret_offset)
{
    if (sector > disk->size / DISK_SECTOR)
        return false;
    *ret_offset = sector * DISK_SECTOR;
    return length <= disk->size - *ret_offset;
}

/* After a write, discard or write zeroes. Without FLUSH the driver takes a finished one for a durable one
 * (5.2.6.2). */
static void change_done(struct disk_io *io, int result)
{
    const struct blk_request *request = container_of(io, struct blk_request, io);
    io->done = io_done;
    if (result < 0 || (request->blk->device.features & FEATURE(VIRTIO_BLK_F_FLUSH)))
        io_done(io, result);
    else
        io->disk->ops->flush(io->disk, io);
}

static void start_transfer(struct blk_request *request, uint64_t sector, uint64_t length)
{
    struct virtio_blk *blk = request->blk;
    struct disk *disk = blk->disk;
    bool write = request->type == VIRTIO_BLK_T_OUT;
    if (length % DISK_SECTOR || !on_disk(disk, sector, length, &request->io.offset) ||
        (write && disk->read_only)) {
        finish(request, VIRTIO_BLK_S_IOERR);
        return;
    }
    request->io.length = length;
    if (length == 0) {
        finish(request, VIRTIO_BLK_S_OK);
        return;
    }
    request->io.done = write ? change_done : io_done;
    if (write) {
        disk->ops->write(disk, &request->io);
    } else {
        request->filled = (uint32_t)length;
        disk->ops->read(disk, &request->io);
    }
}

static void start_flush(struct blk_request *request)
{
    struct disk *disk = request->blk->disk;
    request->io.offset = 0;
    request->io.done = io_done;
    if (disk->read_only)
        finish(request, VIRTIO_BLK_S_OK); /* nothing of it can be dirty */
    else
        disk->ops->flush(disk, &request->io);
}

static void get_id(struct blk_request *request, struct iovec *iov, unsigned count)
{
    char id[VIRTIO_BLK_ID_BYTES] = {0};
    memcpy(id, request->blk->disk->serial, strlen(request->blk->disk->serial));
    size_t done = 0;
    for (unsigned i = 0; i < count && done < sizeof(id); i++) {
        size_t part = MIN(iov[i].iov_len, sizeof(id) - done);
        memcpy(iov[i].iov_base, id + done, part);
        done += part;
    }
    request->filled = (uint32_t)done;
    finish(request, VIRTIO_BLK_S_OK);
}

/* --- DISCARD and WRITE_ZEROES: ranges, one after the other --- */

static void start_range(struct blk_request *request)
{
    struct disk *disk = request->blk->disk;
    const struct virtio_blk_discard_write_zeroes *range = &request->ranges[request->range];
    request->io.offset = range->sector * DISK_SECTOR;
    request->io.length = (uint64_t)range->num_sectors * DISK_SECTOR;
    request->io.unmap = range->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    if (request->type == VIRTIO_BLK_T_DISCARD)
        disk->ops->discard(disk, &request->io);
    else
        disk->ops->write_zeroes(disk, &request->io);
}

static void range_done(struct disk_io *io, int result)
{
    struct blk_request *request = container_of(io, struct blk_request, io);
    if (result < 0 || request->blk->device.forget || ++request->range == request->range_count)
        change_done(io, result);
    else
        start_range(request);
}

static uint8_t check_range(const struct blk_request *request,
                           const struct virtio_blk_discard_write_zeroes *range)
{
    uint32_t known = request->type == VIRTIO_BLK_T_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    uint64_t offset;
    if (range->flags & ~known)
        return VIRTIO_BLK_S_UNSUPP; /* 5.2.6.2 */
    if (range->num_sectors == 0 || range->num_sectors > BLK_RANGE_SECTORS_MAX ||
        !on_disk(request->blk->disk, range->sector, (uint64_t)range->num_sectors * DISK_SECTOR, &offset))
        return VIRTIO_BLK_S_IOERR;
    return VIRTIO_BLK_S_OK;
}

static void start_ranges(struct blk_request *request, struct iovec *iov, unsigned count, uint64_t length)
{
    struct virtio_blk_discard_write_zeroes ranges[BLK_RANGES_MAX];
    const struct disk *disk = request->blk->disk;
    bool can =
        request->type == VIRTIO_BLK_T_DISCARD ? disk->ops->discard != NULL : disk->ops->write_zeroes != NULL;
    uint8_t status = VIRTIO_BLK_S_OK;
    if (!can)
        status = VIRTIO_BLK_S_UNSUPP;
    else if (disk->read_only || length == 0 || length > sizeof(ranges) || length % sizeof(ranges[0]))
        status = VIRTIO_BLK_S_IOERR;
    request->range = 0;
    request->range_count = status == VIRTIO_BLK_S_OK ? (unsigned)(length / sizeof(ranges[0])) : 0;
    if (request->range_count)
        take_front(&iov, &count, ranges, length);
    for (unsigned i = 0; i < request->range_count && status == VIRTIO_BLK_S_OK; i++)
        status = check_range(request, &ranges[i]);
    if (status != VIRTIO_BLK_S_OK) {
        finish(request, status);
        return;
    }
    memcpy(request->ranges, ranges, length); /* over the iovecs, which are done with */
    request->io.done = range_done;
    start_range(request);
}

/* --- the queue --- */

/* Nothing is assumed of how header, data and status lie in the chain's buffers (2.7.4.3): the header is its
 * first 16 readable bytes, the status its last writable one, and data is what remains. */
static int blk_take(struct virtio_device *device, unsigned q, struct virtq_chain *chain)
{
    (void)q;
    struct virtio_blk_outhdr header;
    unsigned readable_count = chain->readable, writable_count = chain->writable;
    if (chain->readable_bytes < sizeof(header) || writable_count == 0)
        return fail(-EPROTO,
                    "a request with %llu readable and %llu writable bytes: no room for header or status",
                    (unsigned long long)chain->readable_bytes, (unsigned long long)chain->writable_bytes);
    struct virtio_blk *blk = blk_of(device);
    if (blk->next)
        return -EAGAIN;
    uint64_t payload = chain->readable_bytes - sizeof(header) + chain->writable_bytes - 1;
    if (virtio_limiter_take(&blk->limiter, payload) < 0)
        return -EAGAIN;
    struct blk_request *request = request_new(blk);
    struct iovec *readable = request->iov, *writable = request->iov + readable_count;
    memcpy(request->iov, chain->iov, (readable_count + writable_count) * sizeof(*request->iov));
    take_front(&readable, &readable_count, &header, sizeof(header));
    uint64_t readable_bytes = chain->readable_bytes - sizeof(header);

    struct iovec *last = &writable[writable_count - 1];
    request->status = (uint8_t *)last->iov_base + --last->iov_len;
    if (last->iov_len == 0)
        writable_count--;
    request->room = (uint32_t)(chain->writable_bytes - 1);
    request->filled = 0;
    request->head = chain->head;
    request->type = header.type;

    switch (header.type) {
    case VIRTIO_BLK_T_IN:
        request->io.iov = writable;
        request->io.iov_count = writable_count;
        start_transfer(request, header.sector, request->room);
        break;
    case VIRTIO_BLK_T_OUT:
        request->io.iov = readable;
        request->io.iov_count = readable_count;
        start_transfer(request, header.sector, readable_bytes);
        break;
    case VIRTIO_BLK_T_FLUSH: start_flush(request); break;
    case VIRTIO_BLK_T_GET_ID: get_id(request, writable, writable_count); break;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES: start_ranges(request, readable, readable_count, readable_bytes); break;
    default: finish(request, VIRTIO_BLK_S_UNSUPP); break;
    }
    return 0;
}

/* What is in flight ends by itself: a disk's operations cannot be taken back half done. */
static void blk_quiesce(struct virtio_device *device)
{
    virtio_limiter_stop(&blk_of(device)->limiter);
    end_quiesce(device);
}

static void blk_write_back(struct virtio_device *device)
{
    struct disk *disk = blk_of(device)->disk;
    if (disk->ops->write_back)
        disk->ops->write_back(disk);
}

static void blk_destroy(struct virtio_device *device)
{
    struct virtio_blk *blk = blk_of(device);
    blk->disk->ops->close(blk->disk);
    free(blk->requests);
    free(blk);
}

static uint64_t blk_features(const struct disk *disk)
{
    uint64_t features =
        FEATURE(VIRTIO_BLK_F_SEG_MAX) | FEATURE(VIRTIO_BLK_F_BLK_SIZE) | FEATURE(VIRTIO_BLK_F_TOPOLOGY);
    if (disk->read_only)
        return features | FEATURE(VIRTIO_BLK_F_RO);
    features |= FEATURE(VIRTIO_BLK_F_FLUSH);
    if (disk->ops->discard)
        features |= FEATURE(VIRTIO_BLK_F_DISCARD);
    if (disk->ops->write_zeroes)
        features |= FEATURE(VIRTIO_BLK_F_WRITE_ZEROES);
    return features;
}

/* --- another disk --- */

/* Low word first where it grows, high word first where it shrinks: what a driver reads in between is on both
 * disks. The driver is told also if the size is the same. */
static void show_capacity(struct virtio_device *device, uint64_t before, uint64_t after)
{
    const uint32_t low = offsetof(struct virtio_blk_config, capacity), high = low + 4;
    if (after < before && after >> 32 != before >> 32)
        virtio_set_config_word(device, high, (uint32_t)(after >> 32));
    virtio_set_config_word(device, low, (uint32_t)after);
    if (after > before && after >> 32 != before >> 32)
        virtio_set_config_word(device, high, (uint32_t)(after >> 32));
}

static void swap_disks(struct virtio_blk *blk)
{
    struct disk *old = blk->disk;
    CHECK(blk->in_flight == 0);
    blk->disk = ptr_steal(&blk->next);
    disk_attach(blk->disk, blk->device.loop);
    show_capacity(&blk->device, old->size / DISK_SECTOR, blk->disk->size / DISK_SECTOR);
    old->ops->close(old);
    if (blk->device.state == VIRTIO_RUNNING)
        virtio_kick_again(&blk->device, 0);
    virtio_done *done = ptr_steal(&blk->swapped);
    done(blk->swapped_context);
    end_quiesce(&blk->device);
}

static void swap_due(struct loop_op *op, int result, unsigned flags)
{
    (void)result, (void)flags;
    swap_disks(container_of(op, struct virtio_blk, swap_timer.op));
}

/* What the driver knows of the disk stays true. */
static int check_next(const struct virtio_blk *blk, const struct disk *next)
{
    const struct disk *disk = blk->disk;
    if (blk->next)
        return fail(-EBUSY, "another disk is being put in its place already");
    if (next->read_only != disk->read_only)
        return fail(-EINVAL, "the guest knows the drive as %s, and the new disk is not",
                    disk->read_only ? "read-only" : "writable");
    if (next->sector != disk->sector)
        return fail(-EINVAL,
                    "the guest knows the drive's sectors as %u bytes, and those of the new disk have %u",
                    disk->sector, next->sector);
    if (!disk->read_only && ((disk->ops->discard && !next->ops->discard) ||
                             (disk->ops->write_zeroes && !next->ops->write_zeroes)))
        return fail(-EINVAL, "the guest may discard what is on the drive, and the new disk cannot do that");
    return 0;
}

int virtio_blk_replace(struct virtio_device *device, struct disk *disk, virtio_done *done, void *context)
{
    struct virtio_blk *blk = blk_of(device);
    int r = check_next(blk, disk);
    if (r < 0)
        return r;
    blk->next = disk;
    blk->swapped = done;
    blk->swapped_context = context;
    if (blk->in_flight == 0)
        swap_disks(blk);
    return 0;
}

#define COUNTER(name_, help_)                                                                                \
    {                                                                                                        \
#name_, (help_), offsetof(struct virtio_blk, counts.name_)                                           \
    }
static const struct virtio_counter blk_counters[] = {
    COUNTER(reads, "Requests to read that ended well."),
    COUNTER(writes, "Requests to write that ended well."),
    COUNTER(flushes, "Requests to flush that ended well."),
    COUNTER(discards, "Requests to discard or zero that ended well."),
    COUNTER(read_bytes, "Bytes read."),
    COUNTER(write_bytes, "Bytes written."),
    COUNTER(failed, "Requests that ended with an error, or that the device does not know."),
};

int virtio_blk_new(struct loop *loop, struct disk *disk, const char *label, struct virtio_device **ret_device)
{
    static const struct virtio_ops ops = {
        .name = "virtio-blk",
        .device_id = VIRTIO_ID_BLOCK,
        .queue_count = 1,
        .iov_max = BLK_IOV_MAX,
        .take = blk_take,
        .quiesce = blk_quiesce,
        .write_back = blk_write_back,
        .counters = blk_counters,
        .counter_count = ARRAY_SIZE(blk_counters),
        .destroy = blk_destroy,
    };
    struct virtio_blk *blk = calloc(1, sizeof(*blk));
    struct blk_request *requests = calloc(BLK_REQUESTS_MAX, sizeof(*requests));
    int r = blk && requests ? virtio_init(&blk->device, &ops, loop, label, blk_features(disk))
                            : fail(-ENOMEM, "%s: no memory for its requests", label);
    if (r < 0) {
        free(blk);
        free(requests);
        return r;
    }
    virtio_limiter_init(&blk->limiter, &blk->device, 0, end_quiesce);
    blk->swap_timer.op.done = swap_due;
    disk_attach(disk, loop);
    blk->disk = disk;
    blk->requests = requests;
    const struct virtio_blk_config config = {
        .capacity = disk->size / DISK_SECTOR,
        .seg_max = BLK_SEG_MAX,
        .blk_size = disk->sector,
        .physical_block_exp = (uint8_t)__builtin_ctz(DISK_PHYSICAL / disk->sector),
        .min_io_size = (uint16_t)(DISK_PHYSICAL / disk->sector),
        .num_queues = 1,
        .max_discard_sectors = BLK_RANGE_SECTORS_MAX,
        .max_discard_seg = BLK_RANGES_MAX,
        .discard_sector_alignment = 4096 / DISK_SECTOR,
        .max_write_zeroes_sectors = BLK_RANGE_SECTORS_MAX,
        .max_write_zeroes_seg = BLK_RANGES_MAX,
        .write_zeroes_may_unmap = 1,
    };
    virtio_set_config(&blk->device, &config, sizeof(config));
    *ret_device = &blk->device;
    return 0;
}

void virtio_blk_limit(struct virtio_device *device, const struct rate_limiter_config *config)
{
    virtio_limiter_set(&blk_of(device)->limiter, config);
}

struct disk *virtio_blk_disk(const struct virtio_device *device)
{
    return ((const struct virtio_blk *)device)->disk;
}

const struct rate_limiter *virtio_blk_limiter(const struct virtio_device *device)
{
    return &((const struct virtio_blk *)device)->limiter.own;
}
