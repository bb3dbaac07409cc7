/*
 * Leases. A reader locks the manifest that it reads. A writer, whose manifest does not exist yet, has a
 * file of its own in leases/, which it locks, and its temporary files bear that file's name.
 */
#include "store/private.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#define RANDOM_DIGITS 16

int lease_create(struct store *store, const char *text, struct store_lease **ret_lease)
{
    struct store_lease *lease = malloc(sizeof(*lease));
    if (!lease)
        return fail(-ENOMEM, "%s: no memory for a lease", store->path);
    char name[TMP_NAME_MAX];
    tmp_name("l", name);
    *lease = (struct store_lease){.store = store};
    snprintf(lease->name, sizeof(lease->name), "%.*s", LEASE_NAME_MAX - 1, name);
    lease->fd = sys_open(store->leases, lease->name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    int r = lease->fd < 0 ? lease->fd : 0;
    if (r == 0 && flock(lease->fd, LOCK_EX | LOCK_NB) < 0)
        r = -errno;
    if (r == 0)
        r = sys_write(lease->fd, text, strlen(text), 0);
    if (r < 0) {
        r = fail_errno(r, "%s/leases: cannot take a lease", store->path);
        store_lease_end(lease);
        return r;
    }
    *ret_lease = lease;
    return 0;
}

void store_lease_end(struct store_lease *lease)
{
    if (!lease)
        return;
    if (lease->fd >= 0 && lease->name[0]) /* if it stays, the next writer finds it dead and removes it */
        (void)sys_unlink(lease->store->leases, lease->name, 0);
    cleanup_fd(&lease->fd);
    free(lease);
}

bool lease_is_live(struct store *store, const char *name)
{
    CLEANUP_FD int fd = openat(store->leases, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno != ENOENT; /* one that cannot be asked is taken for alive */
    return flock(fd, LOCK_EX | LOCK_NB) < 0;
}

static bool is_random(const char *text)
{
    return strlen(text) == RANDOM_DIGITS && strspn(text, "0123456789abcdef") == RANDOM_DIGITS;
}

bool lease_name_is_valid(const char *name)
{
    return strncmp(name, "l.", 2) == 0 && is_random(name + 2);
}

struct leftovers {
    struct store *store;
    bool warn;
    uint64_t removed;
};

static int remove_leftover(struct leftovers *leftovers, int directory, const char *name)
{
    int r = sys_unlink(directory, name, 0);
    leftovers->removed += r == 0;
    return r < 0 && r != -ENOENT ? fail_errno(r, "%s: cannot delete %s", leftovers->store->path, name) : 0;
}

static int remove_dead_lease(void *opaque, const char *name)
{
    struct leftovers *leftovers = opaque;
    if (!lease_name_is_valid(name) || lease_is_live(leftovers->store, name))
        return 0;
    return remove_leftover(leftovers, leftovers->store->leases, name);
}

/* A temporary file is LEASE.RANDOM, or text.RANDOM, which exists only while STORE/lock is held shared. */
static int remove_temporary(void *opaque, const char *name)
{
    struct leftovers *leftovers = opaque;
    char owner[LEASE_NAME_MAX] = "";
    const char *dot = strrchr(name, '.');
    size_t length = dot ? (size_t)(dot - name) : 0;
    if (length < sizeof(owner))
        memcpy(owner, name, length);
    bool text = strcmp(owner, "text") == 0;
    if (!dot || !is_random(dot + 1) || !(text || lease_name_is_valid(owner))) {
        if (leftovers->warn)
            store_warn(leftovers->store, "%s/tmp/%s: not of this store (delete it)", leftovers->store->path,
                       name);
        return 0;
    }
    if (!text && lease_is_live(leftovers->store, owner))
        return 0;
    return remove_leftover(leftovers, leftovers->store->tmp, name);
}

int leftovers_remove(struct store *store, bool warn, uint64_t *ret_removed)
{
    struct leftovers leftovers = {.store = store, .warn = warn};
    int r = each_entry(store->tmp, ".", remove_temporary, &leftovers);
    if (r == 0)
        r = each_entry(store->leases, ".", remove_dead_lease, &leftovers);
    if (r == 0)
        *ret_removed = leftovers.removed;
    return r;
}

static int open_manifest(struct store *store, const struct object_id *manifest, int *ret_fd)
{
    char path[SHARD_PATH_MAX];
    shard_path(manifest, path);
    int fd = openat(store->manifests, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return fail(-ENODATA, "%s: manifest %s is missing (import its image again, with --reread)",
                    store->path, path);
    if (fd < 0)
        return fail_errno(-errno, "%s: manifest %s", store->path, path);
    *ret_fd = fd;
    return 0;
}

bool manifest_is_leased(struct store *store, const struct object_id *manifest)
{
    CLEANUP_FD int fd = -1;
    if (open_manifest(store, manifest, &fd) < 0)
        return false;
    return flock(fd, LOCK_EX | LOCK_NB) < 0;
}

static int lease_manifest_locked(struct store *store, const struct object_id *manifest,
                                 struct store_lease **ret_lease)
{
    CLEANUP_FD int fd = -1;
    int r = open_manifest(store, manifest, &fd);
    if (r < 0)
        return r;
    if (flock(fd, LOCK_SH | LOCK_NB) < 0)
        return fail_errno(-errno, "%s: a manifest cannot be locked, so gc might delete it", store->path);
    struct store_lease *lease = malloc(sizeof(*lease));
    if (!lease)
        return fail(-ENOMEM, "%s: no memory for a lease", store->path);
    *lease = (struct store_lease){.store = store, .fd = fd_steal(&fd)};
    *ret_lease = lease;
    return 0;
}

int store_lease_manifest(struct store *store, const struct object_id *manifest,
                         struct store_lease **ret_lease)
{
    CLEANUP_FD int lock = -1;
    int r = store_lock(store, LOCK_SH, &lock);
    return r < 0 ? r : lease_manifest_locked(store, manifest, ret_lease);
}

int store_lease_name(struct store *store, const char *name, struct object_id *ret_manifest,
                     struct store_lease **ret_lease)
{
    CLEANUP_FD int lock = -1;
    struct object_id manifest;
    int r = store_lock(store, LOCK_SH, &lock);
    if (r == 0)
        r = ref_read(store, name, &manifest);
    if (r == 0)
        r = lease_manifest_locked(store, &manifest, ret_lease);
    if (r == 0)
        *ret_manifest = manifest;
    return r;
}
