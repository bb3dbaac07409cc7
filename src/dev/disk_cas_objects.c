#include "dev/disk_cas_internal.h"

#include "base/log.h"
#include <sys/resource.h>

struct verification {
    struct loop_op op;
    struct disk_objects *objects;
    struct object_file *file;
    struct object_id id;
    struct object_hasher *hasher;
    uint64_t done, length; /* bytes */
    struct io_queue waiting;
    uint8_t piece[VERIFY_PIECE];
};

int io_queue_add(struct io_queue *queue, struct disk_io *io)
{
    if (queue->count == queue->capacity) {
        unsigned capacity = queue->capacity ? 2 * queue->capacity : 8;
        struct disk_io **items = realloc(queue->items, capacity * sizeof(struct disk_io *));
        if (!items)
            return fail(-ENOMEM, "no memory to queue a disk request");
        queue->items = items;
        queue->capacity = capacity;
    }
    queue->items[queue->count++] = io;
    return 0;
}

static void close_evicted(struct loop_prepare *prepare)
{
    struct disk_objects *objects = container_of(prepare, struct disk_objects, prepare);
    for (unsigned i = 0; i < objects->closing_count[1]; i++)
        cleanup_fd(&objects->closing[1][i]);
    for (unsigned i = 0; i < objects->closing_count[0]; i++)
        objects->closing[1][i] = objects->closing[0][i];
    objects->closing_count[1] = objects->closing_count[0];
    objects->closing_count[0] = 0;
}

/* As many files as a quarter of what the process may have open, having asked for more. */
static unsigned allowed_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 64;
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit more = {.rlim_cur =
                                  MIN(limit.rlim_max, (rlim_t)(limit.rlim_cur + 4 * OBJECT_FILES_MAX)),
                              .rlim_max = limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &more) == 0)
            limit = more;
    }
    return (unsigned)MAX(MIN(limit.rlim_cur / 4, (rlim_t)OBJECT_FILES_MAX), (rlim_t)64);
}

int disk_objects_init(struct disk_objects *objects, struct loop *loop, struct store *store,
                      const struct manifest *manifest)
{
    *objects = (struct disk_objects){.loop = loop, .store = store, .manifest = manifest};
    size_t count = (size_t)manifest->object_count + 1; /* + 1: an image may have none */
    objects->file_count = (unsigned)MIN((uint64_t)allowed_files(), count);
    objects->files = calloc(objects->file_count, sizeof(*objects->files));
    objects->file_of = calloc(count, sizeof(*objects->file_of));
    objects->good = calloc((count + 7) / 8, 1);
    if (!objects->files || !objects->file_of || !objects->good) {
        disk_objects_free(objects);
        return fail(-ENOMEM, "no memory for a disk of %zu objects", count);
    }
    for (unsigned i = 0; i < objects->file_count; i++)
        objects->files[i].fd = -1;
    fd_reserve(objects->file_count);
    objects->prepare.run = close_evicted;
    loop_prepare_add(loop, &objects->prepare);
    return 0;
}

void disk_objects_free(struct disk_objects *objects)
{
    if (objects->prepare.run)
        loop_prepare_remove(objects->loop, &objects->prepare);
    for (unsigned i = 0; objects->files && i < objects->file_count; i++)
        cleanup_fd(&objects->files[i].fd);
    for (unsigned list = 0; list < 2; list++)
        for (unsigned i = 0; i < objects->closing_count[list]; i++)
            cleanup_fd(&objects->closing[list][i]);
    free(objects->files);
    free(objects->file_of);
    free(objects->good);
    *objects = (struct disk_objects){0};
}

/* The clock algorithm over files; NULL if all are being verified or no more can be evicted in this turn. */
static struct object_file *take_file(struct disk_objects *objects)
{
    for (unsigned steps = 0; steps < 2 * objects->file_count; steps++) {
        struct object_file *file = &objects->files[objects->hand];
        objects->hand = (objects->hand + 1) % objects->file_count;
        if (file->state == OBJECT_ABSENT)
            return file;
        if (file->state == OBJECT_VERIFYING)
            continue;
        if (file->used) {
            file->used = false;
            continue;
        }
        if (file->fd >= 0) {
            if (objects->closing_count[0] == ARRAY_SIZE(objects->closing[0]))
                return NULL;
            objects->closing[0][objects->closing_count[0]++] = fd_steal(&file->fd);
        }
        objects->file_of[file->object] = 0;
        file->state = OBJECT_ABSENT;
        return file;
    }
    return NULL;
}

static bool known_good(const struct disk_objects *objects, uint32_t object)
{
    return objects->good[object / 8] >> (object % 8) & 1;
}

static void verification_end(struct verification *verification, int result)
{
    struct disk_objects *objects = verification->objects;
    struct object_file *file = verification->file;
    struct object_id actual;
    object_hasher_end(verification->hasher, &actual);
    if (result == 0) {
        bool good = object_id_equal(&actual, &verification->id);
        object_mark_verified(objects->store, &verification->id, good);
        if (!good)
            result = -EBADMSG;
    }
    file->verification = NULL;
    file->state = result == 0 ? OBJECT_GOOD : OBJECT_BAD;
    if (result == 0) {
        objects->good[file->object / 8] |= (uint8_t)(1u << (file->object % 8));
    } else {
        char text[OBJECT_ID_TEXT];
        log_warn("object %s of %s %s: the guest gets I/O errors (stellarium verify)",
                 object_id_text(&verification->id, text), store_path(objects->store),
                 result == -EBADMSG ? "is corrupt" : "cannot be read");
    }
    objects->verifying--;
    for (unsigned i = 0; i < verification->waiting.count; i++)
        objects->resume(objects->owner, verification->waiting.items[i]);
    free(verification->waiting.items);
    free(verification);
}

static void read_piece(struct verification *verification)
{
    uint64_t length = MIN(verification->length - verification->done, (uint64_t)VERIFY_PIECE);
    loop_read(verification->objects->loop, &verification->op, verification->file->fd, verification->piece,
              (uint32_t)length, verification->done);
}

static void piece_done(struct loop_op *op, int result, unsigned flags)
{
    struct verification *verification = container_of(op, struct verification, op);
    (void)flags;
    if (result > 0) {
        object_hasher_update(verification->hasher, verification->piece, (size_t)result);
        verification->done += (uint64_t)result;
    }
    if (verification->done == verification->length)
        verification_end(verification, 0);
    else if (result > 0 || result == -EINTR)
        read_piece(verification);
    else
        verification_end(verification, result < 0 ? result : -EIO);
}

static int verification_begin(struct disk_objects *objects, struct object_file *file,
                              const struct object_id *id, unsigned pages)
{
    struct verification *verification = malloc(sizeof(*verification));
    if (!verification)
        return fail(-ENOMEM, "no memory to verify an object");
    *verification = (struct verification){.op.done = piece_done,
                                          .objects = objects,
                                          .file = file,
                                          .id = *id,
                                          .length = (uint64_t)pages * STORE_PAGE};
    int r = object_hasher_begin(&verification->hasher);
    if (r < 0) {
        free(verification);
        return r;
    }
    file->state = OBJECT_VERIFYING;
    file->verification = verification;
    objects->verifying++;
    read_piece(verification);
    return 0;
}

/* Opens an object into a free file. One that cannot be opened is remembered as bad: not asked for at each
 * request. */
static int open_file(struct disk_objects *objects, struct object_file *file, uint32_t object)
{
    struct object_id id;
    unsigned pages;
    bool verified;
    manifest_object(objects->manifest, object, &id, &pages);
    int r = object_open(objects->store, &id, pages, &file->fd, &verified);
    file->object = object;
    file->state = OBJECT_BAD;
    if (r < 0)
        log_warn("%s: the guest gets I/O errors", fail_text());
    else if (verified || known_good(objects, object))
        file->state = OBJECT_GOOD;
    else
        r = verification_begin(objects, file, &id, pages);
    objects->file_of[object] = (uint16_t)(file - objects->files + 1);
    return r;
}

/* Every file is being verified: this request waits for one of them like those that need it. */
static int wait_for_any(struct disk_objects *objects, struct disk_io *io)
{
    for (unsigned i = 0; i < objects->file_count; i++)
        if (objects->files[i].state == OBJECT_VERIFYING)
            return io_queue_add(&objects->files[i].verification->waiting, io);
    return fail(-EMFILE, "too many objects in one turn of the loop");
}

int disk_objects_get(struct disk_objects *objects, uint32_t object, struct disk_io *io, int *ret_fd)
{
    struct object_file *file =
        objects->file_of[object] ? &objects->files[objects->file_of[object] - 1] : NULL;
    if (!file) {
        file = take_file(objects);
        if (!file)
            return wait_for_any(objects, io);
        int r = open_file(objects, file, object);
        if (r < 0)
            return r;
    }
    file->used = true;
    if (file->state == OBJECT_VERIFYING)
        return io_queue_add(&file->verification->waiting, io);
    if (file->state == OBJECT_BAD)
        return fail(-EIO, "an object is bad");
    *ret_fd = file->fd;
    return 1;
}
