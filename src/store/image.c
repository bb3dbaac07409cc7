#include "store/image.h"
#include "store/private.h"

#include <string.h>

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
    return object_read_verified(store, side->manifest, run->object, run->object_page, pages, side->buffer,
                                side->buffer);
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
