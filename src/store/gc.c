#include "store/manifest.h"
#include "store/private.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

struct gc {
    struct store *store;
    bool dry_run;
    uint32_t
        oldest; /* the epoch of the oldest live writer, or the new one: what bears it or a later one stays */
    struct id_set manifests, objects; /* reachable */
    struct gc_report report;
    int shard; /* being swept */
    const struct id_set *keep;
    uint64_t *kept, *deleted;
};

static int remove_entry(struct gc *gc, int directory, const char *name)
{
    int r = gc->dry_run ? 0 : sys_unlink(directory, name, 0);
    return r < 0 && r != -ENOENT ? fail_errno(r, "%s: cannot delete %s", gc->store->path, name) : 0;
}

/* A clone holds STORE/lock while it lasts, so one that is half made now never will be more. A volume that is
 * simply not at its path may have been moved, or its disk may not be mounted: that one keeps what it needs.
 */
static bool clone_was_interrupted(const struct volume_entry *entry)
{
    CLEANUP_FD int directory = open(entry->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return directory >= 0 && faccessat(directory, "volume.json", F_OK, 0) != 0 &&
           faccessat(directory, "volume.json.new", F_OK, 0) == 0;
}

static int root_volume(void *opaque, const char *name)
{
    struct gc *gc = opaque;
    struct volume_entry entry;
    int r = volume_entry_read(gc->store, name, &entry);
    if (r == -ENOENT || (r == 0 && clone_was_interrupted(&entry)))
        return remove_entry(gc, gc->store->volumes, name);
    return r < 0 ? r : id_set_add(&gc->manifests, &entry.manifest, NULL);
}

static int root_lease(void *opaque, const char *name)
{
    struct gc *gc = opaque;
    if (!lease_is_live(gc->store, name))
        return remove_entry(gc, gc->store->leases, name);
    char text[OBJECT_ID_TEXT + 16];
    int r = text_read(gc->store->leases, name, text, sizeof(text));
    if (r == -ENOENT) /* ended since it was asked */
        return 0;
    if (r < 0)
        return fail_errno(r, "%s/leases/%s", gc->store->path, name);
    char *end = strchr(text, '\n');
    struct object_id manifest;
    unsigned epoch;
    if (end)
        *end = '\0';
    if (end && sscanf(text, "epoch %u", &epoch) == 1) {
        gc->oldest = MIN(gc->oldest, epoch);
        return 0;
    }
    if (end && strncmp(text, "manifest ", 9) == 0 && object_id_parse(text + 9, &manifest) == 0)
        return id_set_add(&gc->manifests, &manifest, NULL);
    return fail(-EBADMSG, "%s/leases/%s: not a lease (was it edited?)", gc->store->path, name);
}

/* What a writer left in tmp/ is its lease's name and a number; texts are only written with STORE/lock shared.
 */
static int sweep_tmp(void *opaque, const char *name)
{
    struct gc *gc = opaque;
    char owner[LEASE_NAME_MAX];
    const char *dot = strrchr(name, '.');
    size_t length = dot ? (size_t)(dot - name) : 0;
    if (length == 0 || length >= sizeof(owner))
        return 0;
    memcpy(owner, name, length);
    owner[length] = '\0';
    if (strcmp(owner, "text") != 0 && lease_is_live(gc->store, owner))
        return 0;
    gc->report.leftovers_deleted++;
    return remove_entry(gc, gc->store->tmp, name);
}

/* With STORE/lock exclusive, so that no root or lease comes while they are read. */
static int read_roots(struct gc *gc)
{
    struct store *store = gc->store;
    CLEANUP_FD int lock = -1;
    CLEANUP_FREE struct ref *refs = NULL;
    size_t count = 0;
    uint32_t epoch = 0;
    int r = store_lock(store, LOCK_EX, &lock);
    if (r == 0)
        r = epoch_read(store, &epoch);
    if (r < 0)
        return r;
    if (epoch == EPOCH_MAX)
        return fail(-EOVERFLOW, "%s: has been collected %d times, the most there can be", store->path,
                    EPOCH_MAX);
    char text[32];
    snprintf(text, sizeof(text), "%u\n", epoch + 1);
    r = gc->dry_run ? 0 : text_publish(store, store->root, "epoch", text);
    if (r < 0)
        return fail_errno(r, "%s/epoch", store->path);
    gc->oldest = epoch + 1;
    r = ref_list(store, &refs, &count);
    for (size_t i = 0; r == 0 && i < count; i++)
        r = id_set_add(&gc->manifests, &refs[i].manifest, NULL);
    if (r == 0)
        r = each_entry(store->volumes, ".", root_volume, gc);
    if (r == 0)
        r = each_entry(store->leases, ".", root_lease, gc);
    if (r == 0)
        r = each_entry(store->tmp, ".", sweep_tmp, gc);
    /* A name that is gone must stay gone after a crash: what it stood for is about to go. */
    if (r == 0 && !gc->dry_run && ((r = sys_fsync(store->refs)) < 0 || (r = sys_fsync(store->volumes)) < 0))
        r = fail_errno(r, "%s", store->path);
    return r;
}

static int mark(struct gc *gc)
{
    for (size_t slot = 0; slot < gc->manifests.capacity; slot++) {
        static const struct object_id none;
        const struct object_id *id = &gc->manifests.slots[slot];
        CLEANUP_MANIFEST struct manifest *manifest = NULL;
        if (object_id_equal(id, &none))
            continue;
        int r = manifest_load(gc->store, id, &manifest);
        if (r < 0) /* what it needs is not known, so nothing can be known to be garbage */
            return fail(r, "%s; gc stops (stellarium verify tells whose it is)", fail_text());
        for (uint64_t i = 0; i < manifest->object_count; i++) {
            struct object_id object;
            unsigned pages;
            manifest_object(manifest, i, &object, &pages);
            r = id_set_add(&gc->objects, &object, NULL);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int sweep_entry(void *opaque, const char *name)
{
    struct gc *gc = opaque;
    struct object_id id;
    struct stat status;
    char text[OBJECT_ID_TEXT + 1];
    if (strlen(name) != 2 * OBJECT_ID_BYTES - 2)
        return 0; /* not ours: verify reports it */
    snprintf(text, sizeof(text), "%02x%s", (unsigned)gc->shard & 0xff, name);
    if (object_id_parse(text, &id) < 0)
        return 0;
    if (id_set_has(gc->keep, &id)) {
        ++*gc->kept;
        return 0;
    }
    int kind = gc->keep == &gc->objects ? gc->store->objects : gc->store->manifests;
    char path[SHARD_PATH_MAX];
    shard_path(&id, path);
    if (fstatat(kind, path, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail_errno(-errno, "%s: %s", gc->store->path, path);
    if (stamp_epoch(&status) >= gc->oldest) {
        ++*gc->kept;
        return 0;
    }
    ++*gc->deleted;
    gc->report.bytes_deleted += (uint64_t)status.st_size;
    return remove_entry(gc, kind, path);
}

/* Shard by shard, each under its lock: a writer's stamp comes either before our look or after the file is
 * gone. */
static int sweep(struct gc *gc, int kind)
{
    for (gc->shard = 0; gc->shard < 256; gc->shard++) {
        CLEANUP_FD int lock = -1;
        struct object_id any = {.bytes[0] = (uint8_t)gc->shard};
        char path[8];
        snprintf(path, sizeof(path), "%02x", (unsigned)gc->shard);
        uint64_t before = *gc->deleted;
        int r = shard_lock(kind, &any, true, &lock);
        if (r < 0)
            return fail_errno(r, "%s: cannot lock a shard", gc->store->path);
        r = each_entry(kind, path, sweep_entry, gc);
        if (r < 0)
            return r;
        /* A manifest must not come back after a crash without its objects. */
        if (kind == gc->store->manifests && *gc->deleted > before && !gc->dry_run &&
            (r = sys_fsync(lock)) < 0)
            return fail_errno(r, "%s/manifests", gc->store->path);
    }
    return 0;
}

/* NAME.source of a name that is gone, MANIFEST.pages of a manifest that is. */
static int sweep_cache(void *opaque, const char *name)
{
    struct gc *gc = opaque;
    const char *dot = strrchr(name, '.');
    struct object_id id;
    char stem[STORE_NAME_MAX + 1] = "";
    if (dot && (size_t)(dot - name) < sizeof(stem))
        memcpy(stem, name, (size_t)(dot - name));
    bool keep = dot && strcmp(dot, ".pages") == 0
                    ? object_id_parse(stem, &id) == 0 && id_set_has(&gc->manifests, &id)
                    : faccessat(gc->store->refs, stem, F_OK, 0) == 0;
    return keep ? 0 : remove_entry(gc, gc->store->cache, name);
}

int store_gc(struct store *store, bool dry_run, struct gc_report *ret_report)
{
    struct gc gc = {.store = store, .dry_run = dry_run};
    CLEANUP_FD int alone = openat(store->root, "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (alone < 0)
        return fail_errno(-errno, "%s/objects", store->path);
    if (flock(alone, LOCK_EX | LOCK_NB) < 0)
        return fail(-EBUSY, "%s: another gc is at work", store->path);
    if (store->read_only && !dry_run)
        return fail(-EROFS, "%s: the store is read-only", store->path);
    int r = read_roots(&gc);
    if (r == 0)
        r = mark(&gc);
    uint64_t manifests_kept = 0;
    if (r == 0) {
        gc.keep = &gc.manifests;
        gc.kept = &manifests_kept;
        gc.deleted = &gc.report.manifests_deleted;
        r = sweep(&gc, store->manifests);
    }
    if (r == 0) {
        gc.keep = &gc.objects;
        gc.kept = &gc.report.objects_kept;
        gc.deleted = &gc.report.objects_deleted;
        r = sweep(&gc, store->objects);
    }
    if (r == 0)
        r = each_entry(store->cache, ".", sweep_cache, &gc);
    id_set_free(&gc.manifests);
    id_set_free(&gc.objects);
    if (r == 0)
        *ret_report = gc.report;
    return r;
}
