#include "store/manifest.h"
#include "store/private.h"
#include "store/volume_files.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

struct gc {
    struct store *store;
    bool dry_run;
    uint32_t oldest; /* epoch of the oldest live writer, or the new one: what bears it or a later one stays */
    bool keeps_all;  /* what is needed is not fully known */
    struct id_set manifests, objects; /* reachable */
    struct gc_report report;
};

/* One of objects/ and manifests/ being swept. */
struct sweep {
    struct gc *gc;
    int kind; /* its directory */
    const struct id_set *reachable;
    unsigned shard;
    uint64_t kept, deleted;
};

static void keep_all(struct gc *gc, const char *directory, const char *name)
{
    gc->keeps_all = true;
    store_warn(gc->store,
               "%s/%s/%s: cannot be read, so gc does not know what it needs, and deletes no image's data "
               "(stellarium rm %s removes it)",
               gc->store->path, directory, name, name);
}

static int remove_entry(struct gc *gc, int directory, const char *name)
{
    int r = gc->dry_run ? 0 : sys_unlink(directory, name, 0);
    if (r == -EISDIR || r == -EPERM || r == -ENOTEMPTY) {
        store_warn(gc->store, "%s: %s is a directory, which does not belong there (remove it)",
                   gc->store->path, name);
        return 0;
    }
    return r < 0 && r != -ENOENT ? fail_errno(r, "%s: cannot delete %s", gc->store->path, name) : 0;
}

/*
 * A clone and a removal hold STORE/lock while they last, so what is half done now was interrupted. A volume
 * that is not at its path may have been moved, or its disk may not be mounted: that one keeps what it
 * needs.
 */
static int root_volume(void *opaque, const char *id)
{
    struct gc *gc = opaque;
    struct volume_entry entry;
    uint64_t written;
    int r = volume_entry_read(gc->store, id, &entry);
    if (r == -EINVAL || r == -EISDIR || r == -ELOOP) {
        store_warn(gc->store, "%s", fail_text());
        return 0;
    }
    if (r == -ENOENT)
        return remove_entry(gc, gc->store->volumes, id);
    if (r == -EBADMSG) {
        keep_all(gc, "volumes", id);
        return 0;
    }
    if (r < 0)
        return r;
    enum volume_state state = volume_entry_state(&entry, &written);
    if (state == VOLUME_HALF_MADE || state == VOLUME_HALF_REMOVED) {
        if (!gc->dry_run)
            volume_entry_sweep(&entry);
        return remove_entry(gc, gc->store->volumes, id);
    }
    gc->report.volumes_missing += state == VOLUME_MISSING || state == VOLUME_REPLACED;
    return id_set_add(&gc->manifests, &entry.manifest, NULL);
}

static int root_lease(void *opaque, const char *name)
{
    struct gc *gc = opaque;
    char text[OBJECT_ID_TEXT + 16];
    struct object_id manifest;
    unsigned epoch;
    if (!lease_name_is_valid(name)) {
        store_warn(gc->store, "%s/leases/%s: not a lease (delete it)", gc->store->path, name);
        return 0;
    }
    int r = text_read(gc->store->leases, name, text, sizeof(text));
    if (r == -ENOENT || (gc->dry_run && !lease_is_live(gc->store, name)))
        return 0; /* ended since the directory was read, or dead */
    if (r < 0)
        return fail_errno(r, "%s/leases/%s", gc->store->path, name);
    char *end = strchr(text, '\n');
    if (end)
        *end = '\0';
    if (end && sscanf(text, "epoch %u", &epoch) == 1) {
        gc->oldest = MIN(gc->oldest, epoch);
        return 0;
    }
    /* From before a lease on a manifest was a lock on the manifest itself. */
    if (end && strncmp(text, "manifest ", 9) == 0 && object_id_parse(text + 9, &manifest) == 0)
        return id_set_add(&gc->manifests, &manifest, NULL);
    return fail(-EBADMSG, "%s/leases/%s: not a lease (was it edited?)", gc->store->path, name);
}

/* The id that a file of a shard is named by. */
static bool shard_entry_id(unsigned shard, const char *name, struct object_id *ret_id)
{
    char text[OBJECT_ID_TEXT + 1];
    if (strlen(name) != 2 * OBJECT_ID_BYTES - 2)
        return false;
    snprintf(text, sizeof(text), "%02x%s", shard & 0xff, name);
    return object_id_parse(text, ret_id) == 0;
}

/* Manifests that no name reaches, but a process has locked: it reads what they describe. */
static int root_locked(void *opaque, const char *name)
{
    struct sweep *sweep = opaque;
    struct object_id id;
    if (!shard_entry_id(sweep->shard, name, &id) || id_set_has(&sweep->gc->manifests, &id) ||
        !manifest_is_leased(sweep->gc->store, &id))
        return 0;
    return id_set_add(&sweep->gc->manifests, &id, NULL);
}

static int each_shard(struct sweep *sweep, int (*visit)(void *opaque, const char *name))
{
    int r = 0;
    for (sweep->shard = 0; r == 0 && sweep->shard < 256; sweep->shard++) {
        char path[8];
        snprintf(path, sizeof(path), "%02x", sweep->shard);
        r = each_entry(sweep->kind, path, visit, sweep);
    }
    return r;
}

static int root_refs(struct gc *gc)
{
    CLEANUP_FREE struct ref *refs = NULL;
    size_t count = 0;
    int r = ref_list(gc->store, &refs, &count);
    for (size_t i = 0; r == 0 && i < count; i++)
        if (refs[i].damaged)
            keep_all(gc, "refs", refs[i].name);
        else
            r = id_set_add(&gc->manifests, &refs[i].manifest, NULL);
    return r;
}

/* With STORE/lock exclusive, so that no root or lease comes while they are read. */
static int read_roots(struct gc *gc)
{
    struct store *store = gc->store;
    CLEANUP_FD int lock = -1;
    struct sweep locked = {.gc = gc, .kind = store->manifests};
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
    r = root_refs(gc);
    if (r == 0)
        r = each_entry(store->volumes, ".", root_volume, gc);
    if (r == 0 && !gc->dry_run)
        r = leftovers_remove(store, true, &gc->report.leftovers_deleted);
    if (r == 0)
        r = each_entry(store->leases, ".", root_lease, gc);
    if (r == 0)
        r = each_shard(&locked, root_locked);
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
    struct sweep *sweep = opaque;
    struct gc *gc = sweep->gc;
    struct object_id id;
    struct stat status;
    if (!shard_entry_id(sweep->shard, name, &id))
        return 0; /* not ours: verify reports it */
    if (id_set_has(sweep->reachable, &id)) {
        sweep->kept++;
        return 0;
    }
    char path[SHARD_PATH_MAX];
    shard_path(&id, path);
    if (fstatat(sweep->kind, path, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail_errno(-errno, "%s: %s", gc->store->path, path);
    if (stamp_epoch(&status) >= gc->oldest) {
        sweep->kept++;
        return 0;
    }
    sweep->deleted++;
    gc->report.bytes_deleted += (uint64_t)status.st_size;
    return remove_entry(gc, sweep->kind, path);
}

/* Shard by shard, each under its lock: a writer's stamp comes either before our look or after the file is
 * gone. */
static int sweep_all(struct sweep *sweep)
{
    struct gc *gc = sweep->gc;
    for (sweep->shard = 0; sweep->shard < 256; sweep->shard++) {
        CLEANUP_FD int lock = -1;
        struct object_id any = {.bytes[0] = (uint8_t)sweep->shard};
        char path[8];
        snprintf(path, sizeof(path), "%02x", sweep->shard);
        uint64_t before = sweep->deleted;
        int r = shard_lock(sweep->kind, &any, true, &lock);
        if (r < 0)
            return fail_errno(r, "%s: cannot lock a shard", gc->store->path);
        r = each_entry(sweep->kind, path, sweep_entry, sweep);
        if (r < 0)
            return r;
        /* A manifest must not come back after a crash without its objects. */
        if (sweep->kind == gc->store->manifests && sweep->deleted > before && !gc->dry_run &&
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
    if (strcmp(name, "seed") == 0)
        return 0;
    if (dot && (size_t)(dot - name) < sizeof(stem))
        memcpy(stem, name, (size_t)(dot - name));
    bool keep = dot && strcmp(dot, ".pages") == 0
                    ? object_id_parse(stem, &id) == 0 && id_set_has(&gc->manifests, &id)
                    : faccessat(gc->store->refs, stem, F_OK, 0) == 0;
    return keep ? 0 : remove_entry(gc, gc->store->cache, name);
}

/* Manifests first: after a crash, one that is there has its objects. */
static int sweep_store(struct gc *gc)
{
    struct sweep manifests = {.gc = gc, .kind = gc->store->manifests, .reachable = &gc->manifests};
    struct sweep objects = {.gc = gc, .kind = gc->store->objects, .reachable = &gc->objects};
    int r = sweep_all(&manifests);
    if (r == 0)
        r = sweep_all(&objects);
    if (r == 0)
        r = each_entry(gc->store->cache, ".", sweep_cache, gc);
    gc->report.manifests_deleted = manifests.deleted;
    gc->report.objects_deleted = objects.deleted;
    gc->report.objects_kept = objects.kept;
    return r;
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
    if (r == 0 && !gc.keeps_all)
        r = mark(&gc);
    if (r == 0 && !gc.keeps_all)
        r = sweep_store(&gc);
    id_set_free(&gc.manifests);
    id_set_free(&gc.objects);
    if (r == 0)
        *ret_report = gc.report;
    return r;
}
