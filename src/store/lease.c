#include "store/private.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

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
    if (lease->fd >= 0) {
        (void)sys_unlink(lease->store->leases, lease->name,
                         0); /* if it stays, gc finds it dead and removes it */
        close(lease->fd);
    }
    free(lease);
}

bool lease_is_live(struct store *store, const char *name)
{
    CLEANUP_FD int fd = openat(store->leases, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno != ENOENT; /* one that cannot be asked is taken for alive */
    return flock(fd, LOCK_EX | LOCK_NB) < 0;
}

static int lease_manifest_locked(struct store *store, const struct object_id *manifest,
                                 struct store_lease **ret_lease)
{
    char text[OBJECT_ID_TEXT], line[OBJECT_ID_TEXT + 16];
    snprintf(line, sizeof(line), "manifest %s\n", object_id_text(manifest, text));
    struct store_lease *lease = NULL;
    int r = store->read_only ? 0 : lease_create(store, line, &lease);
    if (r == -EROFS) /* nobody can run gc on it either, not through this mount */
        r = 0;
    if (r == 0)
        *ret_lease = lease;
    return r;
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
    int r = store_lock(store, LOCK_SH, &lock);
    if (r == 0)
        r = ref_read(store, name, ret_manifest);
    return r < 0 ? r : lease_manifest_locked(store, ret_manifest, ret_lease);
}
