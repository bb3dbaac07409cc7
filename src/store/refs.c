#include "store/private.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

int ref_check_name(const char *name)
{
    if (!name_is_valid(name, STORE_NAME_MAX - 1, "._:+@-"))
        return fail(-EINVAL,
                    "'%.*s': not a name (1 to 127 of A-Z a-z 0-9 . _ : + @ -, not beginning with . or -)",
                    STORE_NAME_MAX, name);
    return 0;
}

int ref_read(struct store *store, const char *name, struct object_id *ret_manifest)
{
    int r = ref_check_name(name);
    if (r < 0)
        return r;
    char text[OBJECT_ID_TEXT + 2];
    r = text_read(store->refs, name, text, sizeof(text));
    if (r == -ENOENT)
        return fail(r, "%s: no image of this name in %s (stellarium ls lists them)", name, store->path);
    if (r < 0 && r != -EFBIG)
        return fail_errno(r, "%s/refs/%s", store->path, name);
    char *end = r == 0 ? strchr(text, '\n') : NULL;
    if (end)
        *end = '\0';
    if (!end || end[1] != '\0' || object_id_parse(text, ret_manifest) < 0)
        return fail(-EBADMSG, "%s/refs/%s: not the name of a manifest (was it edited?)", store->path, name);
    return 0;
}

int ref_remove(struct store *store, const char *name)
{
    int r = ref_check_name(name);
    if (r < 0)
        return r;
    CLEANUP_FD int lock = -1;
    r = store_lock(store, LOCK_SH, &lock);
    if (r < 0)
        return r;
    r = sys_unlink(store->refs, name, 0);
    if (r == -ENOENT)
        return fail(r, "%s: no image of this name in %s (stellarium ls lists them)", name, store->path);
    if (r == 0)
        r = sys_fsync(store->refs);
    return r < 0 ? fail_errno(r, "%s/refs/%s: cannot be removed", store->path, name) : 0;
}

struct listing {
    struct store *store;
    struct ref *refs;
    size_t count, capacity;
};

static int list_one(void *opaque, const char *name)
{
    struct listing *listing = opaque;
    struct store *store = listing->store;
    struct ref ref = {.created = 0};
    struct stat status = {0};
    int r = ref_read(store, name, &ref.manifest);
    if (r == -ENOENT) /* removed since the directory was read */
        return 0;
    bool regular = fstatat(store->refs, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(status.st_mode);
    ref.damaged = r == -EBADMSG && regular;
    ref.has_length = status.st_size == OBJECT_ID_TEXT;
    if (r < 0 && (ref.damaged || !regular || r == -EINVAL))
        store_warn(store, "%s/refs/%s: not the name of an image (delete it)", store->path, name);
    else if (r < 0)
        return r;
    if (r < 0 && !ref.damaged)
        return 0;
    memcpy(ref.name, name, strlen(name) + 1); /* ref_check_name() has bounded it */
    ref.created = status.st_mtim.tv_sec;
    r = array_reserve(&listing->refs, listing->count + 1, &listing->capacity);
    if (r == 0)
        listing->refs[listing->count++] = ref;
    return r;
}

static int compare_refs(const void *a, const void *b)
{
    return strcmp(((const struct ref *)a)->name, ((const struct ref *)b)->name);
}

int ref_list(struct store *store, struct ref **ret_refs, size_t *ret_count)
{
    struct listing listing = {.store = store};
    int r = each_entry(store->refs, ".", list_one, &listing);
    if (r < 0) {
        free(listing.refs);
        return r;
    }
    if (listing.count > 0)
        qsort(listing.refs, listing.count, sizeof(*listing.refs), compare_refs);
    *ret_refs = listing.refs;
    *ret_count = listing.count;
    return 0;
}
