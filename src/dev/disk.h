/*
 * A disk: what virtio-blk reads from and writes to. One file per kind: disk_file.c (regular files and block
 * devices), disk_cas.c (volumes and images of the store).
 *
 * Opening a disk waits for locks and files and knows no loop, so any thread may do it. Everything else runs
 * on the loop thread, after disk_attach(). Every operation is asynchronous: it completes by disk_io.done,
 * later or before the call returns, never blocks the loop, and the memory of the disk_io and of what its
 * iovecs point at stays untouched by others until then. Many are in flight at once, in any order.
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
    struct disk_range {
        struct disk_io *previous, *next;
        uint64_t start, end; /* bytes of the disk */
        bool alone;
    } range; /* disk_ranges.h */
};

typedef void disk_fd_told(void *context, int fd);

struct disk_ops {
    /* The disk has its loop now. Optional. */
    void (*attach)(struct disk *disk);
    void (*read)(struct disk *disk, struct disk_io *io);  /* Required. */
    void (*write)(struct disk *disk, struct disk_io *io); /* Required unless read_only. */
    void (*flush)(struct disk *disk, struct disk_io *io); /* Required unless read_only: durable when done. */
    /* Optional: NULL and the feature is not offered. */
    void (*discard)(struct disk *disk, struct disk_io *io);
    void (*write_zeroes)(struct disk *disk, struct disk_io *io); /* Optional, likewise. */
    /* Tells of each descriptor that it keeps open. Nothing is in flight. */
    void (*each_fd)(struct disk *disk, disk_fd_told *told, void *context); /* Required. */
    /* disk_copy() and disk_copied(). */
    int (*copy)(struct disk *disk, int fd);    /* Required unless read_only. */
    void (*copied)(struct disk *disk, int fd); /* Optional if always read_only. */
    /* A clean end: what was written is there when the disk is opened again, also without a flush. Nothing is
     * in flight; waits. Optional: NULL where nothing of it is in our memory. close() does it too. */
    void (*write_back)(struct disk *disk);
    void (*close)(struct disk *disk); /* Required; nothing is in flight. Of an unattached disk: any thread. */
};

/* What sizes, offsets and lengths are multiples of, whatever the logical sector is (virtio 1.2, 5.2). */
#define DISK_SECTOR     512u
#define DISK_PHYSICAL   4096u /* what the guest is told goes fast: a page of the host, a block of its disks */
#define DISK_SERIAL_MAX 20u   /* VIRTIO_BLK_ID_BYTES */

struct disk {
    const struct disk_ops *ops;
    struct loop *loop; /* NULL before disk_attach() */
    uint64_t size;     /* bytes, a multiple of the logical sector */
    uint32_t sector;   /* the logical sector that the guest is told: 512 or 4096 */
    bool read_only;
    char serial[DISK_SERIAL_MAX + 1]; /* what the guest sees as the disk's serial number */
};

struct disk_options {
    bool read_only;
    bool direct;     /* past the page cache (O_DIRECT); files only */
    uint32_t sector; /* logical sector: 512, 4096, or 0 for 512 */
    int held_fd; /* of an open disk; 0: none. The same file is not opened again: its lock is shared. Lent. */
};

/*
 * Opens a regular file or a block device as a raw disk. A message on: not there, not a file or device, empty,
 * not a multiple of its sectors, no write permission, mounted, in use by another VM for writing (an advisory
 * lock of the open file, shared for read-only). Ends with disk->ops->close().
 */
int disk_file_open(const char *path, const struct disk_options *options, struct disk **ret_disk);

/* Loop thread, once: `loop` is where the disk's operations run from now on. */
void disk_attach(struct disk *disk, struct loop *loop);

/*
 * A disk for a child of fork(2), both on the loop thread while nothing is in flight. disk_copy() writes what
 * a writable disk has for itself into `fd`, an empty file; -EOPNOTSUPP with a message: that cannot be done
 * while others wait. disk_copied(), in the child, in which only the descriptors that each_fd() tells of are
 * still open, makes it one that was just opened and lives in that file, which is the disk's from then on and
 * goes with it (-1 for a read-only disk, which both read).
 */
int disk_copy(struct disk *disk, int fd);
void disk_copied(struct disk *disk, int fd);

/* For kinds, when a disk is opened: its logical sector, or -EINVAL if `size` is no multiple of it. */
int disk_choose_sector(const char *name, const struct disk_options *options, uint64_t size,
                       uint32_t *ret_sector);

/* For kinds: `bytes` more of the operation are done. Takes them off the front of its iovecs. */
void disk_io_advance(struct disk_io *io, uint64_t bytes);

/* Operations that wait for something of their disk's, first come first. All zero is the empty queue. */
struct disk_queue {
    struct disk_io **items;
    unsigned count, capacity;
};
int disk_queue_add(struct disk_queue *queue, struct disk_io *io); /* 0 or -ENOMEM */

/* Calls `start` for all that wait; what it adds again comes in the next round. */
void disk_queue_start(struct disk_queue *queue, void (*start)(struct disk_io *io));
