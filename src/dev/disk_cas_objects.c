#include "dev/disk_cas_internal.h"

#include "base/log.h"
#include <sys/resource.h>

/* An object that nothing in this boot has verified is read and hashed in pieces of this size before its first
 * use: 40 us of the loop's time each (1.6 GB/s), between which other queues have their turn. */
#define VERIFY_PIECE (64u * 1024)

/* Evicted descriptors are closed so many at a time: before that, what was started with them is handed to the
 * kernel, which is a system call. */
#define CLOSE_BATCH 64u

/* What the process opens besides objects: devices, vCPUs, disks, connections. */
#define OTHER_FILES 512u

enum object_state {
    OBJECT_GOOD,
    OBJECT_VERIFYING, /* requests wait in its verification */
    OBJECT_BAD,       /* until it is evicted */
};

struct object_file {
    struct disk_objects *disk;     /* NULL: this row of the table is free */
    struct object_file *next_free; /* if it is */
    uint32_t object;
    int fd; /* -1 if it could not be opened */
    enum object_state state;
    bool used; /* since the clock hand last came by */
    struct verification *verification;
};

struct verification {
    struct loop_op op;
    struct object_file *file;
    struct object_id id;
    struct object_hasher *hasher;
    uint64_t done, length; /* bytes */
    struct disk_queue waiting;
    uint8_t piece[VERIFY_PIECE];
};

/* The loop thread's. Memory is touched for as many rows as were ever in use. */
static struct {
    struct object_file files[OBJECT_FILES_MAX], *free;
    unsigned limit, count, hand; /* rows that may be used, and that have been */
    int closing[OBJECT_FILES_MAX];
    unsigned closing_count;
} table;

/* --- the limit of open files --- */

static rlim_t file_limit(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) < 0 ? 1024 : limit.rlim_cur;
}

/* Three quarters of few files, all but OTHER_FILES of many. */
static unsigned allowed_objects(void)
{
    rlim_t files = file_limit();
    rlim_t objects = files - MIN(files / 4, (rlim_t)OTHER_FILES);
    return (unsigned)MIN(MAX(objects, (rlim_t)8), (rlim_t)OBJECT_FILES_MAX);
}

static void ask_for_more_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= OBJECT_FILES_MAX + OTHER_FILES)
        return;
    limit.rlim_cur = MIN(limit.rlim_max, (rlim_t)(OBJECT_FILES_MAX + OTHER_FILES));
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* what there is has to do otherwise */
}

/* An error that says nothing of the object, and that may be over at the next request. */
static bool is_shortage(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM;
}

/* --- the table --- */

static void close_evicted(struct loop *loop)
{
    if (table.closing_count == 0 || !loop_submit(loop))
        return;
    for (unsigned i = 0; i < table.closing_count; i++)
        cleanup_fd(&table.closing[i]);
    table.closing_count = 0;
}

static void free_row(struct object_file *file)
{
    file->disk = NULL;
    file->next_free = table.free;
    table.free = file;
}

/* Nothing is in flight with the descriptor. */
static void drop(struct object_file *file)
{
    cleanup_fd(&file->fd);
    file->disk->file_of[file->object] = 0;
    free_row(file);
}

/* A request with the descriptor may be started and not yet be with the kernel: it is closed later. */
static void evict(struct object_file *file)
{
    if (file->fd >= 0)
        table.closing[table.closing_count++] = fd_steal(&file->fd);
    drop(file);
}

/* The clock algorithm: false if all are being verified, or wait to be closed. */
static bool evict_one(void)
{
    for (unsigned steps = 0; steps < 2 * table.count && table.closing_count < OBJECT_FILES_MAX; steps++) {
        struct object_file *file = &table.files[table.hand];
        table.hand = (table.hand + 1) % table.count;
        if (!file->disk || file->state == OBJECT_VERIFYING)
            continue;
        if (file->used) {
            file->used = false;
            continue;
        }
        evict(file);
        return true;
    }
    return false;
}

/* Sees to it that there is a free row of the table. */
static bool find_row(struct loop *loop)
{
    if (table.closing_count >= CLOSE_BATCH)
        close_evicted(loop);
    if (!table.free && table.count < table.limit)
        free_row(&table.files[table.count++]);
    if (!table.free)
        (void)evict_one();
    return table.free != NULL;
}

/* The process has no descriptors left: a batch of ours goes. */
static void give_files_back(struct loop *loop)
{
    unsigned count = 0;
    while (count < CLOSE_BATCH && evict_one())
        count++;
    close_evicted(loop);
}

int disk_objects_init(struct disk_objects *objects, struct store *store, const struct manifest *manifest)
{
    size_t count = (size_t)manifest->object_count + 1; /* + 1: an image may have none */
    *objects = (struct disk_objects){.store = store, .manifest = manifest};
    objects->file_of = calloc(count, sizeof(*objects->file_of));
    objects->good = calloc((count + 7) / 8, 1);
    if (!objects->file_of || !objects->good) {
        disk_objects_free(objects);
        return fail(-ENOMEM, "no memory for a disk of %zu objects", count);
    }
    ask_for_more_files();
    fd_reserve((unsigned)MIN(count, (size_t)allowed_objects()));
    return 0;
}

void disk_objects_attach(struct disk_objects *objects, struct loop *loop)
{
    objects->loop = loop;
    table.limit = allowed_objects();
}

void disk_objects_copied(struct disk_objects *objects)
{
    for (unsigned i = 0; i < table.count; i++)
        if (table.files[i].disk == objects) {
            CHECK(table.files[i].state != OBJECT_VERIFYING);
            table.files[i].fd = -1;
            drop(&table.files[i]);
        }
    table.closing_count = 0;
    objects->loop = NULL;
}

void disk_objects_free(struct disk_objects *objects)
{
    for (unsigned i = 0; objects->loop && i < table.count; i++) {
        if (table.files[i].disk == objects) {
            CHECK(table.files[i].state != OBJECT_VERIFYING);
            drop(&table.files[i]);
        }
    }
    free(objects->file_of);
    free(objects->good);
    *objects = (struct disk_objects){0};
}

/* --- verification --- */

static void verification_end(struct verification *verification, int result)
{
    struct object_file *file = verification->file;
    struct disk_objects *objects = file->disk;
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
        if (is_shortage(result))
            drop(file);
    }
    for (unsigned i = 0; i < verification->waiting.count; i++)
        disk_cas_resume(verification->waiting.items[i], result);
    free(verification->waiting.items);
    free(verification);
}

static void read_piece(struct verification *verification)
{
    const struct object_file *file = verification->file;
    uint64_t length = MIN(verification->length - verification->done, (uint64_t)VERIFY_PIECE);
    loop_read(file->disk->loop, &verification->op, file->fd, verification->piece, (uint32_t)length,
              verification->done);
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

static int verification_begin(struct object_file *file, const struct object_id *id, unsigned pages)
{
    struct verification *verification = malloc(sizeof(*verification));
    if (!verification)
        return fail(-ENOMEM, "no memory to verify an object");
    *verification = (struct verification){
        .op.done = piece_done, .file = file, .id = *id, .length = (uint64_t)pages * STORE_PAGE};
    int r = object_hasher_begin(&verification->hasher);
    if (r < 0) {
        free(verification);
        return r;
    }
    file->state = OBJECT_VERIFYING;
    file->verification = verification;
    read_piece(verification);
    return 0;
}

/* --- asking for an object --- */

static bool known_good(const struct disk_objects *objects, uint32_t object)
{
    return objects->good[object / 8] >> (object % 8) & 1;
}

static int open_object(struct disk_objects *objects, const struct object_id *id, unsigned pages, int *ret_fd,
                       bool *ret_verified)
{
    int r = object_open(objects->store, id, pages, ret_fd, ret_verified);
    if (r == -EMFILE || r == -ENFILE) {
        give_files_back(objects->loop);
        r = object_open(objects->store, id, pages, ret_fd, ret_verified);
    }
    return r;
}

/* Opens an object into a free row of the table. One that cannot be opened is remembered as bad, so that not
 * every request asks for it; but not for a shortage. */
static int open_row(struct disk_objects *objects, uint32_t object, struct object_file **ret_file)
{
    struct object_id id;
    unsigned pages;
    bool verified = false;
    int fd = -1;
    manifest_object(objects->manifest, object, &id, &pages);
    int r = open_object(objects, &id, pages, &fd, &verified);
    if (r < 0)
        log_warn("%s: the guest gets I/O errors", fail_text());
    if (is_shortage(r))
        return r;
    struct object_file *file = table.free;
    table.free = file->next_free;
    *file = (struct object_file){.disk = objects, .object = object, .fd = fd, .state = OBJECT_BAD};
    objects->file_of[object] = (uint16_t)(file - table.files + 1);
    if (r < 0)
        return r;
    if (verified || known_good(objects, object))
        file->state = OBJECT_GOOD;
    else
        r = verification_begin(file, &id, pages);
    if (r < 0) {
        drop(file);
        return r;
    }
    *ret_file = file;
    return 0;
}

/* Every row is being verified: this request waits for one of them like those that need it. */
static int wait_for_any(struct disk_io *io)
{
    for (unsigned i = 0; i < table.count; i++)
        if (table.files[i].disk && table.files[i].state == OBJECT_VERIFYING)
            return disk_queue_add(&table.files[i].verification->waiting, io);
    return fail(-EMFILE, "too many objects in one turn of the loop");
}

int disk_objects_get(struct disk_objects *objects, uint32_t object, struct disk_io *io, int *ret_fd)
{
    struct object_file *file = objects->file_of[object] ? &table.files[objects->file_of[object] - 1] : NULL;
    if (!file) {
        if (!find_row(objects->loop))
            return wait_for_any(io);
        int r = open_row(objects, object, &file);
        if (r < 0)
            return r;
    }
    file->used = true;
    if (file->state == OBJECT_VERIFYING)
        return disk_queue_add(&file->verification->waiting, io);
    if (file->state == OBJECT_BAD)
        return fail(-EIO, "an object is bad");
    *ret_fd = file->fd;
    return 1;
}
