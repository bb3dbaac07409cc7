#include "store/writer.h"
#include "store/private.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

/* Objects to one syncfs(): half a GiB of full ones. More would lose more to an interruption and hold more
 * descriptors (1,024 is the usual limit); a sync costs some milliseconds, which disappear in writing this
 * much. */
#define BATCH 256u

/* With more directories than this to make durable, one syncfs() is cheaper than an fsync() each. */
#define FSYNC_SHARDS_MAX 4u

struct staged {
    struct object_id id;
    struct staged_file
        file; /* open until it is synced: an error of writing back is reported to its descriptor */
};

struct batch {
    unsigned count;
    struct staged staged[BATCH];
};

struct store_writer {
    struct store *store;
    struct store_lease *lease;
    uint32_t epoch;
    pthread_mutex_t mutex; /* over everything below */
    struct batch *batch;
    struct id_set held;     /* found or staged by this writer: needs no second look */
    struct id_set corrupt;  /* found, and not matching its name */
    bool shard_dirty[256];  /* object directories whose entries we count on */
    bool objects_published; /* some have their names, */
    bool published;         /* and so has the manifest */
    struct writer_report report;
};

/* Deletes what writers that were killed have left. Without waiting: the next one may do it as well. */
static void remove_leftovers(struct store *store)
{
    CLEANUP_FD int lock = -1;
    uint64_t removed;
    if (store_lock(store, LOCK_EX | LOCK_NB, &lock) == 0)
        (void)leftovers_remove(store, false, &removed);
}

int writer_begin(struct store *store, struct store_writer **ret_writer)
{
    CLEANUP_FD int lock = -1;
    CLEANUP_FREE struct store_writer *writer = calloc(1, sizeof(*writer));
    CLEANUP_FREE struct batch *batch = calloc(1, sizeof(*batch));
    if (!writer || !batch)
        return fail(-ENOMEM, "%s: no memory to write", store->path);
    if (store->read_only)
        return fail(-EROFS, "%s: the store is read-only (is it mounted so, or owned by another user?)",
                    store->path);
    remove_leftovers(store);
    int r = store_lock(store, LOCK_SH, &lock);
    if (r == 0)
        r = epoch_read(store, &writer->epoch);
    if (r < 0)
        return r;
    char text[32];
    snprintf(text, sizeof(text), "epoch %u\n", writer->epoch);
    r = lease_create(store, text, &writer->lease);
    if (r < 0)
        return r;
    writer->store = store;
    writer->batch = ptr_steal(&batch);
    pthread_mutex_init(&writer->mutex, NULL);
    *ret_writer = ptr_steal(&writer);
    return 0;
}

void writer_drop(struct store_writer *writer, struct staged_file *file)
{
    cleanup_fd(&file->fd);
    unlinkat(writer->store->tmp, file->name, 0);
}

static void batch_drop(struct store_writer *writer, struct batch *batch, unsigned from)
{
    for (unsigned i = from; i < batch->count; i++)
        writer_drop(writer, &batch->staged[i].file);
    free(batch);
}

/* What a failed writer has put into the store is needed by nothing, unless another one has found it
 * meanwhile. */
static void give_back(struct store *store)
{
    char message[512];
    struct gc_report report;
    snprintf(message, sizeof(message), "%s", fail_text());
    (void)store_gc(store, false, &report);
    (void)fail(-EIO, "%s", message);
}

void writer_end(struct store_writer *writer)
{
    if (!writer)
        return;
    batch_drop(writer, writer->batch, 0);
    store_lease_end(writer->lease);
    if (writer->objects_published && !writer->published)
        give_back(writer->store);
    id_set_free(&writer->held);
    id_set_free(&writer->corrupt);
    pthread_mutex_destroy(&writer->mutex);
    free(writer);
}

static int hold(struct store_writer *writer, const struct object_id *id)
{
    pthread_mutex_lock(&writer->mutex);
    int r = id_set_add(&writer->held, id, NULL);
    writer->shard_dirty[id->bytes[0]] = true;
    pthread_mutex_unlock(&writer->mutex);
    return r;
}

/* Hashes an object that nobody in this boot has: 0 and whether it is good. */
static int examine(struct store_writer *writer, const struct object_id *id, unsigned pages, bool *ret_good)
{
    CLEANUP_FD int fd = -1;
    CLEANUP_FREE void *buffer = malloc(STORE_OBJECT_BYTES);
    bool verified;
    if (!buffer)
        return fail(-ENOMEM, "%s: no memory to verify an object", writer->store->path);
    int r = object_open(writer->store, id, pages, &fd, &verified);
    if (r == 0)
        r = object_verify(writer->store, id, pages, fd, buffer);
    *ret_good = r == 0;
    if (r == 0)
        return 0;
    pthread_mutex_lock(&writer->mutex);
    r = id_set_add(&writer->corrupt, id,
                   NULL); /* unreadable counts as corrupt: writing it again is the cure */
    pthread_mutex_unlock(&writer->mutex);
    return r;
}

int writer_has(struct store_writer *writer, const struct object_id *id, unsigned pages, bool *ret_has)
{
    pthread_mutex_lock(&writer->mutex);
    bool held = id_set_has(&writer->held, id);
    pthread_mutex_unlock(&writer->mutex);
    if (held) {
        *ret_has = true;
        return 0;
    }
    bool verified = false, good = true;
    int r = stamp_touch(writer->store, writer->store->objects, id, (uint64_t)pages * STORE_PAGE,
                        writer->epoch, &verified);
    if (r < 0)
        return r;
    if (r == 0) {
        *ret_has = false;
        return 0;
    }
    if (!verified) {
        r = examine(writer, id, pages, &good);
        if (r < 0)
            return r;
    }
    if (good) {
        r = hold(writer, id);
        if (r < 0)
            return r;
    }
    *ret_has = good;
    return 0;
}

int writer_hold(struct store_writer *writer, const struct manifest *manifest)
{
    bool verified, has = true;
    int r = stamp_touch(writer->store, writer->store->manifests, &manifest->id, manifest->length,
                        writer->epoch, &verified);
    if (r == 0)
        return fail(-ENODATA, "%s: a manifest is missing", writer->store->path);
    for (uint64_t i = 0; r > 0 && i < manifest->object_count; i++) {
        struct object_id id;
        unsigned pages;
        manifest_object(manifest, i, &id, &pages);
        int found = writer_has(writer, &id, pages, &has);
        if (found < 0 || !has) {
            char text[OBJECT_ID_TEXT];
            r = found < 0 ? found
                          : fail(-ENODATA, "%s: object %s is missing or corrupt (import its image again)",
                                 writer->store->path, object_id_text(&id, text));
        }
    }
    return MIN(r, 0);
}

int writer_create(struct store_writer *writer, bool direct, struct staged_file *ret_file)
{
    struct staged_file file;
    tmp_name(writer->lease->name, file.name);
    int flags = O_WRONLY | O_CREAT | O_EXCL;
    file.fd = sys_open(writer->store->tmp, file.name, flags | (direct ? O_DIRECT : 0), 0444);
    if (file.fd == -EINVAL &&
        direct) { /* no O_DIRECT here, as on tmpfs; the file may be there nevertheless */
        unlinkat(writer->store->tmp, file.name, 0);
        file.fd = sys_open(writer->store->tmp, file.name, flags, 0444);
    }
    if (file.fd < 0)
        return fail_errno(file.fd, "%s/tmp: cannot write an object", writer->store->path);
    *ret_file = file;
    return 0;
}

/* Under the final name, without replacing what is there, unless that is short or corrupt. */
static int publish_object(struct store_writer *writer, const struct staged *staged)
{
    struct store *store = writer->store;
    char path[SHARD_PATH_MAX];
    struct stat status;
    bool verified;
    shard_path(&staged->id, path);
    int r = sys_rename(store->tmp, staged->file.name, store->objects, path, RENAME_NOREPLACE);
    if (r != -EEXIST)
        return r;
    if (fstat(staged->file.fd, &status) < 0)
        return -errno;
    pthread_mutex_lock(&writer->mutex);
    bool corrupt = id_set_has(&writer->corrupt, &staged->id);
    pthread_mutex_unlock(&writer->mutex);
    r = corrupt ? 0
                : stamp_touch(store, store->objects, &staged->id, (uint64_t)status.st_size, writer->epoch,
                              &verified);
    if (r < 0)
        return r;
    return r == 1 ? sys_unlink(store->tmp, staged->file.name, 0)
                  : sys_rename(store->tmp, staged->file.name, store->objects, path, 0);
}

/* The barrier and the names. The batch is freed. */
static int batch_publish(struct store_writer *writer, struct batch *batch)
{
    int r = batch->count > 0 ? sys_syncfs(writer->store->root) : 0;
    unsigned done = 0;
    pthread_mutex_lock(&writer->mutex);
    writer->objects_published |= r == 0 && batch->count > 0;
    pthread_mutex_unlock(&writer->mutex);
    while (r == 0 && done < batch->count) {
        r = publish_object(writer, &batch->staged[done]);
        if (r == 0)
            cleanup_fd(&batch->staged[done++].file.fd);
    }
    batch_drop(writer, batch, done);
    return r < 0 ? fail_errno(r, "%s: cannot publish objects", writer->store->path) : 0;
}

int writer_stage(struct store_writer *writer, const struct object_id *id, struct staged_file *file)
{
    struct stat status;
    struct timespec stamp = stamp_verified(writer->store, id, writer->epoch);
    int r = fstat(file->fd, &status) < 0 ? -errno : sys_stamp(file->fd, NULL, &stamp);
    if (r < 0) {
        writer_drop(writer, file);
        return fail_errno(r, "%s/tmp/%s", writer->store->path, file->name);
    }
    struct batch *full = NULL;
    pthread_mutex_lock(&writer->mutex);
    writer->batch->staged[writer->batch->count++] = (struct staged){.id = *id, .file = *file};
    if (writer->batch->count == BATCH) {
        struct batch *fresh = calloc(1, sizeof(*fresh));
        CHECK(fresh); /* 26 KiB: a process that cannot get them has lost already */
        full = writer->batch;
        writer->batch = fresh;
    }
    writer->report.objects_new++;
    writer->report.bytes_new += (uint64_t)status.st_size;
    pthread_mutex_unlock(&writer->mutex);
    r = hold(writer, id);
    int published = full ? batch_publish(writer, full) : 0;
    return r < 0 ? r : published;
}

/* Makes the entries of every object directory that we count on durable. */
static int sync_shards(struct store_writer *writer, bool *ret_all)
{
    unsigned dirty = 0;
    for (unsigned i = 0; i < 256; i++)
        dirty += writer->shard_dirty[i];
    *ret_all = dirty > FSYNC_SHARDS_MAX;
    if (dirty > FSYNC_SHARDS_MAX)
        return sys_syncfs(writer->store->root);
    for (unsigned i = 0; i < 256; i++) {
        char path[8];
        if (!writer->shard_dirty[i])
            continue;
        snprintf(path, sizeof(path), "%02x", i);
        int r = directory_sync(writer->store->objects, path);
        if (r < 0)
            return r;
    }
    return 0;
}

static int sync_manifest_shard(struct store *store, const char *path)
{
    char shard[3] = {path[0], path[1], '\0'};
    return directory_sync(store->manifests, shard);
}

/* Whether the manifest that is there is this one: not verified in this boot, but right. It is left in place
 * then, as a reader may have locked it. */
static bool is_same_manifest(struct store *store, const char *path, const struct manifest *manifest)
{
    CLEANUP_FREE uint8_t *bytes = malloc(manifest->length);
    CLEANUP_FD int fd = openat(store->manifests, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return bytes && fd >= 0 && read_full_at(fd, bytes, manifest->length, 0) == 0 &&
           memcmp(bytes, manifest->bytes, manifest->length) == 0 && sys_fsync(fd) == 0;
}

static int publish_manifest(struct store_writer *writer, const struct manifest *manifest)
{
    struct store *store = writer->store;
    char path[SHARD_PATH_MAX];
    bool verified = false, synced;
    shard_path(&manifest->id, path);
    int r = stamp_touch(store, store->manifests, &manifest->id, manifest->length, writer->epoch, &verified);
    if (r < 0)
        return r;
    if (r == 1 && (verified || is_same_manifest(store, path, manifest))) {
        r = sync_shards(writer, &synced);
        return r < 0 ? r : sync_manifest_shard(store, path);
    }
    struct staged_file file = {.fd = -1};
    r = writer_create(writer, false, &file);
    if (r < 0)
        return r;
    struct timespec stamp = stamp_verified(store, &manifest->id, writer->epoch);
    r = sys_write(file.fd, manifest->bytes, manifest->length, 0);
    if (r == 0)
        r = sys_stamp(file.fd, NULL, &stamp);
    if (r == 0)
        r = sync_shards(writer, &synced);
    if (r == 0 && !synced)
        r = sys_fsync(file.fd);
    if (r == 0) /* what is there under this name, if anything, is not known to be right: replaced */
        r = sys_rename(store->tmp, file.name, store->manifests, path, 0);
    if (r < 0)
        unlinkat(store->tmp, file.name, 0);
    cleanup_fd(&file.fd);
    return r < 0 ? r : sync_manifest_shard(store, path);
}

int writer_publish(struct store_writer *writer, const struct manifest *manifest, const char *name)
{
    struct store *store = writer->store;
    int r = ref_check_name(name);
    if (r < 0)
        return r;
    struct batch *last = writer->batch;
    writer->batch = calloc(1, sizeof(*writer->batch));
    if (!writer->batch) {
        writer->batch = last;
        return fail(-ENOMEM, "%s: no memory to publish", store->path);
    }
    r = batch_publish(writer, last);
    if (r < 0)
        return r;
    r = publish_manifest(writer, manifest);
    if (r < 0)
        return fail_errno(r, "%s: cannot publish the manifest of %s", store->path, name);
    writer->published = true;
    CLEANUP_FD int lock = -1;
    char text[OBJECT_ID_TEXT], line[OBJECT_ID_TEXT + 1];
    snprintf(line, sizeof(line), "%s\n", object_id_text(&manifest->id, text));
    r = store_lock(store, LOCK_SH, &lock);
    if (r < 0)
        return r;
    r = text_publish(store, store->refs, name, line);
    return r < 0 ? fail_errno(r, "%s/refs/%s", store->path, name) : 0;
}

struct writer_report writer_report(const struct store_writer *writer)
{
    return writer->report;
}
