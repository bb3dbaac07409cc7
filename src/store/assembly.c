#include "store/assembly.h"
#include "store/private.h"

#include <string.h>

/* How far regions may be finished ahead of the oldest unfinished one: bounds the memory in waiting plans. */
#define WINDOW 64u

struct pack {
    struct pack *next;
    uint32_t object; /* its number in the builder */
    unsigned pages;
    uint8_t *data;
};

struct assembly {
    struct store_writer *writer;
    const struct ingest_options *options;
    uint64_t region_count;
    pthread_mutex_t mutex; /* over everything below */
    pthread_cond_t moved;
    uint64_t region_next; /* to be handed out */
    uint64_t region_done; /* all before it are in the builder */
    struct region_plan *waiting[WINDOW];
    struct manifest_builder *builder;
    uint32_t **base_numbers; /* of each base's objects, in the builder; UINT32_MAX: none yet */
    struct pack *pack;       /* being filled, or NULL */
    int result;
    char message[256];
};

int assembly_new(struct store_writer *writer, const struct ingest_options *options, uint64_t image_bytes,
                 struct assembly **ret_assembly)
{
    struct assembly *assembly = calloc(1, sizeof(*assembly));
    if (!assembly)
        return fail(-ENOMEM, "no memory to put an image together");
    assembly->writer = writer;
    assembly->options = options;
    assembly->region_count = align_up(image_bytes, STORE_OBJECT_BYTES) / STORE_OBJECT_BYTES;
    pthread_mutex_init(&assembly->mutex, NULL);
    pthread_cond_init(&assembly->moved, NULL);
    int r = manifest_builder_new(image_bytes, &assembly->builder);
    assembly->base_numbers = calloc(options->base_count + 1, sizeof(*assembly->base_numbers));
    for (unsigned i = 0; r == 0 && assembly->base_numbers && i < options->base_count; i++) {
        size_t bytes = (size_t)(options->bases[i]->object_count + 1) * sizeof(**assembly->base_numbers);
        assembly->base_numbers[i] = malloc(bytes);
        if (!assembly->base_numbers[i])
            r = fail(-ENOMEM, "no memory to put an image together");
        else
            memset(assembly->base_numbers[i], 0xff, bytes);
    }
    if (r < 0 || !assembly->base_numbers) {
        assembly_free(assembly);
        return r < 0 ? r : fail(-ENOMEM, "no memory to put an image together");
    }
    *ret_assembly = assembly;
    return 0;
}

static void pack_free(struct pack *pack)
{
    if (pack)
        free(pack->data);
    free(pack);
}

static void plan_free(struct region_plan *plan)
{
    if (plan)
        free(plan->rest);
    free(plan);
}

void assembly_free(struct assembly *assembly)
{
    if (!assembly)
        return;
    for (unsigned i = 0; i < WINDOW; i++)
        plan_free(assembly->waiting[i]);
    for (unsigned i = 0; assembly->base_numbers && i < assembly->options->base_count; i++)
        free(assembly->base_numbers[i]);
    free(assembly->base_numbers);
    pack_free(assembly->pack);
    manifest_builder_free(assembly->builder);
    pthread_cond_destroy(&assembly->moved);
    pthread_mutex_destroy(&assembly->mutex);
    free(assembly);
}

int assembly_next(struct assembly *assembly, bool wait, uint64_t *ret_region)
{
    pthread_mutex_lock(&assembly->mutex);
    while (wait && assembly->result == 0 && assembly->region_next < assembly->region_count &&
           assembly->region_next >= assembly->region_done + WINDOW)
        pthread_cond_wait(&assembly->moved, &assembly->mutex);
    int r = 0;
    if (assembly->result == 0 && assembly->region_next < assembly->region_count) {
        r = assembly->region_next < assembly->region_done + WINDOW ? 1 : -EAGAIN;
        if (r == 1)
            *ret_region = assembly->region_next++;
    }
    pthread_mutex_unlock(&assembly->mutex);
    return r;
}

static void fail_locked(struct assembly *assembly, int negative_errno)
{
    if (assembly->result == 0) {
        assembly->result = negative_errno;
        strncpy(assembly->message, fail_text(), sizeof(assembly->message) - 1);
    }
    pthread_cond_broadcast(&assembly->moved);
}

void assembly_fail(struct assembly *assembly, int negative_errno)
{
    pthread_mutex_lock(&assembly->mutex);
    fail_locked(assembly, negative_errno);
    pthread_mutex_unlock(&assembly->mutex);
}

int assembly_result(struct assembly *assembly)
{
    pthread_mutex_lock(&assembly->mutex);
    int r = assembly->result < 0 ? fail(assembly->result, "%s", assembly->message) : 0;
    pthread_mutex_unlock(&assembly->mutex);
    return r;
}

uint64_t assembly_done(struct assembly *assembly)
{
    pthread_mutex_lock(&assembly->mutex);
    uint64_t done = assembly->region_done;
    pthread_mutex_unlock(&assembly->mutex);
    return done;
}

/* Room for `pages` in the pack being filled; a full one goes to *full, to be written outside the lock. */
static int pack_room(struct assembly *assembly, unsigned pages, struct pack **full)
{
    if (assembly->pack && assembly->pack->pages + pages > STORE_OBJECT_PAGES) {
        assembly->pack->next = *full;
        *full = ptr_steal(&assembly->pack);
    }
    if (assembly->pack)
        return 0;
    struct pack *pack = calloc(1, sizeof(*pack));
    if (pack)
        pack->data = aligned_alloc(STORE_PAGE, STORE_OBJECT_BYTES);
    if (!pack || !pack->data) {
        pack_free(pack);
        return fail(-ENOMEM, "no memory to pack pages");
    }
    int r = manifest_builder_object(assembly->builder, &pack->object);
    if (r < 0) {
        pack_free(pack);
        return r;
    }
    assembly->pack = pack;
    return 0;
}

static int base_number(struct assembly *assembly, const struct piece *piece, uint32_t *ret_number)
{
    uint32_t *number = &assembly->base_numbers[piece->base][piece->object];
    if (*number == UINT32_MAX) {
        struct object_id id;
        unsigned pages;
        int r = manifest_builder_object(assembly->builder, number);
        if (r < 0)
            return r;
        manifest_object(assembly->options->bases[piece->base], piece->object, &id, &pages);
        manifest_builder_name(assembly->builder, *number, &id, pages);
    }
    *ret_number = *number;
    return 0;
}

/* Adds one region to the manifest. */
static int append(struct assembly *assembly, const struct region_plan *plan, struct pack **full)
{
    uint32_t new_number = 0;
    unsigned new_at = 0;
    int r = 0;
    if (plan->own) {
        r = manifest_builder_object(assembly->builder, &new_number);
        if (r == 0)
            manifest_builder_name(assembly->builder, new_number, &plan->id, plan->new_pages);
    } else if (plan->new_pages > 0) {
        r = pack_room(assembly, plan->new_pages, full);
        if (r == 0) {
            new_number = assembly->pack->object;
            new_at = assembly->pack->pages;
            memcpy(assembly->pack->data + (size_t)new_at * STORE_PAGE, plan->rest,
                   (size_t)plan->new_pages * STORE_PAGE);
            assembly->pack->pages += plan->new_pages;
        }
    }
    for (unsigned i = 0; r == 0 && i < plan->piece_count; i++) {
        const struct piece *piece = &plan->pieces[i];
        uint32_t number = new_number;
        unsigned at = new_at + piece->at;
        if (piece->kind == PIECE_BASE) {
            r = base_number(assembly, piece, &number);
            at = piece->at;
        }
        if (r == 0)
            r = manifest_builder_add(assembly->builder, plan->first_page + piece->page, piece->pages, number,
                                     at);
    }
    return r;
}

int write_object(struct store_writer *writer, const struct object_id *id, const void *data, unsigned pages)
{
    bool has;
    int r = writer_has(writer, id, pages, &has);
    if (r < 0 || has)
        return r;
    struct staged_file file;
    r = writer_create(writer, true, &file);
    if (r < 0)
        return r;
    r = sys_write(file.fd, data, (size_t)pages * STORE_PAGE, 0);
    if (r < 0) {
        writer_drop(writer, &file);
        return fail_errno(r, "cannot write an object to the store");
    }
    return writer_stage(writer, id, &file);
}

static int pack_write(struct assembly *assembly, struct pack *pack)
{
    struct object_id id;
    object_hash(pack->data, (size_t)pack->pages * STORE_PAGE, &id);
    int r = write_object(assembly->writer, &id, pack->data, pack->pages);
    pthread_mutex_lock(&assembly->mutex);
    manifest_builder_name(assembly->builder, pack->object, &id, pack->pages);
    pthread_mutex_unlock(&assembly->mutex);
    pack_free(pack);
    return r;
}

int assembly_put(struct assembly *assembly, uint64_t region, struct region_plan *plan)
{
    struct pack *full = NULL;
    int r = 0;
    pthread_mutex_lock(&assembly->mutex);
    assembly->waiting[region % WINDOW] = plan;
    while (assembly->waiting[assembly->region_done % WINDOW]) {
        struct region_plan *next = ptr_steal(&assembly->waiting[assembly->region_done % WINDOW]);
        if (r == 0)
            r = append(assembly, next, &full);
        plan_free(next);
        assembly->region_done++;
    }
    pthread_cond_broadcast(&assembly->moved);
    pthread_mutex_unlock(&assembly->mutex);
    while (full) {
        struct pack *pack = full;
        full = pack->next;
        int written = pack_write(assembly, pack);
        r = r < 0 ? r : written;
    }
    return r;
}

int assembly_finish(struct assembly *assembly, struct manifest **ret_manifest)
{
    CHECK(assembly->region_done == assembly->region_count);
    int r = assembly->pack ? pack_write(assembly, ptr_steal(&assembly->pack)) : 0;
    return r < 0 ? r : manifest_builder_finish(assembly->builder, ret_manifest);
}
