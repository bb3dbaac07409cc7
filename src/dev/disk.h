/*
 * A disk: what virtio-blk reads from and writes to. One file per kind (disk_file.c: regular files and block
 * devices).
 *
 * All functions run on the loop thread. Every operation is asynchronous: it completes by disk_io.done, later
 * or before the call returns, never blocks the loop, and the memory of the disk_io and of what its iovecs
 * point at stays untouched by others until then. Many are in flight at once, in any order.
 */
#pragma once

#include "loop/loop.h"
#include "vcpu/mem.h"

struct disk_io {
    /* The caller's. */
    struct iovec *iov; /* the disk may change the array while the operation runs (after a short read) */
    unsigned iov_count;
    uint64_t offset; /* bytes; with length inside the disk: checked by the caller */
    uint64_t length; /* bytes in all iovecs, more than 0; or of the range for discard and write_zeroes */
    bool unmap;      /* write_zeroes: the space may be given back */
    /* `result`: 0 all of it was done, or a negative errno and nothing is known. -EOPNOTSUPP: this disk
     * cannot. */
    void (*done)(struct disk_io *io, int result);

    /* The disk's own while in flight. */
    struct loop_op op;
    struct disk *disk;
    uint64_t progress; /* bytes done so far */
};

struct disk_ops {
    void (*read)(struct disk *disk, struct disk_io *io);  /* Required. */
    void (*write)(struct disk *disk, struct disk_io *io); /* Required unless read_only. */
    void (*flush)(struct disk *disk, struct disk_io *io); /* Required unless read_only: durable when done. */
    void (*discard)(struct disk *disk,
                    struct disk_io *io); /* Optional: NULL and the feature is not offered. */
    void (*write_zeroes)(struct disk *disk, struct disk_io *io); /* Optional, likewise. */
    /* A clean end: what was written is there when the disk is opened again, also without a flush. Nothing is
     * in flight; waits. Optional: NULL where nothing of it is in our memory. close() does it too. */
    void (*write_back)(struct disk *disk);
    void (*close)(struct disk *disk); /* Required; nothing is in flight. */
};

#define DISK_SECTOR                                                                                          \
    512u /* what sizes and offsets are multiples of, whatever block_size says (virtio 1.2, 5.2) */
#define DISK_SERIAL_MAX 20u /* VIRTIO_BLK_ID_BYTES */

struct disk {
    const struct disk_ops *ops;
    struct loop *loop;
    uint64_t size;       /* bytes, a multiple of DISK_SECTOR */
    uint32_t block_size; /* what the guest is told is the smallest that goes well: 512 or 4096 */
    bool read_only;
    char serial[DISK_SERIAL_MAX + 1]; /* what the guest sees as the disk's serial number */
};

/*
 * Opens a regular file or a block device as a raw disk. Words on: not there, not a file or device, empty, not
 * a multiple of 512 bytes, no write permission, mounted, in use by another VM for writing (an advisory lock
 * of the open file, shared for read-only). `direct`: past the page cache (O_DIRECT). Ends with
 * disk->ops->close().
 */
int disk_file_open(struct loop *loop, const char *path, bool read_only, bool direct, struct disk **ret_disk);
