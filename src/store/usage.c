#include "store/image.h"
#include "store/private.h"
#include "store/volume.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* More images than this are not compared with each other: it takes their number squared. */
#define NEAREST_MAX 256u

struct use {
    struct object_id object;
    uint32_t bytes;
    uint32_t image; /* an index; image_count: a volume's base without a name */
};

struct uses {
    struct store *store;
    struct use *list;
    size_t count, capacity;
    struct id_set volumes; /* manifests that only volumes stand on */
    struct store_usage usage;
    unsigned shard;
};

static int add_use(struct uses *uses, const struct manifest *manifest, uint32_t image)
{
    size_t needed = uses->count + (size_t)manifest->object_count;
    if (needed > uses->capacity) {
        size_t capacity = MAX(2 * uses->capacity, needed);
        struct use *list = realloc(uses->list, capacity * sizeof(*list));
        if (!list)
            return fail(-ENOMEM, "%s: no memory to count %zu objects", uses->store->path, capacity);
        uses->list = list;
        uses->capacity = capacity;
    }
    for (uint64_t i = 0; i < manifest->object_count; i++) {
        unsigned pages;
        struct use *use = &uses->list[uses->count++];
        manifest_object(manifest, i, &use->object, &pages);
        use->bytes = pages * STORE_PAGE;
        use->image = image;
    }
    return 0;
}

static int count_image(struct uses *uses, size_t number, const struct ref *ref)
{
    struct image_usage *image = &uses->usage.images[number];
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    int r = manifest_load(uses->store, &ref->manifest, &manifest);
    if (r < 0)
        return fail(r, "%s: %s", ref->name, fail_text());
    *image = (struct image_usage){.ref = *ref, .logical = manifest->image_bytes, .nearest = number};
    for (uint64_t i = 0; i < manifest->extent_count; i++)
        image->data += (uint64_t)manifest_extent(manifest, i).pages * STORE_PAGE;
    uses->usage.logical += manifest->image_bytes;
    return add_use(uses, manifest, (uint32_t)number);
}

static int count_volume(void *opaque, const struct volume_listed *volume)
{
    struct uses *uses = opaque;
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    bool is_new;
    if (!*volume->path)
        return 0;
    int r = id_set_add(&uses->volumes, &volume->manifest, &is_new);
    if (r == 0)
        r = manifest_load(uses->store, &volume->manifest, &manifest);
    if (r != 0)
        return r;
    uses->usage.volumes++;
    uses->usage.logical += manifest->image_bytes;
    return is_new ? add_use(uses, manifest, (uint32_t)uses->usage.image_count) : 0;
}

static int count_stored(void *opaque, const char *name)
{
    struct uses *uses = opaque;
    char path[300];
    struct stat status;
    snprintf(path, sizeof(path), "%02x/%s", uses->shard, name);
    if (fstatat(uses->store->objects, path, &status, AT_SYMLINK_NOFOLLOW) == 0)
        uses->usage.stored += (uint64_t)status.st_size;
    return 0;
}

static int compare_uses(const void *a, const void *b)
{
    const struct use *x = a, *y = b;
    int order = memcmp(&x->object, &y->object, sizeof(x->object));
    return order ? order : (x->image > y->image) - (x->image < y->image);
}

/* One object and the images that use it: list[from] to list[to - 1], a volume's base the last. */
static void count_group(struct uses *uses, size_t from, size_t to, uint64_t *shared)
{
    size_t images = uses->usage.image_count;
    uses->usage.unique += uses->list[from].bytes;
    for (size_t i = from; i < to && uses->list[i].image < images; i++) {
        struct image_usage *image = &uses->usage.images[uses->list[i].image];
        image->objects += uses->list[i].bytes;
        if (to - from == 1)
            image->exclusive += uses->list[i].bytes;
        for (size_t j = from; shared && j < to && uses->list[j].image < images; j++)
            shared[uses->list[i].image * images + uses->list[j].image] += uses->list[i].bytes;
    }
}

static int count_sharing(struct uses *uses)
{
    size_t images = uses->usage.image_count;
    CLEANUP_FREE uint64_t *shared =
        images <= NEAREST_MAX ? calloc(images * images + 1, sizeof(*shared)) : NULL;
    if (uses->count > 0)
        qsort(uses->list, uses->count, sizeof(*uses->list), compare_uses);
    for (size_t from = 0, to; from < uses->count; from = to) {
        for (to = from + 1;
             to < uses->count && object_id_equal(&uses->list[to].object, &uses->list[from].object);)
            to++;
        count_group(uses, from, to, shared);
    }
    for (size_t i = 0; shared && i < images; i++)
        for (size_t j = 0; j < images; j++)
            if (i != j && shared[i * images + j] > uses->usage.images[i].nearest_shared) {
                uses->usage.images[i].nearest_shared = shared[i * images + j];
                uses->usage.images[i].nearest = j;
            }
    return 0;
}

int store_usage(struct store *store, struct store_usage *ret_usage)
{
    struct uses uses = {.store = store};
    CLEANUP_FREE struct ref *refs = NULL;
    size_t count = 0;
    int r = ref_list(store, &refs, &count);
    if (r == 0) {
        size_t good = 0;
        for (size_t i = 0; i < count; i++)
            if (!refs[i].damaged)
                refs[good++] = refs[i];
        uses.usage.image_count = count = good;
        uses.usage.images = calloc(count + 1, sizeof(*uses.usage.images));
        if (!uses.usage.images)
            r = fail(-ENOMEM, "%s: no memory to count %zu images", store->path, count);
    }
    for (size_t i = 0; r == 0 && i < count; i++)
        r = count_image(&uses, i, &refs[i]);
    if (r == 0)
        r = store_each_volume(store, count_volume, &uses);
    for (uses.shard = 0; r == 0 && uses.shard < 256; uses.shard++) {
        char path[8];
        snprintf(path, sizeof(path), "%02x", uses.shard);
        r = each_entry(store->objects, path, count_stored, &uses);
    }
    if (r == 0)
        r = count_sharing(&uses);
    free(uses.list);
    id_set_free(&uses.volumes);
    if (r < 0)
        free(uses.usage.images);
    else
        *ret_usage = uses.usage;
    return r;
}
