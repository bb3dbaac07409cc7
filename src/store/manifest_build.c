#include "store/manifest.h"
#include "store/wire.h"

/* An object as add() knows it; `number` is its index in the manifest, given by the first extent that names
 * it. */
struct built_object {
    struct object_id id;
    uint32_t pages;
    uint32_t number;
};

struct manifest_builder {
    uint64_t image_bytes;
    struct built_object *objects;
    size_t object_count, object_capacity;
    struct manifest_extent *extents;
    size_t extent_count, extent_capacity;
};

#define NO_NUMBER UINT32_MAX

int manifest_builder_new(uint64_t image_bytes, struct manifest_builder **ret_builder)
{
    if (image_bytes > MANIFEST_IMAGE_MAX)
        return fail(-EFBIG, "an image of %llu bytes is larger than a manifest describes",
                    (unsigned long long)image_bytes);
    struct manifest_builder *builder = calloc(1, sizeof(*builder));
    if (!builder)
        return fail(-ENOMEM, "no memory to build a manifest");
    builder->image_bytes = image_bytes;
    *ret_builder = builder;
    return 0;
}

void manifest_builder_free(struct manifest_builder *builder)
{
    if (!builder)
        return;
    free(builder->objects);
    free(builder->extents);
    free(builder);
}

int manifest_builder_object(struct manifest_builder *builder, uint32_t *ret_object)
{
    if (builder->object_count >= NO_NUMBER)
        return fail(-EFBIG, "a manifest cannot name more than %u objects", NO_NUMBER);
    int r = array_reserve(&builder->objects, builder->object_count + 1, &builder->object_capacity);
    if (r < 0)
        return r;
    *ret_object = (uint32_t)builder->object_count;
    builder->objects[builder->object_count++] = (struct built_object){0};
    return 0;
}

void manifest_builder_name(struct manifest_builder *builder, uint32_t object, const struct object_id *id,
                           unsigned pages)
{
    CHECK(object < builder->object_count && pages > 0 && pages <= STORE_OBJECT_PAGES);
    builder->objects[object] = (struct built_object){.id = *id, .pages = pages};
}

int manifest_builder_add(struct manifest_builder *builder, uint64_t first_page, unsigned pages,
                         uint32_t object, unsigned object_page)
{
    int r = array_reserve(&builder->extents, builder->extent_count + 1, &builder->extent_capacity);
    if (r < 0)
        return r;
    builder->extents[builder->extent_count++] = (struct manifest_extent){
        .first_page = first_page, .object = object, .pages = pages, .object_page = object_page};
    return 0;
}

/* Where the id is, or would be, in a table of `capacity` (a power of two) indexes into objects. */
static uint32_t *find_slot(const struct manifest_builder *builder, uint32_t *table, size_t capacity,
                           const struct object_id *id)
{
    uint64_t start;
    memcpy(&start, id->bytes, sizeof(start));
    size_t slot = (size_t)start & (capacity - 1);
    while (table[slot] != NO_NUMBER && !object_id_equal(&builder->objects[table[slot]].id, id))
        slot = (slot + 1) & (capacity - 1);
    return &table[slot];
}

/* Points every extent at the first object of the same id, numbers objects in the order of their use, and
 * joins extents that continue one another. Returns the number of objects used. */
static int canonicalize(struct manifest_builder *builder, uint32_t *ret_used)
{
    size_t capacity = 64;
    while (capacity < 2 * builder->object_count)
        capacity *= 2;
    CLEANUP_FREE uint32_t *table = malloc(capacity * sizeof(*table));
    if (!table)
        return fail(-ENOMEM, "no memory to build a manifest of %zu objects", builder->object_count);
    memset(table, 0xff, capacity * sizeof(*table));
    for (size_t i = 0; i < builder->object_count; i++)
        builder->objects[i].number = NO_NUMBER;

    uint32_t used = 0;
    size_t kept = 0;
    for (size_t i = 0; i < builder->extent_count; i++) {
        struct manifest_extent extent = builder->extents[i];
        uint32_t *slot = find_slot(builder, table, capacity, &builder->objects[extent.object].id);
        if (*slot == NO_NUMBER) {
            *slot = extent.object;
            builder->objects[extent.object].number = used++;
        }
        extent.object = *slot;
        struct manifest_extent *last = kept > 0 ? &builder->extents[kept - 1] : NULL;
        if (last && last->object == extent.object && last->first_page + last->pages == extent.first_page &&
            last->object_page + last->pages == extent.object_page)
            last->pages += extent.pages; /* within one object, so at most 512 */
        else
            builder->extents[kept++] = extent;
    }
    builder->extent_count = kept;
    *ret_used = used;
    return 0;
}

static void write_header(const struct manifest_builder *builder, uint8_t *at, uint64_t length,
                         uint32_t objects)
{
    memcpy(at, MANIFEST_MAGIC, 8);
    put32(at + 8, MANIFEST_VERSION);
    put32(at + 12, MANIFEST_HEADER);
    put64(at + 16, length);
    put64(at + 24, builder->image_bytes);
    put32(at + 32, STORE_PAGE);
    put32(at + 36, STORE_OBJECT_BYTES);
    put64(at + 40, objects);
    put64(at + 48, builder->extent_count);
    put64(at + 56, 0);
}

int manifest_builder_finish(struct manifest_builder *builder, struct manifest **ret_manifest)
{
    uint32_t used;
    int r = canonicalize(builder, &used);
    if (r < 0)
        return r;
    size_t length = MANIFEST_HEADER + (size_t)used * MANIFEST_OBJECT +
                    builder->extent_count * MANIFEST_EXTENT + OBJECT_ID_BYTES;
    if (length > MANIFEST_FILE_MAX)
        return fail(-EFBIG, "the image is too large or too fragmented: its manifest would have %zu bytes",
                    length);
    uint8_t *bytes = calloc(1, length);
    if (!bytes)
        return fail(-ENOMEM, "no memory for a manifest of %zu bytes", length);
    write_header(builder, bytes, length, used);
    uint8_t *objects = bytes + MANIFEST_HEADER, *extents = objects + (size_t)used * MANIFEST_OBJECT;
    for (size_t i = 0; i < builder->object_count; i++) {
        const struct built_object *object = &builder->objects[i];
        if (object->number == NO_NUMBER)
            continue;
        memcpy(objects + (size_t)object->number * MANIFEST_OBJECT, &object->id, OBJECT_ID_BYTES);
        put32(objects + (size_t)object->number * MANIFEST_OBJECT + 32, object->pages);
    }
    for (size_t i = 0; i < builder->extent_count; i++) {
        const struct manifest_extent *extent = &builder->extents[i];
        put64(extents + i * MANIFEST_EXTENT, extent->first_page);
        put32(extents + i * MANIFEST_EXTENT + 8, builder->objects[extent->object].number);
        put16(extents + i * MANIFEST_EXTENT + 12, (uint16_t)extent->pages);
        put16(extents + i * MANIFEST_EXTENT + 14, (uint16_t)extent->object_page);
    }
    struct object_id self, id;
    object_hash(bytes, length - OBJECT_ID_BYTES, &self);
    memcpy(bytes + length - OBJECT_ID_BYTES, &self, sizeof(self));
    object_hash(bytes, length, &id);
    r = manifest_parse(bytes, length, false, ret_manifest);
    if (r == 0)
        (*ret_manifest)->id = id;
    return r;
}
