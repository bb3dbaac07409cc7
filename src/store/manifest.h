/*
 * A manifest says which pages of which objects make up an image. Flat: reading costs the same however many
 * generations of images and volumes lie behind it. All integers are little-endian.
 *
 *    offset  bytes
 *         0      8   magic "STELMANI"
 *         8      4   version, 1
 *        12      4   bytes of this header, 64
 *        16      8   bytes of this file
 *        24      8   bytes of the image (its last page may be part of one; the rest of that page is zeros)
 *        32      4   page size, 4096
 *        36      4   most bytes of an object, 2097152
 *        40      8   number of objects
 *        48      8   number of extents
 *        56      8   zero
 *        64          the objects, 40 bytes each, in the order in which the extents first name them:
 *                        32   SHA-256
 *                         4   pages in the object, 1 to 512
 *                         4   zero
 *         .          the extents, 16 bytes each, ascending, not overlapping; what no extent covers is zeros:
 *                         8   first page in the image
 *                         4   object, an index into the table above
 *                         2   pages, 1 to 512
 *                         2   first page in the object
 *         .     32   SHA-256 of everything before it
 *
 *      image    0          512        1024       1536 pages
 *               |  A A A A  |  . . . B  |  B C A .  |
 *               +-----------+-----------+-----------+
 *      extents   [0,0,512,0]   [1020,1,4,0] ...
 *
 *      A is object 0: its pages 0 to 511 are one extent, and a later region points at one page of it again.
 *      Dots are zeros, which are not stored.
 *
 * Extents that continue one another in image and object are one extent, so an image has one manifest, byte
 * for byte.
 */
#pragma once

#include "store/store.h"

struct manifest {
    struct object_id id; /* the name: the hash of all bytes */
    uint8_t *bytes;      /* the file; the tables below point into it */
    size_t length;
    uint64_t image_bytes, image_pages;
    uint64_t object_count, extent_count;
    const uint8_t *objects, *extents;
};

struct manifest_extent {
    uint64_t first_page;
    uint32_t object;
    uint32_t pages;
    uint32_t object_page;
};

/* A stretch of the image from the page asked for on: of one object, or zeros. */
struct manifest_run {
    uint64_t pages;
    bool zero;
    uint32_t object, object_page; /* meaningless if zero */
};

/*
 * Takes over `bytes` (malloc()ed, freed here on failure as well) and checks every field of it; -EBADMSG with
 * a message if one is wrong. The trailing hash is compared if `check_hash`; the caller has another reason
 * to trust the bytes if not.
 */
int manifest_parse(uint8_t *bytes, size_t length, bool check_hash, struct manifest **ret_manifest);
void manifest_free(struct manifest *manifest);

/* Loads and checks a manifest of the store. The hash is checked if this boot has not verified the
 * file. */
int manifest_load(struct store *store, const struct object_id *id, struct manifest **ret_manifest);

void manifest_object(const struct manifest *manifest, uint64_t index, struct object_id *ret_id,
                     unsigned *ret_pages);
struct manifest_extent manifest_extent(const struct manifest *manifest, uint64_t index);

/* Reads pages of the manifest's object number `object` into `buffer`, after hashing all of it unless that
 * was done in this boot. `whole` has STORE_OBJECT_BYTES, to hash in; it may be `buffer`. -EBADMSG if it is
 * corrupt. */
int object_read_verified(struct store *store, const struct manifest *manifest, uint32_t object,
                         unsigned first_page, unsigned pages, void *whole, void *buffer);

/* What lies at `page`, which is below image_pages; O(log extents). */
struct manifest_run manifest_lookup(const struct manifest *manifest, uint64_t page);

/* Builds a manifest from extents given in ascending order. Not for several threads at once. */
struct manifest_builder;
int manifest_builder_new(uint64_t image_bytes, struct manifest_builder **ret_builder);
void manifest_builder_free(struct manifest_builder *builder);

/* A number that stands for an object in add(). Its id and size may be given later, but before finish(). */
int manifest_builder_object(struct manifest_builder *builder, uint32_t *ret_object);
void manifest_builder_name(struct manifest_builder *builder, uint32_t object, const struct object_id *id,
                           unsigned pages);
int manifest_builder_add(struct manifest_builder *builder, uint64_t first_page, unsigned pages,
                         uint32_t object, unsigned object_page);

/* The manifest, hashed and checked. The builder stays the caller's to free. */
int manifest_builder_finish(struct manifest_builder *builder, struct manifest **ret_manifest);

#define CLEANUP_MANIFEST __attribute__((cleanup(cleanup_manifest)))
static inline void cleanup_manifest(struct manifest **manifest)
{
    manifest_free(*manifest);
}
