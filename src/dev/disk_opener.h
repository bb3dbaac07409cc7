/*
 * Opens disks without the loop waiting for it: a lock that a dead process's ring still holds is tried for a
 * second, and files may lie on a slow file system. One thread of its own opens them one after the other; what
 * came of it is told on the loop thread.
 */
#pragma once

#include "dev/disk.h"

/* Opens `name`: a file or a device (disk_file_open), or one of disk_cas.h in `store`. Waits. Any thread. */
int disk_open(const char *store, const char *name, const struct disk_options *options,
              struct disk **ret_disk);

struct disk_opener;

/* 0: `disk`, which is not attached, is the callee's. Or a negative errno and the message for people. Loop
 * thread. */
typedef void disk_opened(void *context, int result, const char *message, struct disk *disk);

/* Loop thread, as all that follows. started() is called on the new thread (NULL: nothing is). Negative errno
 * with a message: no thread, no memory. */
int disk_opener_new(struct loop *loop, void (*started)(void), struct disk_opener **ret_opener);

/* Opens what disk_open() takes. Strings and options are copied. done() is called later, in the order of the
 * calls; not at all after -ENOMEM, which has a message. */
int disk_opener_open(struct disk_opener *opener, const char *store, const char *name,
                     const struct disk_options *options, disk_opened *done, void *context);

/* After loop_free(). Waits for the thread; disks that were not told of are closed. NULL is nothing. */
void disk_opener_free(struct disk_opener *opener);
