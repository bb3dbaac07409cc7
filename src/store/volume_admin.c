/* Making, adopting, listing and removing volumes. */
#include "store/volume_files.h"
#include "store/wire.h"
#include "store/writer.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>

static void new_id(struct volume_description *description)
{
    uint8_t random[16];
    CHECK(getrandom(random, sizeof(random), 0) == sizeof(random));
    for (unsigned i = 0; i < sizeof(random); i++)
        snprintf(description->id + 2 * i, 3, "%02x", random[i]);
}

static int make_files(int directory, const struct volume_description *description)
{
    uint8_t header[STORE_PAGE];
    uint64_t pages = align_up(description->bytes, STORE_PAGE) / STORE_PAGE;
    uint64_t bits = align_up(MAX(pages, UINT64_C(1)), STORE_PAGE * UINT64_C(8)) / 8;
    volume_map_header(description, false, header);
    int r = volume_description_write(directory, VOLUME_NEW, description);
    if (r == 0)
        r = volume_make_file(directory, "delta", NULL, 0, pages * STORE_PAGE);
    return r < 0 ? r : volume_make_file(directory, "map", header, sizeof(header), STORE_PAGE + bits);
}

static int describe(struct store *store, const char *image, uint64_t bytes,
                    struct volume_description *ret_description)
{
    struct volume_description description = {.bytes = bytes};
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    int r = ref_read(store, image, &description.manifest);
    if (r == 0)
        r = manifest_load(store, &description.manifest, &manifest);
    if (r != 0)
        return r;
    if (bytes == 0)
        description.bytes = manifest->image_bytes;
    if (description.bytes < manifest->image_bytes || description.bytes % 512 != 0 ||
        description.bytes > MANIFEST_IMAGE_MAX)
        return fail(-EINVAL, "%s: a volume of it has at least %llu bytes, and a multiple of 512", image,
                    (unsigned long long)manifest->image_bytes);
    new_id(&description);
    *ret_description = description;
    return 0;
}

int volume_create(struct store *store, const char *image, uint64_t bytes, const char *path)
{
    static const char *const files[] = {VOLUME_NEW, VOLUME_DESCRIPTION, "delta", "map"};
    CLEANUP_FD int lock = -1, directory = -1;
    struct volume_description description = {.bytes = 0};
    /* Held until all is there, so gc, which needs it exclusive, sees the image's name or the registration. */
    int r = store_lock(store, LOCK_SH, &lock);
    if (r == 0)
        r = describe(store, image, bytes, &description);
    if (r < 0)
        return r;
    r = sys_mkdir(AT_FDCWD, path, 0755);
    if (r < 0)
        return fail_errno(r, "%s: cannot make the volume", path);
    directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = directory < 0 ? -errno : volume_entry_write(store, &description, directory, false);
    if (r == 0)
        r = make_files(directory, &description);
    if (r == 0)
        r = sys_rename(directory, VOLUME_NEW, directory, VOLUME_DESCRIPTION, 0);
    if (r == 0)
        return 0;
    fail_errno(r, "%s: cannot make the volume", path);
    for (unsigned i = 0; i < ARRAY_SIZE(files) && directory >= 0; i++)
        unlinkat(directory, files[i], 0);
    unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
    unlinkat(store->volumes, description.id, 0);
    return r;
}

/* What the directory says it is: by its description, whole, half made or half removed, or by its map. */
static int identify(int directory, const char *path, struct volume_description *ret_description)
{
    static const char *const files[] = {VOLUME_DESCRIPTION, VOLUME_REMOVED, VOLUME_NEW};
    bool durable;
    for (unsigned i = 0; i < ARRAY_SIZE(files); i++)
        if (volume_description_read(directory, path, files[i], ret_description) == 0)
            return 0;
    CLEANUP_FD int map = openat(directory, "map", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (map < 0)
        return fail(-ENOENT, "%s: not a volume (stellarium ls lists them)", path);
    return volume_map_header_read(map, path, ret_description, &durable);
}

static int unregister(struct store *store, const char *id)
{
    int r = sys_unlink(store->volumes, id, 0);
    if (r == 0 || r == -ENOENT)
        r = sys_fsync(store->volumes);
    return r < 0 ? fail_errno(r, "%s/volumes/%s: cannot be removed", store->path, id) : 0;
}

/*
 * In steps that can be repeated from any point. The new name of the description comes first and is made
 * durable: from then on it is no volume any more, and may lose what it stands on; the name keeps the id for
 * a repetition.
 */
static int remove_steps(struct store *store, const char *path, int directory, const char *registered)
{
    static const char *const data[] = {"delta", "map"}, *const rest[] = {VOLUME_NEW, VOLUME_REMOVED};
    int r = sys_rename(directory, VOLUME_DESCRIPTION, directory, VOLUME_REMOVED, 0);
    if (r == 0)
        r = sys_fsync(directory);
    if (r == 0 || r == -ENOENT)
        r = volume_remove_files(directory, data, ARRAY_SIZE(data));
    if (r == 0 && registered && (r = unregister(store, registered)) < 0)
        return r;
    if (r == 0)
        r = volume_remove_files(directory, rest, ARRAY_SIZE(rest));
    if (r == 0)
        r = sys_unlink(AT_FDCWD, path, AT_REMOVEDIR);
    /* Files of somebody else stay, and with them the directory; "." and a mount point stay as well. */
    if (r == -ENOTEMPTY || r == -EEXIST || r == -EINVAL || r == -EBUSY)
        r = 0;
    return r < 0 ? fail_errno(r, "%s: cannot remove the volume (try again)", path) : 0;
}

struct search {
    struct store *store;
    const char *path;   /* forget those that were here, ... */
    const char *prefix; /* ... or find the one whose id begins so */
    unsigned found;
    char id[33];
};

/* Where `path` is, or would be, without symbolic links: as registrations have it. */
static int absolute_path(const char *path, char absolute[PATH_MAX])
{
    char copy[PATH_MAX], folder[PATH_MAX];
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length == 0 || length >= sizeof(copy))
        return fail(-EINVAL, "%.60s: not a path", path);
    snprintf(copy, sizeof(copy), "%.*s", (int)length, path);
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    if (slash)
        *slash = '\0';
    if (!realpath(slash ? (slash == copy ? "/" : copy) : ".", folder))
        return fail_errno(-errno, "%s", path);
    int written = snprintf(absolute, PATH_MAX, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder, name);
    return written >= PATH_MAX ? fail(-ENAMETOOLONG, "%.60s", path) : 0;
}

static int forget_if_at(void *opaque, const char *id)
{
    struct search *search = opaque;
    struct volume_entry entry;
    if (volume_entry_read(search->store, id, &entry) < 0 || strcmp(entry.path, search->path) != 0)
        return 0;
    search->found++;
    return unregister(search->store, id);
}

/* The volume's directory was deleted by hand. */
static int remove_missing(struct store *store, const char *path, int why)
{
    char absolute[PATH_MAX];
    CLEANUP_FD int lock = -1;
    int r = absolute_path(path, absolute);
    if (r == 0)
        r = store_lock(store, LOCK_SH, &lock);
    if (r < 0)
        return r;
    struct search search = {.store = store, .path = absolute};
    r = each_entry(store->volumes, ".", forget_if_at, &search);
    if (r == 0 && search.found == 0)
        return fail_errno(why, "%s: no volume is here, and none is registered as having been", path);
    return r;
}

int volume_remove(struct store *store, const char *path)
{
    CLEANUP_FD int lock = -1, map = -1;
    struct volume_description description;
    struct volume_entry entry;
    CLEANUP_FD int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 && errno == ENOENT)
        return remove_missing(store, path, -ENOENT);
    if (directory < 0)
        return fail_errno(-errno, "%s: cannot open the volume", path);
    int r = identify(directory, path, &description);
    if (r < 0)
        return r;
    map = openat(directory, "map", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (map >= 0 && flock_soon(map, LOCK_EX) < 0)
        return fail(-EBUSY, "%s: in use by a running VM; stop that first", path);
    r = store_lock(store, LOCK_SH, &lock);
    if (r < 0)
        return r;
    /* A copy's id is the original's, whose registration stays. */
    bool own = volume_entry_read(store, description.id, &entry) == 0 && volume_entry_is(&entry, directory);
    return remove_steps(store, path, directory, own ? description.id : NULL);
}

static int match_prefix(void *opaque, const char *id)
{
    struct search *search = opaque;
    if (!volume_id_is_valid(id) || strncmp(id, search->prefix, strlen(search->prefix)) != 0)
        return 0;
    search->found++;
    memcpy(search->id, id, sizeof(search->id));
    return 0;
}

int volume_find(struct store *store, const char *prefix, char ret_id[33])
{
    struct search search = {.store = store, .prefix = prefix};
    size_t length = strlen(prefix);
    if (length < 8 || length > 32 || strspn(prefix, "0123456789abcdef") != length)
        return fail(-ENOENT, "%s: not the id of a volume (8 to 32 hexadecimal digits)", prefix);
    int r = each_entry(store->volumes, ".", match_prefix, &search);
    if (r == 0 && search.found != 1)
        r = search.found == 0 ? fail(-ENOENT, "%s: no volume has an id that begins so", prefix)
                              : fail(-EINVAL, "%s: several volumes have ids that begin so", prefix);
    if (r == 0)
        memcpy(ret_id, search.id, sizeof(search.id));
    return r;
}

struct listing {
    struct store *store;
    int (*visit)(void *opaque, const struct volume_listed *volume);
    void *opaque;
};

static int list_one(void *opaque, const char *id)
{
    struct listing *listing = opaque;
    struct volume_entry entry = {.device = 0};
    struct volume_listed volume = {.state = VOLUME_DAMAGED};
    int r = volume_entry_read(listing->store, id, &entry);
    if (r == -EINVAL || r == -EISDIR || r == -ELOOP) { /* not ours */
        store_warn(listing->store, "%s", fail_text());
        return 0;
    }
    if (r < 0 && r != -ENOENT && r != -EBADMSG)
        return r;
    if (r == -ENOENT && faccessat(listing->store->volumes, id, F_OK, 0) != 0)
        return 0; /* removed since the directory was read */
    if (r == -EBADMSG)
        store_warn(listing->store, "%s", fail_text());
    memcpy(volume.id, id, sizeof(volume.id));
    if (r == 0) {
        volume.manifest = entry.manifest;
        memcpy(volume.path, entry.path, sizeof(volume.path));
        volume.state = volume_entry_state(&entry, &volume.bytes_written);
    } else if (r == -ENOENT) {
        volume.state = VOLUME_HALF_MADE;
    }
    return listing->visit(listing->opaque, &volume);
}

int store_each_volume(struct store *store, int (*visit)(void *opaque, const struct volume_listed *volume),
                      void *opaque)
{
    struct listing listing = {store, visit, opaque};
    return each_entry(store->volumes, ".", list_one, &listing);
}

int volume_forget(struct store *store, const char *id)
{
    struct volume_entry entry;
    uint64_t written;
    int r = volume_entry_read(store, id, &entry);
    if (r == 0) {
        enum volume_state state = volume_entry_state(&entry, &written);
        if (state != VOLUME_MISSING && state != VOLUME_REPLACED)
            return volume_remove(store, entry.path);
    }
    if (r == -EINVAL)
        return r;
    CLEANUP_FD int lock = -1;
    r = store_lock(store, LOCK_SH, &lock);
    return r < 0 ? r : unregister(store, id);
}

struct adoption {
    struct store *store;
    const char *path;
    int directory, map;
    struct volume_description description; /* of volume.json */
    struct volume_description in_map;
    bool name_durable;
};

static bool is_registered_here(const struct adoption *adoption, const char *id)
{
    struct volume_entry entry;
    return volume_entry_read(adoption->store, id, &entry) == 0 &&
           volume_entry_is(&entry, adoption->directory);
}

static int adoption_open(struct adoption *adoption)
{
    const char *path = adoption->path;
    adoption->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (adoption->directory < 0)
        return fail_errno(-errno, "%s: cannot open the volume", path);
    int r = volume_description_read(adoption->directory, path, VOLUME_DESCRIPTION, &adoption->description);
    if (r < 0)
        return r;
    adoption->map = openat(adoption->directory, "map", O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (adoption->map < 0)
        return fail_errno(-errno, "%s/map", path);
    if (flock_soon(adoption->map, LOCK_EX) < 0)
        return fail(-EBUSY, "%s: in use (by a running VM, or a commit)", path);
    r = volume_map_header_read(adoption->map, path, &adoption->in_map, &adoption->name_durable);
    if (r < 0)
        return r;
    if (adoption->in_map.bytes != adoption->description.bytes ||
        !object_id_equal(&adoption->in_map.manifest, &adoption->description.manifest))
        return fail(-EBADMSG, "%s/map: does not belong to this volume.json (was one of them copied here?)",
                    path);
    return 0;
}

/* First the registration, durably: whatever the files then say, gc keeps what the volume stands on. */
static int adoption_write(const struct adoption *adoption, const struct volume_description *description)
{
    uint8_t header[STORE_PAGE];
    CLEANUP_FD int lock = -1;
    int directory = adoption->directory, r = store_lock(adoption->store, LOCK_SH, &lock);
    if (r < 0)
        return r;
    r = volume_entry_write(adoption->store, description, directory, true);
    volume_map_header(description, false, header); /* the next flush makes its name durable */
    if (r == 0)
        r = sys_write(adoption->map, header, sizeof(header), 0);
    if (r == 0)
        r = sys_fdatasync(adoption->map);
    if (r == 0 && (r = sys_unlink(directory, VOLUME_NEW, 0)) == -ENOENT)
        r = 0;
    if (r == 0)
        r = volume_description_write(directory, VOLUME_NEW, description);
    CLEANUP_FD int file = r == 0 ? openat(directory, VOLUME_NEW, O_RDONLY | O_CLOEXEC) : -1;
    if (r == 0)
        r = file < 0 ? -errno : sys_fsync(file);
    if (r == 0)
        r = sys_rename(directory, VOLUME_NEW, directory, VOLUME_DESCRIPTION, 0);
    if (r == 0)
        r = sys_fsync(directory);
    return r < 0 ? fail_errno(r, "%s: cannot be adopted (try again)", adoption->path) : 0;
}

int volume_adopt(struct store *store, const char *path, char ret_id[33])
{
    struct adoption adoption = {.store = store, .path = path, .directory = -1, .map = -1};
    struct store_writer *writer = NULL;
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    int r = adoption_open(&adoption);
    struct volume_description description = adoption.description;
    if (r == 0) /* its lease keeps gc off until the registration is there */
        r = writer_begin(store, &writer);
    if (r == 0)
        r = manifest_load(store, &description.manifest, &manifest);
    if (r == 0)
        r = writer_hold(writer, manifest);
    if (r == 0) {
        bool same = strcmp(adoption.in_map.id, description.id) == 0;
        if (!same && is_registered_here(&adoption, adoption.in_map.id)) /* an adoption was interrupted */
            description = adoption.in_map;
        else if (!is_registered_here(&adoption, description.id))
            new_id(&description);
        r = adoption_write(&adoption, &description);
    }
    if (r == 0)
        memcpy(ret_id, description.id, 33);
    writer_end(writer);
    cleanup_fd(&adoption.map);
    cleanup_fd(&adoption.directory);
    return r;
}
