#include "store/manifest.h"
#include "store/private.h"

#include <fcntl.h>

int object_open(struct store *store, const struct object_id *id, unsigned pages, int *ret_fd,
                bool *ret_verified)
{
    char path[SHARD_PATH_MAX];
    struct stat status;
    shard_path(id, path);
    CLEANUP_FD int fd = open_noatime(store->objects, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return fail(-ENODATA, "%s: object %s is missing (import its image again, with --reread)", store->path,
                    path);
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail_errno(-errno, "%s: object %s", store->path, path);
    if (!S_ISREG(status.st_mode) || status.st_size != (off_t)pages * STORE_PAGE)
        return fail(
            -EBADMSG,
            "%s: object %s has %lld bytes, its manifest says %u (import its image again, with --reread)",
            store->path, path, (long long)status.st_size, pages * STORE_PAGE);
    *ret_fd = fd_steal(&fd);
    *ret_verified = stamp_is_verified(store, id, &status);
    return 0;
}

int object_verify(struct store *store, const struct object_id *id, unsigned pages, int fd, void *buffer)
{
    char path[SHARD_PATH_MAX];
    struct object_id actual;
    shard_path(id, path);
    int r = read_full_at(fd, buffer, (size_t)pages * STORE_PAGE, 0);
    if (r < 0)
        return fail_errno(r, "%s: object %s cannot be read", store->path, path);
    object_hash(buffer, (size_t)pages * STORE_PAGE, &actual);
    bool good = object_id_equal(&actual, id);
    object_mark_verified(store, id, good);
    if (!good)
        return fail(-EBADMSG,
                    "%s: object %s is corrupt: its bytes do not match its name (import its image again, with "
                    "--reread)",
                    store->path, path);
    return 0;
}

void object_mark_verified(struct store *store, const struct object_id *id, bool good)
{
    stamp_mark_verified(store, store->objects, id, good);
}

int object_read_verified(struct store *store, const struct manifest *manifest, uint32_t object,
                         unsigned first_page, unsigned pages, void *whole, void *buffer)
{
    struct object_id id;
    unsigned object_pages;
    bool verified;
    CLEANUP_FD int fd = -1;
    manifest_object(manifest, object, &id, &object_pages);
    int r = object_open(store, &id, object_pages, &fd, &verified);
    if (r == 0 && !verified)
        r = object_verify(store, &id, object_pages, fd, whole);
    if (r < 0)
        return r;
    r = read_full_at(fd, buffer, (size_t)pages * STORE_PAGE, (uint64_t)first_page * STORE_PAGE);
    return r < 0 ? fail_errno(r, "%s: an object cannot be read", store->path) : 0;
}
