#include "snapshot_store.h"

#include "snapshot_config.h"
#include "store/ingest.h"
#include "store/manifest.h"

#include <string.h>
#include <sys/stat.h>

static const char prefix[] = "cas:";

/* A region whose pages lie in more places than this is read: mappings are few, and each costs a fork. */
#define REGION_MAPPINGS_MAX 8u

bool snapshot_is_stored(const char *name)
{
    return strncmp(name, prefix, sizeof(prefix) - 1) == 0;
}

/* ---- Opening ---- */

/* Reads bytes of the image, whole pages of it at a time. */
static int read_image(const struct snapshot *snapshot, uint64_t first_page, uint64_t pages, uint8_t *to)
{
    const struct manifest *manifest = snapshot->manifest;
    CLEANUP_FREE uint8_t *whole = malloc(STORE_OBJECT_BYTES);
    if (!whole)
        return fail(-ENOMEM, "no memory to read an object");
    int r = 0;
    while (r == 0 && pages > 0) {
        struct manifest_run run = manifest_lookup(manifest, first_page);
        unsigned count = (unsigned)MIN(MIN(run.pages, pages), (uint64_t)STORE_OBJECT_PAGES);
        if (run.zero)
            memset(to, 0, (size_t)count * STORE_PAGE);
        else
            r = object_read_verified(snapshot->store, manifest, run.object, run.object_page, count, whole,
                                     to);
        first_page += count;
        pages -= count;
        to += (size_t)count * STORE_PAGE;
    }
    return r;
}

static int read_stored(const char *name, struct snapshot *snapshot)
{
    union {
        struct snapshot_trailer trailer;
        uint8_t page[STORE_PAGE];
    } last;
    uint64_t pages = snapshot->manifest->image_pages;
    int r = read_image(snapshot, pages - 1, 1, last.page);
    if (r < 0)
        return r;
    const struct snapshot_trailer *trailer = &last.trailer;
    uint64_t state_pages = align_up(trailer->state_length, STORE_PAGE) / STORE_PAGE;
    if (memcmp(trailer->magic, SNAPSHOT_MEMORY_MAGIC, sizeof(trailer->magic)) != 0 ||
        snapshot->manifest->image_bytes % STORE_PAGE || trailer->memory % GUEST_MEM_ALIGN ||
        trailer->memory > GUEST_MEM_MAX || trailer->state_length > SNAPSHOT_STATE_MAX ||
        pages != trailer->memory / STORE_PAGE + state_pages + 1)
        return fail(-EBADMSG, "%s: an image, and no snapshot", name);
    snapshot->bytes = calloc(state_pages + 1, STORE_PAGE);
    if (!snapshot->bytes)
        return fail(-ENOMEM, "%s: no memory for it", name);
    r = read_image(snapshot, trailer->memory / STORE_PAGE, state_pages, snapshot->bytes);
    return r < 0 ? r : snapshot_take_state(name, trailer, snapshot);
}

static int open_stored(const char *name, const char *store_path, struct snapshot *snapshot)
{
    struct object_id id;
    if (!store_path)
        store_path = getenv("STELLARIUM_STORE");
    if (!store_path)
        return fail(-EINVAL, "%s: in which store? (--cas-store DIR, or $STELLARIUM_STORE)", name);
    int r = store_open(store_path, &snapshot->store);
    if (r == 0)
        r = store_lease_name(snapshot->store, name + sizeof(prefix) - 1, &id, &snapshot->lease);
    if (r == 0)
        r = manifest_load(snapshot->store, &id, &snapshot->manifest);
    if (r == 0 && snapshot->manifest->image_pages == 0)
        r = fail(-EBADMSG, "%s: an image, and no snapshot", name);
    return r == 0 ? read_stored(name, snapshot) : r;
}

int snapshot_open_any(const char *name, const char *store_path, struct snapshot *ret_snapshot)
{
    if (!snapshot_is_stored(name))
        return snapshot_open_folder(name, ret_snapshot);
    *ret_snapshot = (struct snapshot){.memory_fd = -1};
    int r = open_stored(name, store_path, ret_snapshot);
    if (r < 0)
        snapshot_close(ret_snapshot);
    return r;
}

/* ---- Mapping ---- */

struct mapping {
    const struct snapshot *snapshot;
    struct guest_mem *mem;
    uint8_t *whole; /* an object that is to be verified */
    /* The object that was mapped last: it is often that of the next stretch, too. */
    uint32_t object;
    int fd;
    bool reads; /* not all of it is mapped */
};

static int open_object(struct mapping *mapping, uint32_t object)
{
    const struct snapshot *snapshot = mapping->snapshot;
    struct object_id id;
    unsigned pages;
    bool verified;
    if (mapping->fd >= 0 && mapping->object == object)
        return 0;
    cleanup_fd(&mapping->fd);
    mapping->fd = -1;
    manifest_object(snapshot->manifest, object, &id, &pages);
    int r = object_open(snapshot->store, &id, pages, &mapping->fd, &verified);
    if (r == 0 && !verified && !mapping->whole) {
        mapping->whole = malloc(STORE_OBJECT_BYTES);
        if (!mapping->whole)
            r = fail(-ENOMEM, "no memory to verify an object");
    }
    if (r == 0 && !verified)
        r = object_verify(snapshot->store, &id, pages, mapping->fd, mapping->whole);
    mapping->object = object;
    return r;
}

static unsigned count_runs(const struct manifest *manifest, uint64_t first_page, uint64_t pages)
{
    unsigned count = 0;
    for (uint64_t page = first_page; page < first_page + pages;) {
        struct manifest_run run = manifest_lookup(manifest, page);
        count += !run.zero;
        page += MIN(run.pages, first_page + pages - page);
    }
    return count;
}

/* One stretch of one object. */
static int map_run(struct mapping *mapping, uint64_t page, uint64_t pages, const struct manifest_run *run)
{
    int r = open_object(mapping, run->object);
    return r < 0 ? r
                 : guest_mem_map(mapping->mem, page * GUEST_PAGE, pages * GUEST_PAGE, mapping->fd,
                                 (uint64_t)run->object_page * GUEST_PAGE);
}

static int read_region(const struct mapping *mapping, uint64_t first_page, uint64_t pages)
{
    return read_image(mapping->snapshot, first_page, pages,
                      mapping->mem->regions[0].host + first_page * GUEST_PAGE);
}

/* Zeros are left as new memory has them. */
static int map_region(struct mapping *mapping, uint64_t first_page, uint64_t pages)
{
    const struct manifest *manifest = mapping->snapshot->manifest;
    unsigned runs = count_runs(manifest, first_page, pages);
    if (runs > REGION_MAPPINGS_MAX || (runs > 0 && mapping->mem->pages == GUEST_PAGES_HUGETLB)) {
        mapping->reads = true;
        return read_region(mapping, first_page, pages);
    }
    for (uint64_t page = first_page, end = first_page + pages; page < end;) {
        struct manifest_run run = manifest_lookup(manifest, page);
        uint64_t count = MIN(run.pages, end - page);
        int r = run.zero ? 0 : map_run(mapping, page, count, &run);
        if (r == -ENOSPC) {
            mapping->reads = true;
            return read_region(mapping, page, end - page);
        }
        if (r < 0)
            return r;
        page += count;
    }
    return 0;
}

/* All of it, into memory that is new. */
static int fill_memory(struct snapshot *snapshot, struct guest_mem *mem)
{
    struct mapping mapping = {.snapshot = snapshot, .mem = mem, .fd = -1};
    uint64_t end = snapshot->memory / GUEST_PAGE;
    int r = 0;
    for (uint64_t page = 0; r == 0 && page < end; page += STORE_OBJECT_PAGES)
        r = map_region(&mapping, page, MIN(end - page, (uint64_t)STORE_OBJECT_PAGES));
    cleanup_fd(&mapping.fd);
    free(mapping.whole);
    snapshot->reads = mapping.reads;
    guest_mem_mapped(mem);
    return r;
}

static int fill_from_file(const struct snapshot *snapshot, struct guest_mem *mem)
{
    int r;
    if (mem->pages != GUEST_PAGES_HUGETLB)
        r = guest_mem_map(mem, 0, snapshot->memory, snapshot->memory_fd, 0);
    else {
        r = read_full_at(snapshot->memory_fd, mem->regions[0].host, snapshot->memory, 0);
        if (r < 0)
            r = fail_errno(r, "reading the guest's memory from its file");
    }
    guest_mem_mapped(mem);
    return r;
}

static int fill(struct snapshot *snapshot, struct guest_mem *mem)
{
    return snapshot->manifest ? fill_memory(snapshot, mem) : fill_from_file(snapshot, mem);
}

int snapshot_map_memory(struct snapshot *snapshot, enum guest_pages pages, struct guest_mem *ret_mem)
{
    int r = guest_mem_new(snapshot->memory, pages, ret_mem);
    if (r < 0)
        return r;
    r = fill(snapshot, ret_mem);
    if (r < 0)
        guest_mem_free(ret_mem);
    return r;
}

int snapshot_revert_memory(struct snapshot *snapshot, struct guest_mem *mem)
{
    if (!snapshot->reads && guest_mem_revert(mem))
        return 0;
    int r = guest_mem_forget(mem);
    return r < 0 ? r : fill(snapshot, mem);
}

/* ---- Storing ---- */

#define BASES_MAX 2u

struct bases {
    struct manifest *list[BASES_MAX];
    unsigned count;
};

/* What is not there, or cannot be read, shares nothing, and that is all. */
static void add_base(struct store *store, const char *name, struct bases *bases)
{
    struct object_id id;
    if (ref_read(store, name, &id) == 0 && manifest_load(store, &id, &bases->list[bases->count]) == 0)
        bases->count++;
}

/* The snapshot that this one comes after, by its own word. */
static void add_earlier(struct store *store, const struct snapshot *snapshot, const char *name,
                        struct bases *bases)
{
    struct config config;
    config_init(&config);
    if (snapshot_load_config(&config, snapshot->config) == 0 && config.restore &&
        snapshot_is_stored(config.restore) && strcmp(config.restore + sizeof(prefix) - 1, name) != 0)
        add_base(store, config.restore + sizeof(prefix) - 1, bases);
    config_free(&config);
}

/* The two files become one: the state takes the place of the memory's trailer, which then follows. */
static int join(int state_fd, int memory_fd, struct snapshot *snapshot, uint64_t *ret_bytes)
{
    struct stat state, memory;
    union {
        struct snapshot_trailer trailer;
        uint8_t page[GUEST_PAGE];
    } last;
    if (fstat(state_fd, &state) < 0 || fstat(memory_fd, &memory) < 0)
        return fail_errno(-errno, "the snapshot's files");
    uint64_t length = (uint64_t)state.st_size, at = (uint64_t)memory.st_size - GUEST_PAGE;
    if (memory.st_size < (off_t)GUEST_PAGE || length > SNAPSHOT_STATE_MAX)
        return fail(-EBADMSG, "the snapshot's files are not whole");
    snapshot->bytes = calloc(1, length + GUEST_PAGE);
    if (!snapshot->bytes)
        return fail(-ENOMEM, "no memory for the snapshot's state");
    int r = read_full_at(memory_fd, &last, sizeof(last), at);
    if (r == 0)
        r = read_full_at(state_fd, snapshot->bytes, length, 0);
    if (r < 0)
        return fail_errno(r, "the snapshot's files");
    last.trailer.state_length = length;
    uint64_t padded = align_up(length, GUEST_PAGE);
    r = write_full_at(memory_fd, snapshot->bytes, padded, at);
    if (r == 0)
        r = write_full_at(memory_fd, &last, sizeof(last), at + padded);
    if (r < 0)
        return fail_errno(r, "the snapshot's files");
    *ret_bytes = at + padded + sizeof(last);
    return snapshot_take_state("the snapshot", &last.trailer, snapshot);
}

int snapshot_store(struct store *store, const char *name, int state_fd, int memory_fd,
                   void (*progress)(void *opaque, uint64_t done_bytes, uint64_t total_bytes), void *opaque,
                   uint64_t *ret_stored_bytes)
{
    struct snapshot snapshot = {.memory_fd = -1};
    struct ingest_source source = {.name = name, .fd = memory_fd, .survey = ingest_survey_holes};
    struct bases bases = {.count = 0};
    struct store_writer *writer = NULL;
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    int r = join(state_fd, memory_fd, &snapshot, &source.bytes);
    if (r == 0)
        r = writer_begin(store, &writer);
    if (r == 0) {
        add_earlier(store, &snapshot, name, &bases);
        add_base(store, name, &bases);
        const struct ingest_options options = {.bases = (const struct manifest *const *)bases.list,
                                               .base_count = bases.count,
                                               .progress = progress,
                                               .opaque = opaque};
        r = ingest(writer, store, &source, &options, &manifest, NULL);
    }
    if (r == 0)
        r = writer_publish(writer, manifest, name);
    if (r == 0)
        *ret_stored_bytes = writer_report(writer).bytes_new;
    if (writer)
        writer_end(writer);
    for (unsigned i = 0; i < bases.count; i++)
        manifest_free(bases.list[i]);
    snapshot_close(&snapshot);
    return r;
}
