/*
 * A disk: what virtio-blk reads from and writes to. One file per kind (disk_file.c: regular files and block devices).
 *
 * All functions run on the loop thread. Every operation is asynchronous: it completes by disk_io.done, later or before
 * the call returns, never blocks the loop, and the memory of the disk_io and of what its iovecs point at stays untouched by
 * others until then. Many are in flight at once, in any order.
 */
#pragma once

#include "loop/loop.h"
#include "vcpu/mem.h"

struct disk_io {
    struct loop_op op;  /* the disk's own while in flight */
    struct disk *disk;  /* set by the disk at the start */
    const struct iovec *iov;
    unsigned iov_count;
    uint64_t offset;    /* bytes; with length inside the disk: checked by the caller */
    uint64_t length;    /* bytes in all iovecs, or of the range for discard and write_zeroes */
    uint64_t progress;  /* the disk's own: bytes done so far, for short reads and writes */
    bool unmap;         /* write_zeroes: the space may be given back */
    /* `result` 0 or a negative errno: all of it was done, or nothing is known. */
    void (*done)(struct disk_io *io, int result);
};

struct disk_ops {
    void (*read)(struct disk *disk, struct disk_io *io);          /* Required. */
    void (*write)(struct disk *disk, struct disk_io *io);         /* Required unless read_only. */
    void (*flush)(struct disk *disk, struct disk_io *io);         /* Required unless read_only: durable when done. */
    void (*discard)(struct disk *disk, struct disk_io *io);       /* Optional: NULL and the feature is not offered. */
    void (*write_zeroes)(struct disk *disk, struct disk_io *io);  /* Optional, likewise. */
    void (*close)(struct disk *disk);                             /* Required; nothing is in flight. */
};

struct disk {
    const struct disk_ops *ops;
    struct loop *loop;
    uint64_t size;         /* bytes, a multiple of 512 */
    uint32_t block_size;   /* what the guest is told is best: 512 or 4096 */
    bool read_only;
    char serial[20 + 1];   /* VIRTIO_BLK_ID_BYTES; NUL-terminated here */
};

/*
 * Opens a regular file or a block device as a raw disk. Words on: not there, not a file or device, empty, not a
 * multiple of 512 bytes, no write permission (suggest ,ro), in use by another VM for writing (an advisory lock,
 * OFD, shared for read-only). `direct`: O_DIRECT. Ends with disk->ops->close().
 */
int disk_file_open(struct loop *loop, const char *path, bool read_only, bool direct, struct disk **ret_disk);
