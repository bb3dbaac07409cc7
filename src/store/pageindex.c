#include "store/pageindex.h"
#include "store/private.h"
#include "store/wire.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/random.h>
#include <xxhash.h>

#define CACHE_MAGIC "STELPGS2"

/* A page that is not found in so many steps is taken for new: the index is only a hint. */
#define PROBES_MAX 64u

struct cache_header {
    char magic[8];
    uint64_t seed; /* which the hashes were made with */
};

struct base_pages {
    const struct manifest *manifest;
    uint64_t page_count; /* of all its objects */
    uint64_t *first;     /* of each object: the index of its first page in hashes */
    uint64_t *hashes;    /* 0: unknown */
    bool cached;         /* hashes came from STORE/cache */
};

struct page_entry {
    uint64_t hash; /* 0: free */
    struct page_place place;
};

struct page_index {
    struct store *store;
    struct base_pages *bases;
    unsigned base_count;
    uint64_t seed;
    bool seed_kept;        /* it is the store's: hashes made with it are worth keeping */
    uint64_t object_count; /* of all bases: the units of work */
    atomic_uint_fast64_t object_next;
    pthread_mutex_t mutex; /* over the rest */
    pthread_cond_t made;
    uint64_t objects_done;
    int result; /* 1: not made yet */
    bool loaded;
    struct page_entry *table;
    uint64_t capacity;
};

uint64_t page_hash(const struct page_index *index, const void *page)
{
    uint64_t hash = XXH3_64bits_withSeed(page, STORE_PAGE, index->seed);
    return hash ? hash : 1;
}

static bool seed_read(struct store *store, uint64_t *ret_seed)
{
    CLEANUP_FD int fd = openat(store->cache, "seed", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return fd >= 0 && read_full_at(fd, ret_seed, sizeof(*ret_seed), 0) == 0;
}

/* The store's, so that hashes may be kept; where it cannot be kept, this index's own. Nobody who makes an
 * image knows it, so nobody can make pages that fall into one place of the table. */
static void seed_get(struct page_index *index)
{
    struct store *store = index->store;
    index->seed_kept = seed_read(store, &index->seed);
    if (index->seed_kept)
        return;
    CHECK(getrandom(&index->seed, sizeof(index->seed), 0) == sizeof(index->seed));
    uint64_t seed = index->seed;
    if (!store->read_only && file_publish(store->tmp, store->cache, "seed", &seed, sizeof(seed), 0600) == 0)
        index->seed_kept = seed_read(store, &index->seed); /* another process may have been faster */
}

static int base_init(struct base_pages *base, const struct manifest *manifest)
{
    base->manifest = manifest;
    base->first = malloc((size_t)(manifest->object_count + 1) * sizeof(*base->first));
    if (!base->first)
        return -ENOMEM;
    for (uint64_t i = 0; i < manifest->object_count; i++) {
        struct object_id id;
        unsigned pages;
        manifest_object(manifest, i, &id, &pages);
        base->first[i] = base->page_count;
        base->page_count += pages;
    }
    base->hashes = calloc((size_t)base->page_count + 1, sizeof(*base->hashes));
    return base->hashes ? 0 : -ENOMEM;
}

int page_index_new(struct store *store, const struct manifest *const *bases, unsigned count,
                   struct page_index **ret_index)
{
    struct page_index *index = calloc(1, sizeof(*index));
    int r = index ? 0 : -ENOMEM;
    if (index) {
        *index = (struct page_index){.store = store, .base_count = count, .result = 1};
        pthread_mutex_init(&index->mutex, NULL);
        pthread_cond_init(&index->made, NULL);
        index->bases = calloc(count + 1, sizeof(*index->bases));
        r = index->bases ? 0 : -ENOMEM;
    }
    for (unsigned i = 0; r == 0 && i < count; i++) {
        r = base_init(&index->bases[i], bases[i]);
        index->object_count += bases[i]->object_count;
    }
    if (r < 0) {
        page_index_free(index);
        return fail(r, "%s: no memory for a page index", store->path);
    }
    *ret_index = index;
    return 0;
}

void page_index_free(struct page_index *index)
{
    if (!index)
        return;
    for (unsigned i = 0; index->bases && i < index->base_count; i++) {
        free(index->bases[i].first);
        free(index->bases[i].hashes);
    }
    free(index->bases);
    free(index->table);
    pthread_cond_destroy(&index->made);
    pthread_mutex_destroy(&index->mutex);
    free(index);
}

static void cache_name(const struct manifest *manifest, char name[OBJECT_ID_TEXT + 8])
{
    object_id_text(&manifest->id, name);
    memcpy(name + OBJECT_ID_TEXT - 1, ".pages", sizeof(".pages"));
}

static void cache_load(struct page_index *index)
{
    for (unsigned i = 0; i < index->base_count; i++) {
        struct base_pages *base = &index->bases[i];
        char name[OBJECT_ID_TEXT + 8];
        struct stat status;
        struct cache_header header;
        cache_name(base->manifest, name);
        CLEANUP_FD int fd = openat(index->store->cache, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        size_t length = (size_t)base->page_count * sizeof(*base->hashes);
        base->cached =
            fd >= 0 && fstat(fd, &status) == 0 && (uint64_t)status.st_size == sizeof(header) + length &&
            read_full_at(fd, &header, sizeof(header), 0) == 0 &&
            memcmp(header.magic, CACHE_MAGIC, sizeof(header.magic)) == 0 && header.seed == index->seed &&
            read_full_at(fd, base->hashes, length, sizeof(header)) == 0;
        if (!base->cached)
            memset(base->hashes, 0, length);
    }
}

/* Not made durable: a file of another length is not used, and a wrong hash is a page not found. */
static void cache_save(struct page_index *index)
{
    for (unsigned i = 0; i < index->base_count; i++) {
        struct base_pages *base = &index->bases[i];
        char name[OBJECT_ID_TEXT + 8], temporary[TMP_NAME_MAX];
        if (base->cached || !index->seed_kept || index->store->read_only)
            continue;
        cache_name(base->manifest, name);
        tmp_name("text", temporary);
        CLEANUP_FD int fd = sys_open(index->store->tmp, temporary, O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (fd < 0)
            continue;
        struct cache_header header = {.seed = index->seed};
        memcpy(header.magic, CACHE_MAGIC, sizeof(header.magic));
        if (sys_write(fd, &header, sizeof(header), 0) < 0 ||
            sys_write(fd, base->hashes, (size_t)base->page_count * sizeof(*base->hashes), sizeof(header)) <
                0 ||
            sys_rename(index->store->tmp, temporary, index->store->cache, name, 0) < 0)
            unlinkat(index->store->tmp, temporary, 0);
    }
}

static void hash_object(struct page_index *index, uint64_t number, uint8_t *buffer)
{
    struct base_pages *base = index->bases;
    for (; number >= base->manifest->object_count; base++)
        number -= base->manifest->object_count;
    struct object_id id;
    unsigned pages;
    bool verified;
    CLEANUP_FD int fd = -1;
    manifest_object(base->manifest, number, &id, &pages);
    if (base->cached || object_open(index->store, &id, pages, &fd, &verified) < 0 ||
        read_full_at(fd, buffer, (size_t)pages * STORE_PAGE, 0) < 0)
        return;
    for (unsigned page = 0; page < pages; page++)
        base->hashes[base->first[number] + page] = page_hash(index, buffer + (size_t)page * STORE_PAGE);
}

/* The place of `hash` in the table, or the free one where it would go; NULL if neither is near. */
static struct page_entry *find_entry(const struct page_index *index, uint64_t hash)
{
    for (uint64_t probe = 0; probe < PROBES_MAX; probe++) {
        struct page_entry *entry = &index->table[(hash + probe) & (index->capacity - 1)];
        if (entry->hash == 0 || entry->hash == hash)
            return entry;
    }
    return NULL;
}

static void enter_base(struct page_index *index, unsigned number)
{
    const struct base_pages *base = &index->bases[number];
    uint32_t object = 0;
    for (uint64_t page = 0; page < base->page_count; page++) {
        while (object + 1 < base->manifest->object_count && base->first[object + 1] <= page)
            object++;
        uint64_t hash = base->hashes[page];
        struct page_entry *entry = hash ? find_entry(index, hash) : NULL;
        if (entry && entry->hash == 0) /* the nearest base and the first page win */
            *entry = (struct page_entry){
                hash,
                {.object = object, .page = (uint16_t)(page - base->first[object]), .base = (uint16_t)number}};
    }
}

static int make_table(struct page_index *index)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < index->base_count; i++)
        pages += index->bases[i].page_count;
    index->capacity = 1024;
    while (index->capacity < 2 * pages)
        index->capacity *= 2;
    index->table = calloc((size_t)index->capacity, sizeof(*index->table));
    if (!index->table)
        return fail(-ENOMEM, "%s: no memory for an index of %llu pages", index->store->path,
                    (unsigned long long)pages);
    for (unsigned i = 0; i < index->base_count; i++)
        enter_base(index, i);
    return 0;
}

int page_index_need(struct page_index *index)
{
    pthread_mutex_lock(&index->mutex);
    int result = index->result;
    if (result == 1 && !index->loaded) {
        seed_get(index);
        cache_load(index);
        index->loaded = true;
    }
    pthread_mutex_unlock(&index->mutex);
    if (result != 1)
        return result;

    uint64_t done = 0, number;
    CLEANUP_FREE uint8_t *buffer = malloc(STORE_OBJECT_BYTES);
    CHECK(buffer); /* the others wait for this thread's share */
    while ((number = atomic_fetch_add(&index->object_next, 1)) < index->object_count) {
        hash_object(index, number, buffer);
        done++;
    }
    pthread_mutex_lock(&index->mutex);
    index->objects_done += done;
    if (index->objects_done == index->object_count && index->result == 1) {
        index->result = make_table(index);
        cache_save(index);
        pthread_cond_broadcast(&index->made);
    }
    while (index->result == 1)
        pthread_cond_wait(&index->made, &index->mutex);
    result = index->result;
    pthread_mutex_unlock(&index->mutex);
    return result;
}

bool page_index_find(const struct page_index *index, uint64_t hash, struct page_place *ret_place)
{
    const struct page_entry *entry = find_entry(index, hash);
    if (!entry || entry->hash == 0)
        return false;
    *ret_place = entry->place;
    return true;
}
