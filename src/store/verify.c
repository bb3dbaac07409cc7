#include "store/image.h"
#include "store/parallel.h"
#include "store/private.h"
#include "store/volume.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

struct verify {
    struct store *store;
    void (*problem)(void *opaque, const char *message);
    void (*progress)(void *opaque, uint64_t done_bytes);
    void *opaque;
    pthread_mutex_t mutex; /* over the report while threads hash, and one problem at a time */
    struct verify_report report;
    struct id_set sound;  /* manifests that have been read and are right */
    struct id_set listed; /* in `objects` */
    struct object_id *objects;
    size_t count, capacity;
    unsigned shard;
};

static void complain(struct verify *verify, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void complain(struct verify *verify, const char *format, ...)
{
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&verify->mutex);
    verify->report.problems++;
    verify->problem(verify->opaque, message);
    pthread_mutex_unlock(&verify->mutex);
}

static int list_object(struct verify *verify, const struct object_id *id)
{
    bool is_new;
    int r = id_set_add(&verify->listed, id, &is_new);
    if (r < 0 || !is_new)
        return r;
    r = array_reserve(&verify->objects, verify->count + 1, &verify->capacity);
    if (r < 0)
        return r;
    verify->objects[verify->count++] = *id;
    return 0;
}

/* A manifest that `who` needs, and whether its objects are there with the sizes it says. */
static int follow(struct verify *verify, const char *who, const struct object_id *id)
{
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    if (id_set_has(&verify->sound, id))
        return 0;
    stamp_mark_verified(verify->store, verify->store->manifests, id, false); /* so that it is hashed now */
    int r = manifest_load(verify->store, id, &manifest);
    if (r < 0) {
        complain(verify, "%s: %s", who, fail_text());
        return 0;
    }
    verify->report.manifests++;
    for (uint64_t i = 0; i < manifest->object_count; i++) {
        struct object_id object;
        unsigned pages;
        bool verified;
        CLEANUP_FD int fd = -1;
        manifest_object(manifest, i, &object, &pages);
        if (object_open(verify->store, &object, pages, &fd, &verified) < 0)
            complain(verify, "%s: %s", who, fail_text());
        else if ((r = list_object(verify, &object)) < 0)
            return r;
    }
    return id_set_add(&verify->sound, id, NULL);
}

static int follow_name(struct verify *verify, const char *name, const struct object_id *manifest)
{
    verify->report.names++;
    return follow(verify, name, manifest);
}

static int follow_volume(void *opaque, const struct volume_listed *volume)
{
    struct verify *verify = opaque;
    if (volume->state == VOLUME_DAMAGED)
        complain(verify, "%s: the volume %s is damaged", *volume->path ? volume->path : verify->store->path,
                 volume->id);
    if (!*volume->path)
        return 0;
    verify->report.volumes++;
    return follow(verify, volume->path, &volume->manifest);
}

static int list_entry(void *opaque, const char *name)
{
    struct verify *verify = opaque;
    struct object_id id;
    char text[OBJECT_ID_TEXT + 1];
    snprintf(text, sizeof(text), "%02x%.*s", verify->shard, OBJECT_ID_TEXT - 2, name);
    if (object_id_parse(text, &id) == 0)
        return list_object(verify, &id);
    store_warn(verify->store, "%s/objects/%02x/%s: not the name of an object (delete it)",
               verify->store->path, verify->shard, name);
    return 0;
}

static int hash_one(void *opaque, uint64_t number)
{
    struct verify *verify = opaque;
    const struct object_id *id = &verify->objects[number];
    char path[SHARD_PATH_MAX];
    struct stat status;
    shard_path(id, path);
    CLEANUP_FREE void *buffer = malloc(STORE_OBJECT_BYTES);
    if (!buffer)
        return fail(-ENOMEM, "%s: no memory to verify an object", verify->store->path);
    if (fstatat(verify->store->objects, path, &status, AT_SYMLINK_NOFOLLOW) < 0)
        /* A gc at the same time: what names and volumes need has been opened already. */
        return errno == ENOENT ? 0 : fail_errno(-errno, "%s: object %s", verify->store->path, path);
    uint64_t pages = (uint64_t)status.st_size / STORE_PAGE;
    CLEANUP_FD int fd = -1;
    bool verified;
    if (!S_ISREG(status.st_mode) || status.st_size % STORE_PAGE || pages == 0 || pages > STORE_OBJECT_PAGES)
        complain(verify, "%s: object %s has an impossible size (delete it and import its image again)",
                 verify->store->path, path);
    else if (object_open(verify->store, id, (unsigned)pages, &fd, &verified) < 0 ||
             object_verify(verify->store, id, (unsigned)pages, fd, buffer) < 0)
        complain(verify, "%s", fail_text());
    pthread_mutex_lock(&verify->mutex);
    verify->report.objects++;
    verify->report.bytes += (uint64_t)status.st_size;
    if (verify->progress)
        verify->progress(verify->opaque, verify->report.bytes);
    pthread_mutex_unlock(&verify->mutex);
    return 0;
}

static int follow_all(struct verify *verify)
{
    CLEANUP_FREE struct ref *refs = NULL;
    size_t count = 0;
    int r = ref_list(verify->store, &refs, &count);
    for (size_t i = 0; r == 0 && i < count; i++) {
        if (refs[i].damaged && refs[i].has_length)
            complain(verify, "%s/refs/%s: damaged (stellarium rm %s removes it)", verify->store->path,
                     refs[i].name, refs[i].name);
        else if (!refs[i].damaged)
            r = follow_name(verify, refs[i].name, &refs[i].manifest);
    }
    if (r == 0)
        r = store_each_volume(verify->store, follow_volume, verify);
    for (verify->shard = 0; r == 0 && verify->shard < 256; verify->shard++) {
        char path[8];
        snprintf(path, sizeof(path), "%02x", verify->shard);
        r = each_entry(verify->store->objects, path, list_entry, verify);
    }
    return r;
}

int store_verify(struct store *store, const char *name, void (*problem)(void *opaque, const char *message),
                 void (*progress)(void *opaque, uint64_t done_bytes), void *opaque,
                 struct verify_report *ret_report)
{
    struct verify verify = {.store = store, .problem = problem, .progress = progress, .opaque = opaque};
    struct object_id manifest;
    pthread_mutex_init(&verify.mutex, NULL);
    int r = name ? ref_read(store, name, &manifest) : 0;
    if (r == 0)
        r = name ? follow_name(&verify, name, &manifest) : follow_all(&verify);
    if (r == 0)
        r = parallel(verify.count, hash_one, &verify);
    id_set_free(&verify.sound);
    id_set_free(&verify.listed);
    free(verify.objects);
    pthread_mutex_destroy(&verify.mutex);
    if (r == 0)
        *ret_report = verify.report;
    return r;
}
