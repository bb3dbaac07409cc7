/* What the parts of a disk in the store share: disk_cas.c (reading, writing, opening), disk_cas_rmw.c (writes
 * of parts of pages), disk_cas_flush.c, disk_cas_objects.c (objects' descriptors). */
#pragma once

#include "dev/disk_ranges.h"
#include "store/volume.h"

/* --- disk_cas_objects.c --- */

/*
 * Descriptors of objects, opened at first use and kept: one table for all disks of the process, so that a
 * disk with many objects in use gets more of them than one with few. With 2 MiB each, 4,096 are the working
 * set of most guests; the limit of open files is raised for them when a disk is opened, and asked first.
 */
#define OBJECT_FILES_MAX 4096u

struct disk_objects {
    struct loop *loop;
    struct store *store;
    const struct manifest *manifest;
    uint16_t *file_of; /* for each object of the manifest: its number in the table + 1, or 0 */
    uint8_t *good; /* a bit for each object: verified by this disk, also where the store cannot keep that */
};

/* Any thread, and nothing is attached. Messages on failure; nothing to free then. */
int disk_objects_init(struct disk_objects *objects, struct store *store, const struct manifest *manifest);
void disk_objects_attach(struct disk_objects *objects, struct loop *loop);
/* As disk_copied(): the objects' descriptors are closed. */
void disk_objects_copied(struct disk_objects *objects);
void disk_objects_free(struct disk_objects *objects);

/*
 * The descriptor of an object that is known to be good: 1 and *ret_fd, for an operation that is started
 * before this is called again. 0: `io` waits, and disk_cas_resume() will be called for it. Or a negative
 * errno: for -EMFILE, -ENFILE and -ENOMEM the next request tries again, every other error lasts.
 */
int disk_objects_get(struct disk_objects *objects, uint32_t object, struct disk_io *io, int *ret_fd);

/* --- disk_cas.c --- */

enum flush_step { FLUSH_NONE, FLUSH_DELTA, FLUSH_NAME, FLUSH_BLOCKS, FLUSH_MAP };

struct disk_cas {
    struct disk disk;
    struct store *store;
    struct volume *volume;
    struct disk_objects objects;
    struct disk_ranges ranges;
    struct cas_flush {
        struct loop_op op;
        enum flush_step step; /* in flight */
        size_t next;          /* descriptor of the name, or block */
        struct volume_checkpoint checkpoint;
        struct disk_queue served, waiting; /* flushes that this round ends; that came later */
    } flush;
};

static inline struct disk_cas *cas_of(struct disk *disk)
{
    return container_of(disk, struct disk_cas, disk);
}

void disk_cas_read(struct disk *disk, struct disk_io *io);

/* A read that waited for an object: 0, and it asks again; or an error, which ends it. */
void disk_cas_resume(struct disk_io *io, int result);

/* A write or discard, alone on its pages if disk_cas_needs_rmw(): the operation on the delta begins, or it
 * ends with an error. */
void disk_cas_change(struct disk_io *io);
void disk_cas_change_end(struct disk_io *io, int result);

/* --- disk_cas_rmw.c --- */

/* Whether the write or discard `io` changes a part of a page that is not in the delta: *ret_page is the
 * first. */
bool disk_cas_needs_rmw(const struct disk_cas *cas, const struct disk_io *io, uint64_t *ret_page);

/* Copies these pages to the delta, one after the other; then disk_cas_change(io), or disk_cas_change_end()
 * with an error. */
void disk_cas_rmw(struct disk_cas *cas, struct disk_io *io);

/* --- disk_cas_flush.c --- */

void disk_cas_flush(struct disk *disk, struct disk_io *io);
void disk_cas_write_back(struct disk *disk);
