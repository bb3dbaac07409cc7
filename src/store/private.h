/* What only the store's own files share. */
#pragma once

#include "store/files.h"
#include "store/store.h"

#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#define EPOCH_MAX (1 << 28) /* a stamp's seconds: far below any real time of this century */

struct store {
    char *path;
    int root, objects, manifests, refs, volumes, leases, tmp, cache;
    uint32_t
        boot_tag; /* 1 to 999,999,999, from the kernel's boot id; 0: unknown, nothing counts as verified */
    bool read_only;
    void (*warn)(void *opaque, const char *message); /* or NULL */
    void *warn_opaque;
};

void store_warn(struct store *store, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Every step that changes the disk passes through these, so that tests can fail it, end the process at it, or
 * know what would be lost with the power. They return 0 (sys_open: a descriptor) or a negative errno,
 * with no message.
 */
struct store_step {
    const char *name; /* of the system call, about */
    int fd;           /* what it works on: a file, or for names, a directory */
    const char *path;
    int to_fd; /* rename */
    const char *to_path;
};
/* NULL except in tests; returns 0 or a negative errno. */
extern int (*store_fault)(const struct store_step *step);

/* Asked before a write that is made by other means than the functions below. */
int sys_fault(const char *name, int fd);
int sys_open(int directory, const char *path, int flags, mode_t mode);
int sys_write(int fd, const void *bytes, size_t length, uint64_t offset);
int sys_fsync(int fd);
int sys_fdatasync(int fd);
int sys_syncfs(int fd);
int sys_rename(int from_directory, const char *from, int to_directory, const char *to, unsigned flags);
int sys_unlink(int directory, const char *path, int flags);
/* Gives the file that the symbolic link `from` leads to another name. */
int sys_link(const char *from, int directory, const char *to);
int sys_mkdir(int directory, const char *path, mode_t mode);
int sys_truncate(int fd, uint64_t length);
/* `path` NULL: `directory` is the file itself. */
int sys_stamp(int directory, const char *path, const struct timespec *stamp);

/* file_publish() of a line of text, through the store's tmp/. */
int text_publish(struct store *store, int directory, const char *path, const char *text);

/* Holds STORE/lock; closing *ret_fd lets it go. `how` is LOCK_SH or LOCK_EX; with LOCK_NB, -EWOULDBLOCK if
 * another process is in the way. */
int store_lock(struct store *store, int how, int *ret_fd);

/* Non-blocking flock(), retried for a second: the lock of a killed process may linger that long (lock_again).
 * 0 or -errno, no message. */
int flock_soon(int fd, int how);

int epoch_read(struct store *store, uint32_t *ret_epoch);

/* Leases (lease.c). Creating one is done with STORE/lock held; `text` is what gc will read. */
#define LEASE_NAME_MAX 48
struct store_lease {
    struct store *store;
    int fd;
    char name[LEASE_NAME_MAX]; /* in leases/; "" for a lease on a manifest, whose file fd is */
};
int lease_create(struct store *store, const char *text, struct store_lease **ret_lease);
bool lease_name_is_valid(const char *name);

/* Whether the lease's process lives. */
bool lease_is_live(struct store *store, const char *name);

/* Whether a process has a lease on the manifest. With STORE/lock held exclusively. */
bool manifest_is_leased(struct store *store, const struct object_id *manifest);

/* Deletes what killed writers left in tmp/ and leases/. With STORE/lock held exclusively. With `warn`,
 * strange files are warned of. */
int leftovers_remove(struct store *store, bool warn, uint64_t *ret_removed);

/* Objects and manifests lie in 256 shards each. */
#define SHARD_PATH_MAX 72
void shard_path(const struct object_id *id, char path[SHARD_PATH_MAX]);
int shard_lock(int kind, const struct object_id *id, bool wait, int *ret_fd); /* without `wait`: -EAGAIN */

/* The stamp of a file whose bytes match its name. */
struct timespec stamp_verified(const struct store *store, const struct object_id *id, uint32_t epoch);
bool stamp_is_verified(const struct store *store, const struct object_id *id, const struct stat *status);
uint32_t stamp_epoch(const struct stat *status);

/* Remembers that the bytes match the name, or that they do not (under the shard's lock, keeping the epoch).
 * Failure is no error: the file is hashed again next time. */
void stamp_mark_verified(struct store *store, int kind, const struct object_id *id, bool good);

/* Marks a file that exists with `length` bytes as needed by a writer of `epoch`: 1 if so, 0 if there is none,
 * or a negative errno. */
int stamp_touch(struct store *store, int kind, const struct object_id *id, uint64_t length, uint32_t epoch,
                bool *ret_verified);

/* A set of ids. Not for several threads at once. All zero is the empty set. */
struct id_set {
    struct object_id *slots;
    size_t count, capacity;
};
int id_set_add(struct id_set *set, const struct object_id *id, bool *ret_new);
bool id_set_has(const struct id_set *set, const struct object_id *id);
void id_set_free(struct id_set *set);
