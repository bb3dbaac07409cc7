#include "store/image.h"
#include "store/parallel.h"
#include "store/private.h"

#include <stdatomic.h>
#include <string.h>

/* Reads pages of one object, hashing it first if nobody in this boot has. `buffer` holds an object. */
static int read_verified(struct store *store, const struct manifest *manifest, uint32_t object,
                         unsigned first, unsigned pages, uint8_t *buffer)
{
    struct object_id id;
    unsigned object_pages;
    bool verified;
    CLEANUP_FD int fd = -1;
    manifest_object(manifest, object, &id, &object_pages);
    int r = object_open(store, &id, object_pages, &fd, &verified);
    if (r == 0 && !verified)
        r = object_verify(store, &id, object_pages, fd, buffer);
    if (r < 0)
        return r;
    r = read_full_at(fd, buffer, (size_t)pages * STORE_PAGE, (uint64_t)first * STORE_PAGE);
    return r < 0 ? fail_errno(r, "%s: an object cannot be read", store->path) : 0;
}

struct export
{
    struct store *store;
    const struct manifest *manifest;
    int fd;
    const char *name;
    void (*progress)(void *opaque, uint64_t done_bytes);
    void *opaque;
    atomic_uint_fast64_t done;
};

static int export_extent(void *opaque, uint64_t number)
{
    struct export *export = opaque;
    struct manifest_extent e = manifest_extent(export->manifest, number);
    CLEANUP_FREE uint8_t *buffer = malloc(STORE_OBJECT_BYTES);
    if (!buffer)
        return fail(-ENOMEM, "%s: no memory to write it", export->name);
    int r = read_verified(export->store, export->manifest, e.object, e.object_page, e.pages, buffer);
    if (r < 0)
        return r;
    uint64_t offset = e.first_page * STORE_PAGE;
    uint64_t length = MIN((uint64_t)e.pages * STORE_PAGE, export->manifest->image_bytes - offset);
    r = sys_write(export->fd, buffer, length, offset);
    if (r < 0)
        return fail_errno(r, "%s: cannot be written", export->name);
    uint64_t done = atomic_fetch_add(&export->done, length) + length;
    if (export->progress)
        export->progress(export->opaque, done);
    return 0;
}

static int write_zeros(struct export *export, uint64_t first_page, uint64_t end_page)
{
    static const uint8_t zeros[64 * STORE_PAGE];
    uint64_t at = first_page * STORE_PAGE, end = MIN(end_page * STORE_PAGE, export->manifest->image_bytes);
    while (at < end) {
        size_t length = (size_t)MIN(sizeof(zeros), end - at);
        int r = sys_write(export->fd, zeros, length, at);
        if (r < 0)
            return fail_errno(r, "%s: cannot be written", export->name);
        at += length;
    }
    return 0;
}

int image_export(struct store *store, const struct manifest *manifest, int fd, const char *name, bool sparse,
                 void (*progress)(void *opaque, uint64_t done_bytes), void *opaque)
{
    struct export export = {store, manifest, fd, name, progress, opaque, 0};
    int r = parallel(manifest->extent_count, export_extent, &export);
    for (uint64_t page = 0; r == 0 && !sparse && page < manifest->image_pages;) {
        struct manifest_run run = manifest_lookup(manifest, page);
        if (run.zero)
            r = write_zeros(&export, page, page + run.pages);
        page += run.pages;
    }
    if (r == 0 && (r = sys_fsync(fd)) < 0 && r != -EINVAL) /* EINVAL: a pipe */
        return fail_errno(r, "%s", name);
    return r == -EINVAL ? 0 : r;
}

struct side {
    const struct manifest *manifest;
    uint8_t *buffer;
};

/* What is at `page`; beyond the end, zeros for ever. */
static struct manifest_run side_lookup(const struct side *side, uint64_t page)
{
    if (page >= side->manifest->image_pages)
        return (struct manifest_run){.pages = UINT64_MAX, .zero = true};
    return manifest_lookup(side->manifest, page);
}

static bool same_place(const struct side *a, const struct manifest_run *x, const struct side *b,
                       const struct manifest_run *y)
{
    struct object_id p, q;
    unsigned pages;
    if (x->zero || y->zero)
        return x->zero && y->zero;
    manifest_object(a->manifest, x->object, &p, &pages);
    manifest_object(b->manifest, y->object, &q, &pages);
    return x->object_page == y->object_page && object_id_equal(&p, &q);
}

static int side_read(struct store *store, const struct side *side, const struct manifest_run *run,
                     unsigned pages)
{
    if (run->zero) {
        memset(side->buffer, 0, (size_t)pages * STORE_PAGE);
        return 0;
    }
    return read_verified(store, side->manifest, run->object, run->object_page, pages, side->buffer);
}

int image_diff(struct store *store, const struct manifest *a, const struct manifest *b,
               void (*range)(void *opaque, uint64_t first_page, uint64_t pages), void *opaque,
               struct image_difference *ret_difference)
{
    CLEANUP_FREE uint8_t *left = malloc(STORE_OBJECT_BYTES), *right = malloc(STORE_OBJECT_BYTES);
    struct side sides[2] = {{a, left}, {b, right}};
    struct image_difference difference = {0};
    uint64_t open_at = UINT64_MAX, end = MAX(a->image_pages, b->image_pages), page = 0;
    if (!left || !right)
        return fail(-ENOMEM, "no memory to compare images");
    while (page < end) {
        struct manifest_run x = side_lookup(&sides[0], page), y = side_lookup(&sides[1], page);
        bool same = same_place(&sides[0], &x, &sides[1], &y);
        uint64_t pages = MIN(MIN(x.pages, y.pages), end - page);
        if (!same) {
            pages = MIN(pages, (uint64_t)STORE_OBJECT_PAGES);
            int r = side_read(store, &sides[0], &x, (unsigned)pages);
            if (r == 0)
                r = side_read(store, &sides[1], &y, (unsigned)pages);
            if (r < 0)
                return r;
        }
        for (uint64_t i = 0; i < pages; i += same ? pages : 1) {
            bool equal = same || memcmp(left + i * STORE_PAGE, right + i * STORE_PAGE, STORE_PAGE) == 0;
            if (equal && open_at != UINT64_MAX && range)
                range(opaque, open_at, page + i - open_at);
            if (equal)
                open_at = UINT64_MAX;
            else if (open_at == UINT64_MAX)
                open_at = page + i;
            *(equal ? &difference.pages_same : &difference.pages_different) += same ? pages : 1;
        }
        page += pages;
    }
    if (open_at != UINT64_MAX && range)
        range(opaque, open_at, end - open_at);
    *ret_difference = difference;
    return 0;
}
