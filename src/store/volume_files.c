#include "store/volume_files.h"
#include "store/ingest.h"
#include "store/volume.h"
#include "store/wire.h"

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>

static bool is_volume_id(const char *text)
{
    return strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32;
}

int volume_description_parse(const char *text, const char *path, struct volume_description *ret_description)
{
    json_error_t error;
    const char *format = NULL, *id = NULL, *manifest = NULL;
    json_int_t version = 0, bytes = -1;
    struct volume_description description = {0};
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return fail(-EBADMSG, "%s/volume.json: line %d: %s", path, error.line, error.text);
    int r = 0;
    if (json_unpack(root, "{s:s, s:I}", "format", &format, "version", &version) < 0 ||
        strcmp(format, "stellarium-volume") != 0)
        r = fail(-EBADMSG, "%s/volume.json: does not describe a volume", path);
    else if (version != VOLUME_VERSION)
        r = fail(-EPROTO, "%s/volume.json: version %lld, this program reads %u", path, (long long)version,
                 VOLUME_VERSION);
    else if (json_unpack(root, "{s:s, s:s, s:I}", "id", &id, "manifest", &manifest, "bytes", &bytes) < 0 ||
             !is_volume_id(id) || object_id_parse(manifest, &description.manifest) < 0 || bytes < 0 ||
             (uint64_t)bytes > MANIFEST_IMAGE_MAX)
        r = fail(-EBADMSG, "%s/volume.json: its id, manifest or bytes is missing or wrong", path);
    if (r == 0) {
        memcpy(description.id, id, 33);
        description.bytes = (uint64_t)bytes;
        *ret_description = description;
    }
    json_decref(root);
    return r;
}

int volume_description_read(int directory, const char *path, struct volume_description *ret_description)
{
    char text[4096];
    int r = text_read(directory, "volume.json", text, sizeof(text));
    if (r == -ENOENT)
        return fail(r, "%s: not a volume (make one with: stellarium clone IMAGE %s)", path, path);
    if (r < 0)
        return fail_errno(r, "%s/volume.json", path);
    return volume_description_parse(text, path, ret_description);
}

int volume_entry_read(struct store *store, const char *id, struct volume_entry *ret_entry)
{
    char text[PATH_MAX + OBJECT_ID_TEXT + 4];
    if (!is_volume_id(id))
        return fail(-EBADMSG, "%s/volumes/%s: not the name of a volume (delete it)", store->path, id);
    int r = text_read(store->volumes, id, text, sizeof(text));
    if (r < 0)
        return fail_errno(r, "%s/volumes/%s", store->path, id);
    if (text[0] == '\0')
        return fail(-ENOENT, "%s/volumes/%s: left by a clone that was interrupted (gc removes it)",
                    store->path, id);
    char *path = strchr(text, '\n'), *end = path ? strchr(path + 1, '\n') : NULL;
    if (path)
        *path++ = '\0';
    if (end)
        *end = '\0';
    if (!end || end[1] != '\0' || strlen(path) >= sizeof(ret_entry->path) ||
        object_id_parse(text, &ret_entry->manifest) < 0)
        return fail(-EBADMSG, "%s/volumes/%s: not a registration (was it edited?)", store->path, id);
    memcpy(ret_entry->id, id, sizeof(ret_entry->id));
    memcpy(ret_entry->path, path, strlen(path) + 1);
    return 0;
}

int volume_check_registered(struct store *store, const char *path,
                            const struct volume_description *description)
{
    struct volume_entry entry;
    if (faccessat(store->volumes, description->id, F_OK, 0) != 0)
        return fail(-ENOENT,
                    "%s: not registered in %s (is it another store's, or from before a crash? clone again)",
                    path, store->path);
    int r = volume_entry_read(store, description->id, &entry);
    if (r == 0 && !object_id_equal(&entry.manifest, &description->manifest))
        return fail(-EBADMSG, "%s: %s has registered it with another manifest", path, store->path);
    return r;
}

int volume_open_name_fds(struct store *store, int directory, const struct volume_description *description,
                         int name_fds[VOLUME_NAME_FDS])
{
    const struct {
        int directory;
        const char *path;
    } files[VOLUME_NAME_FDS] = {{store->volumes, description->id},
                                {store->volumes, "."},
                                {directory, "volume.json"},
                                {directory, "."},
                                {directory, ".."}};
    for (unsigned i = 0; i < VOLUME_NAME_FDS; i++) {
        name_fds[i] = openat(files[i].directory, files[i].path, O_RDONLY | O_CLOEXEC);
        if (name_fds[i] < 0)
            return fail_errno(-errno, "a volume's %s", files[i].path); /* the caller closes the others */
    }
    return 0;
}

void volume_map_header(const struct volume_description *description, bool name_durable,
                       uint8_t header[STORE_PAGE])
{
    memset(header, 0, STORE_PAGE);
    memcpy(header, VOLUME_MAP_MAGIC, 8);
    put32(header + 8, VOLUME_VERSION);
    put32(header + 12, name_durable);
    put64(header + 16, description->bytes);
    memcpy(header + 24, &description->manifest, OBJECT_ID_BYTES);
    memcpy(header + 56, description->id, 32);
}

static int make_file(int directory, const char *name, const void *bytes, size_t length, uint64_t size)
{
    CLEANUP_FD int fd = sys_open(directory, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    int r = fd < 0 ? fd : sys_truncate(fd, size);
    return r < 0 || length == 0 ? r : sys_write(fd, bytes, length, 0);
}

static int make_files(int directory, const struct volume_description *is)
{
    uint8_t header[STORE_PAGE];
    uint64_t pages = align_up(is->bytes, STORE_PAGE) / STORE_PAGE;
    uint64_t bits = align_up(MAX(pages, UINT64_C(1)), STORE_PAGE * UINT64_C(8)) / 8;
    volume_map_header(is, false, header);
    char text[400], manifest[OBJECT_ID_TEXT];
    snprintf(text, sizeof(text),
             "{\"format\": \"stellarium-volume\", \"version\": %u, \"id\": \"%s\",\n \"manifest\": \"%s\",\n"
             " \"bytes\": %llu}\n",
             VOLUME_VERSION, is->id, object_id_text(&is->manifest, manifest), (unsigned long long)is->bytes);
    int r = make_file(directory, "volume.json.new", text, strlen(text), strlen(text));
    if (r == 0)
        r = make_file(directory, "delta", NULL, 0, pages * STORE_PAGE);
    return r < 0 ? r : make_file(directory, "map", header, sizeof(header), STORE_PAGE + bits);
}

static int describe(struct store *store, const char *image, uint64_t bytes,
                    struct volume_description *ret_description)
{
    struct volume_description is = {.bytes = bytes};
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    uint8_t random[16];
    int r = ref_read(store, image, &is.manifest);
    if (r == 0)
        r = manifest_load(store, &is.manifest, &manifest);
    if (r != 0)
        return r;
    if (bytes == 0)
        is.bytes = manifest->image_bytes;
    if (is.bytes < manifest->image_bytes || is.bytes % 512 != 0 || is.bytes > MANIFEST_IMAGE_MAX)
        return fail(-EINVAL, "%s: a volume of it has at least %llu bytes, and a multiple of 512", image,
                    (unsigned long long)manifest->image_bytes);
    CHECK(getrandom(random, sizeof(random), 0) == sizeof(random));
    for (unsigned i = 0; i < sizeof(random); i++)
        snprintf(is.id + 2 * i, 3, "%02x", random[i]);
    *ret_description = is;
    return 0;
}

static int register_volume(struct store *store, const struct volume_description *is, int directory)
{
    char link[64], path[PATH_MAX], manifest[OBJECT_ID_TEXT], text[PATH_MAX + OBJECT_ID_TEXT + 4];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    if (length < 0)
        return -errno;
    path[length] = '\0';
    if (strchr(path, '\n'))
        return -EINVAL;
    snprintf(text, sizeof(text), "%s\n%s\n", object_id_text(&is->manifest, manifest), path);
    return make_file(store->volumes, is->id, text, strlen(text), strlen(text));
}

int volume_create(struct store *store, const char *image, uint64_t bytes, const char *path)
{
    CLEANUP_FD int lock = -1, directory = -1;
    struct volume_description is = {0};
    /* Held until all is there: gc, which wants it alone, sees the image's name or the registration, or both.
     */
    int r = store_lock(store, LOCK_SH, &lock);
    if (r == 0)
        r = describe(store, image, bytes, &is);
    if (r < 0)
        return r;
    r = sys_mkdir(AT_FDCWD, path, 0755);
    if (r < 0)
        return fail_errno(r, "%s: cannot make the volume", path);
    directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = directory < 0 ? -errno : make_files(directory, &is);
    if (r == 0)
        r = register_volume(store, &is, directory);
    if (r == 0)
        r = sys_rename(directory, "volume.json.new", directory, "volume.json", 0);
    if (r == 0)
        return 0;
    fail_errno(r, "%s: cannot make the volume", path);
    static const char *const files[] = {"volume.json.new", "volume.json", "delta", "map"};
    for (unsigned i = 0; i < ARRAY_SIZE(files) && directory >= 0; i++)
        unlinkat(directory, files[i], 0);
    unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
    unlinkat(store->volumes, is.id, 0);
    return r;
}

int volume_remove(struct store *store, const char *path)
{
    CLEANUP_FD int lock = -1, map = -1;
    struct volume_description is;
    CLEANUP_FD int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return fail_errno(-errno, "%s: cannot open the volume", path);
    int r = volume_description_read(directory, path, &is);
    if (r < 0)
        return r;
    map = openat(directory, "map", O_RDONLY | O_CLOEXEC);
    if (map >= 0 && flock_soon(map, LOCK_EX) < 0)
        return fail(-EBUSY, "%s: in use by a running VM; stop that first", path);
    r = store_lock(store, LOCK_SH, &lock);
    if (r < 0)
        return r;
    static const char *const files[] = {"volume.json", "delta", "map"};
    for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(files); i++) {
        r = sys_unlink(directory, files[i], 0);
        r = r == -ENOENT ? 0 : r;
    }
    if (r == 0)
        r = sys_unlink(AT_FDCWD, path, AT_REMOVEDIR);
    /* Only now: a volume that is still there must not lose what it stands on. */
    if (r == 0 && ((r = sys_unlink(store->volumes, is.id, 0)) == 0 || r == -ENOENT))
        r = sys_fsync(store->volumes);
    return r < 0 ? fail_errno(r, "%s: cannot remove the volume", path) : 0;
}

static int survey_volume(const struct ingest_source *source, uint64_t first_page, struct region_map *map)
{
    const struct volume *volume = source->opaque;
    uint64_t end = align_up(source->bytes, STORE_PAGE) / STORE_PAGE, page = first_page;
    end = MIN(end, first_page + REGION_PAGES);
    while (page < end) {
        struct volume_run run = volume_lookup(volume, page, end - page);
        uint64_t *bits = run.place == VOLUME_DELTA ? map->read : map->keep;
        for (uint64_t stop = MIN(end, page + run.pages); page < stop; page++)
            bits[(page - first_page) / 64] |= UINT64_C(1) << ((page - first_page) % 64);
    }
    return 0;
}

int volume_commit(struct store *store, const char *path, const char *name, struct ingest_report *ret_report)
{
    struct volume *volume = NULL;
    struct store_writer *writer = NULL;
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    int r = ref_check_name(name);
    if (r == 0) /* for writing: a running VM is kept out */
        r = volume_open(store, path, false, &volume);
    if (r == 0)
        r = writer_begin(store, &writer);
    if (r == 0) {
        const struct manifest *base = volume_manifest(volume);
        struct ingest_source source = {.name = path,
                                       .bytes = volume_bytes(volume),
                                       .fd = volume_delta(volume),
                                       .survey = survey_volume,
                                       .opaque = volume};
        struct ingest_options options = {.bases = &base, .base_count = 1, .in_place_only = true};
        r = ingest(writer, store, &source, &options, &manifest, ret_report);
    }
    if (r == 0)
        r = writer_publish(writer, manifest, name);
    writer_end(writer);
    volume_close(volume);
    return r;
}
