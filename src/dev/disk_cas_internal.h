/* What disk_cas.c (reading and writing) and disk_cas_objects.c (objects' descriptors) share. */
#pragma once

#include "dev/disk.h"
#include "store/volume.h"

/* An operation that waits for something of the disk's. */
struct io_queue {
    struct disk_io **items;
    unsigned count, capacity;
};
int io_queue_add(struct io_queue *queue, struct disk_io *io);

/*
 * Descriptors of objects, opened at first use and kept: at most so many. With 2 MiB each, 1,024 are the
 * working set of most guests; the limit of open files is raised for them when the disk is opened, and asked
 * first.
 */
#define OBJECT_FILES_MAX 1024u

/* An object that nobody in this boot has vouched for is read and hashed in pieces of this size before its
 * first use: 40 us of the loop's time each (1.6 GB/s), between which other queues have their turn. */
#define VERIFY_PIECE (64u * 1024)

enum object_state {
    OBJECT_ABSENT,
    OBJECT_GOOD,
    OBJECT_VERIFYING, /* requests wait in its verification */
    OBJECT_BAD,       /* until it is evicted */
};

struct object_file {
    int fd;
    uint32_t object;
    enum object_state state;
    bool used; /* since the clock hand last came by */
    struct verification *verification;
};

struct disk_objects {
    struct loop *loop;
    struct store *store;
    const struct manifest *manifest;
    struct object_file *files;
    unsigned file_count, hand;
    uint16_t *file_of; /* for each object of the manifest: its file's number + 1, or 0 */
    uint8_t *good; /* a bit for each object: verified by this disk, also where the store cannot keep that */
    unsigned verifying; /* how many are */
    /* Evicted descriptors: a request with one of them may be prepared and not yet submitted, so it is closed
     * after the next turn of the loop, when the kernel has its own hold on the file. */
    int closing[2][OBJECT_FILES_MAX];
    unsigned closing_count[2];
    struct loop_prepare prepare;
    void (*resume)(void *owner, struct disk_io *io); /* for each request that waited: it is to ask again */
    void *owner;
};

int disk_objects_init(struct disk_objects *objects, struct loop *loop, struct store *store,
                      const struct manifest *manifest);
void disk_objects_free(struct disk_objects *objects);

/*
 * The descriptor of an object that is known to be good: 1 and *ret_fd, which may be used for operations
 * started before the loop's next turn. 0: `io` waits, and resume() will be called for it. Or a negative
 * errno.
 */
int disk_objects_get(struct disk_objects *objects, uint32_t object, struct disk_io *io, int *ret_fd);
