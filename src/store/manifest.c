#include "store/manifest.h"
#include "store/private.h"
#include "store/wire.h"

#include <fcntl.h>
#include <string.h>

static int damaged(const char *what)
{
    return fail(-EBADMSG, "manifest: %s (is it damaged?)", what);
}

static int check_header(struct manifest *manifest)
{
    const uint8_t *header = manifest->bytes;
    uint64_t tables, extents;
    if (manifest->length < MANIFEST_HEADER + OBJECT_ID_BYTES || memcmp(header, MANIFEST_MAGIC, 8) != 0)
        return damaged("does not begin as one");
    if (get32(header + 8) != MANIFEST_VERSION || get32(header + 12) != MANIFEST_HEADER)
        return fail(-EPROTO, "manifest: version %u, this program reads %u", get32(header + 8),
                    MANIFEST_VERSION);
    if (get64(header + 16) != manifest->length || get32(header + 32) != STORE_PAGE ||
        get32(header + 36) != STORE_OBJECT_BYTES || get64(header + 56))
        return damaged("a size in its header is wrong");
    manifest->image_bytes = get64(header + 24);
    manifest->object_count = get64(header + 40);
    manifest->extent_count = get64(header + 48);
    if (manifest->image_bytes > MANIFEST_IMAGE_MAX || manifest->object_count > UINT32_MAX)
        return damaged("its image is larger than any");
    manifest->image_pages = align_up(manifest->image_bytes, STORE_PAGE) / STORE_PAGE;
    if (mul_overflows(manifest->object_count, MANIFEST_OBJECT, &tables) ||
        mul_overflows(manifest->extent_count, MANIFEST_EXTENT, &extents) ||
        add_overflows(tables, extents, &tables) ||
        tables != manifest->length - MANIFEST_HEADER - OBJECT_ID_BYTES)
        return damaged("its tables do not fill it");
    manifest->objects = manifest->bytes + MANIFEST_HEADER;
    manifest->extents = manifest->objects + manifest->object_count * MANIFEST_OBJECT;
    return 0;
}

static int check_objects(const struct manifest *manifest)
{
    static const struct object_id none;
    for (uint64_t i = 0; i < manifest->object_count; i++) {
        const uint8_t *object = manifest->objects + i * MANIFEST_OBJECT;
        if (get32(object + 32) == 0 || get32(object + 32) > STORE_OBJECT_PAGES || get32(object + 36) != 0)
            return damaged("an object has an impossible size");
        if (memcmp(object, &none, sizeof(none)) == 0)
            return damaged("an object has no name");
    }
    return 0;
}

static int check_extents(const struct manifest *manifest)
{
    uint64_t from = 0, named = 0;
    for (uint64_t i = 0; i < manifest->extent_count; i++) {
        struct manifest_extent extent = manifest_extent(manifest, i);
        if (extent.first_page < from || extent.first_page >= manifest->image_pages || extent.pages == 0 ||
            extent.pages > manifest->image_pages - extent.first_page)
            return damaged("its extents overlap, are unsorted or lie outside the image");
        if (extent.object > named || extent.object >= manifest->object_count)
            return damaged("its objects are not in the order of their use");
        named = MAX(named, (uint64_t)extent.object + 1);
        if (extent.object_page + extent.pages >
            get32(manifest->objects + (uint64_t)extent.object * MANIFEST_OBJECT + 32))
            return damaged("an extent lies outside its object");
        from = extent.first_page + extent.pages;
    }
    return named == manifest->object_count ? 0 : damaged("an object is not used");
}

int manifest_parse(uint8_t *bytes, size_t length, bool check_hash, struct manifest **ret_manifest)
{
    struct manifest *manifest = malloc(sizeof(*manifest));
    if (!manifest) {
        free(bytes);
        return fail(-ENOMEM, "manifest: no memory");
    }
    *manifest = (struct manifest){.bytes = bytes, .length = length};
    int r = check_header(manifest);
    if (r == 0 && check_hash) {
        struct object_id self;
        object_hash(bytes, length - OBJECT_ID_BYTES, &self);
        if (memcmp(&self, bytes + length - OBJECT_ID_BYTES, sizeof(self)) != 0)
            r = damaged("its bytes do not match its hash");
    }
    if (r == 0)
        r = check_objects(manifest);
    if (r == 0)
        r = check_extents(manifest);
    if (r < 0) {
        manifest_free(manifest);
        return r;
    }
    *ret_manifest = manifest;
    return 0;
}

void manifest_free(struct manifest *manifest)
{
    if (!manifest)
        return;
    free(manifest->bytes);
    free(manifest);
}

static int read_whole(struct store *store, const struct object_id *id, const char *path, uint8_t **ret_bytes,
                      size_t *ret_length, bool *ret_verified)
{
    struct stat status;
    CLEANUP_FD int fd = openat(store->manifests, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return fail(-ENODATA, "%s: manifest %s is missing (import its image again, with --reread)",
                    store->path, path);
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail_errno(-errno, "%s: manifest %s", store->path, path);
    if (!S_ISREG(status.st_mode) || status.st_size > MANIFEST_FILE_MAX)
        return fail(-EBADMSG, "%s: manifest %s is no file of a sane size", store->path, path);
    CLEANUP_FREE uint8_t *bytes = malloc((size_t)status.st_size + 1); /* + 1: never a request for nothing */
    if (!bytes)
        return fail(-ENOMEM, "%s: no memory for manifest %s", store->path, path);
    int r = read_full_at(fd, bytes, (size_t)status.st_size, 0);
    if (r < 0)
        return fail_errno(r, "%s: manifest %s", store->path, path);
    *ret_bytes = ptr_steal(&bytes);
    *ret_length = (size_t)status.st_size;
    *ret_verified = stamp_is_verified(store, id, &status);
    return 0;
}

int manifest_load(struct store *store, const struct object_id *id, struct manifest **ret_manifest)
{
    char path[SHARD_PATH_MAX];
    uint8_t *bytes = NULL;
    size_t length = 0;
    bool verified = false;
    shard_path(id, path);
    int r = read_whole(store, id, path, &bytes, &length, &verified);
    if (r < 0)
        return r;
    if (!verified) {
        struct object_id actual;
        object_hash(bytes, length, &actual);
        if (!object_id_equal(&actual, id)) {
            free(bytes);
            return fail(-EBADMSG, "%s: manifest %s is corrupt: its bytes do not match its name", store->path,
                        path);
        }
        stamp_mark_verified(store, store->manifests, id, true);
    }
    struct manifest *manifest;
    r = manifest_parse(bytes, length, !verified, &manifest);
    if (r < 0)
        return fail(r, "%s: %s: %s", store->path, path, fail_text());
    manifest->id = *id;
    *ret_manifest = manifest;
    return 0;
}

void manifest_object(const struct manifest *manifest, uint64_t index, struct object_id *ret_id,
                     unsigned *ret_pages)
{
    CHECK(index < manifest->object_count);
    const uint8_t *object = manifest->objects + index * MANIFEST_OBJECT;
    memcpy(ret_id, object, sizeof(*ret_id));
    *ret_pages = get32(object + 32);
}

struct manifest_extent manifest_extent(const struct manifest *manifest, uint64_t index)
{
    CHECK(index < manifest->extent_count);
    const uint8_t *extent = manifest->extents + index * MANIFEST_EXTENT;
    return (struct manifest_extent){
        .first_page = get64(extent),
        .object = get32(extent + 8),
        .pages = get16(extent + 12),
        .object_page = get16(extent + 14),
    };
}

struct manifest_run manifest_lookup(const struct manifest *manifest, uint64_t page)
{
    uint64_t low = 0,
             high = manifest->extent_count; /* the first extent that begins after `page` is in [low, high] */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (get64(manifest->extents + middle * MANIFEST_EXTENT) <= page)
            low = middle + 1;
        else
            high = middle;
    }
    if (low > 0) {
        struct manifest_extent extent = manifest_extent(manifest, low - 1);
        uint64_t into = page - extent.first_page;
        if (into < extent.pages)
            return (struct manifest_run){.pages = extent.pages - into,
                                         .object = extent.object,
                                         .object_page = extent.object_page + (uint32_t)into};
    }
    uint64_t next =
        low < manifest->extent_count ? manifest_extent(manifest, low).first_page : manifest->image_pages;
    return (struct manifest_run){.pages = next - page, .zero = true};
}
