/* A store in a directory of its own, and images to put into it. For the tests of src/store and of disks in
 * it. */
#pragma once

#include "store/image.h"
#include "store/ingest.h"
#include "store/private.h"
#include "store/volume.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

struct rig {
    char path[64];
    struct store *store;
};

static inline void rig_make(struct rig *rig)
{
    char store[80];
    strcpy(rig->path, "/tmp/volt-test-store.XXXXXX");
    cr_assert_not_null(mkdtemp(rig->path), "no directory for the test");
    snprintf(store, sizeof(store), "%s/store", rig->path);
    cr_assert_eq(store_init(store), 0, "init: %s", fail_text());
    cr_assert_eq(store_open(store, &rig->store), 0, "open: %s", fail_text());
}

static inline int rig_remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status, (void)type, (void)where;
    return remove(path);
}

static inline void rig_remove(struct rig *rig)
{
    store_close(rig->store);
    nftw(rig->path, rig_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void rig_path(const struct rig *rig, const char *name, char path[128])
{
    snprintf(path, 128, "%s/%s", rig->path, name);
}

/* A page that no other seed gives. */
static inline void page_fill(void *page, uint64_t seed)
{
    uint64_t *message = page;
    for (unsigned i = 0; i < STORE_PAGE / 8; i++)
        message[i] = seed = seed * 6364136223846793005u + 1442695040888963407u;
}

/* `pages` pages in memory: the seed of each is `seeds[page]`, 0 for zeros. */
static inline uint8_t *pages_make(const uint64_t *seeds, unsigned pages)
{
    uint8_t *bytes = calloc(pages, STORE_PAGE);
    cr_assert_not_null(bytes, "no memory");
    for (unsigned i = 0; i < pages; i++)
        if (seeds[i])
            page_fill(bytes + (size_t)i * STORE_PAGE, seeds[i]);
    return bytes;
}

static inline int rig_try_import(struct rig *rig, const uint8_t *bytes, uint64_t length, const char *name,
                                 const char *base, unsigned threads, unsigned budget,
                                 struct ingest_report *ret_report, struct writer_report *ret_written)
{
    CLEANUP_FD int fd = memfd_create("image", MFD_CLOEXEC);
    struct store_writer *writer = NULL;
    CLEANUP_MANIFEST struct manifest *manifest = NULL, *base_manifest = NULL;
    struct object_id id;
    int r = write_full_at(fd, bytes, length, 0);
    if (r == 0)
        r = writer_begin(rig->store, &writer);
    if (r == 0 && base && (r = ref_read(rig->store, base, &id)) == 0)
        r = manifest_load(rig->store, &id, &base_manifest);
    if (r == 0) {
        const struct manifest *bases[] = {base_manifest};
        struct ingest_source source = {
            .name = name, .bytes = length, .fd = fd, .survey = ingest_survey_holes};
        struct ingest_options options = {
            .bases = bases, .base_count = base ? 1 : 0, .threads = threads, .budget = budget};
        r = ingest(writer, rig->store, &source, &options, &manifest, ret_report);
    }
    if (r == 0)
        r = writer_publish(writer, manifest, name);
    if (r == 0 && ret_written)
        *ret_written = writer_report(writer);
    writer_end(writer);
    return r;
}

static inline void rig_import(struct rig *rig, const uint8_t *bytes, uint64_t length, const char *name)
{
    cr_assert_eq(rig_try_import(rig, bytes, length, name, NULL, 0, 0, NULL, NULL), 0, "import: %s",
                 fail_text());
}

static inline struct manifest *rig_manifest(struct rig *rig, const char *name)
{
    struct object_id id;
    struct manifest *manifest = NULL;
    cr_assert_eq(ref_read(rig->store, name, &id), 0, "%s: %s", name, fail_text());
    cr_assert_eq(manifest_load(rig->store, &id, &manifest), 0, "%s: %s", name, fail_text());
    return manifest;
}

/* Whether the image reads as these bytes. */
static inline void rig_expect(struct rig *rig, const char *name, const uint8_t *bytes, unsigned pages)
{
    struct volume *volume = NULL;
    uint8_t *read = malloc((size_t)pages * STORE_PAGE);
    cr_assert_eq(volume_open_image(rig->store, name, NULL, &volume), 0, "%s: %s", name, fail_text());
    cr_assert_eq(volume_read(volume, read, 0, pages), 0, "%s: %s", name, fail_text());
    cr_assert_eq(memcmp(read, bytes, (size_t)pages * STORE_PAGE), 0, "%s reads as something else", name);
    volume_close(volume);
    free(read);
}

/* Changes a byte of the image's first object, or cuts the object short, behind the store's back. */
static inline void rig_damage(struct rig *rig, const char *name, bool cut)
{
    struct manifest *manifest = rig_manifest(rig, name);
    struct object_id id;
    unsigned pages;
    char path[SHARD_PATH_MAX];
    manifest_object(manifest, 0, &id, &pages);
    manifest_free(manifest);
    shard_path(&id, path);
    cr_assert_eq(fchmodat(rig->store->objects, path, 0644, 0), 0, "chmod");
    CLEANUP_FD int fd = openat(rig->store->objects, path, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;
    cr_assert(fd >= 0 && pread(fd, &byte, 1, 100) == 1, "object cannot be read");
    byte ^= 1;
    cr_assert(cut ? ftruncate(fd, 100) == 0 : pwrite(fd, &byte, 1, 100) == 1, "object cannot be damaged");
}
