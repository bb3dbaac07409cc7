#include "store/volume_files.h"
#include "store/wire.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

bool volume_id_is_valid(const char *text)
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
             !volume_id_is_valid(id) || object_id_parse(manifest, &description.manifest) < 0 || bytes < 0 ||
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

int volume_description_read(int directory, const char *path, const char *file,
                            struct volume_description *ret_description)
{
    char text[4096];
    int r = text_read(directory, file, text, sizeof(text));
    if (r == -ENOENT)
        return fail(r, "%s: not a volume (make one with: stellarium clone IMAGE %s)", path, path);
    if (r < 0)
        return fail_errno(r, "%s/%s", path, file);
    return volume_description_parse(text, path, ret_description);
}

int volume_map_header_read(int map, const char *path, struct volume_description *ret_description,
                           bool *ret_name_durable)
{
    uint8_t header[STORE_PAGE];
    struct volume_description description = {.bytes = 0};
    int r = read_full_at(map, header, sizeof(header), 0);
    if (r < 0)
        return fail_errno(r, "%s/map", path);
    memcpy(description.id, header + 56, 32);
    memcpy(&description.manifest, header + 24, OBJECT_ID_BYTES);
    description.bytes = get64(header + 16);
    if (memcmp(header, VOLUME_MAP_MAGIC, 8) != 0 || get32(header + 8) != VOLUME_VERSION ||
        get32(header + 12) > 1 || !volume_id_is_valid(description.id))
        return fail(-EBADMSG, "%s/map: not the map of a volume (is it damaged?)", path);
    *ret_description = description;
    *ret_name_durable = get32(header + 12) == 1;
    return 0;
}

/* Version 1 of a registration has two lines: manifest, path. Version 2 has a third: "directory DEVICE
 * INODE". */
int volume_entry_read(struct store *store, const char *id, struct volume_entry *ret_entry)
{
    char text[PATH_MAX + OBJECT_ID_TEXT + 64];
    struct volume_entry entry = {.device = 0};
    if (!volume_id_is_valid(id))
        return fail(-EINVAL, "%s/volumes/%s: not the name of a registration (delete it)", store->path, id);
    int r = text_read(store->volumes, id, text, sizeof(text));
    if (r < 0)
        return fail_errno(r, "%s/volumes/%s", store->path, id);
    if (text[0] == '\0')
        return fail(-ENOENT, "%s/volumes/%s: left by a clone that was interrupted (gc removes it)",
                    store->path, id);
    char *path = strchr(text, '\n'), *end = path ? strchr(path + 1, '\n') : NULL, *last = end;
    if (path)
        *path++ = '\0';
    if (end)
        *end++ = '\0';
    if (end && *end != '\0')
        last = sscanf(end, "directory %" SCNx64 " %" SCNu64, &entry.device, &entry.inode) == 2 && entry.inode
                   ? strchr(end, '\n')
                   : NULL;
    if (!last || last[1] != '\0' || strlen(path) >= sizeof(entry.path) ||
        object_id_parse(text, &entry.manifest) < 0)
        return fail(-EBADMSG,
                    "%s/volumes/%s: not a registration (was it edited? stellarium rm %s forgets it)",
                    store->path, id, id);
    memcpy(entry.id, id, sizeof(entry.id));
    memcpy(entry.path, path, strlen(path) + 1);
    *ret_entry = entry;
    return 0;
}

static bool is_directory(const char *path, const struct stat *directory)
{
    struct stat status;
    return stat(path, &status) == 0 && status.st_dev == directory->st_dev &&
           status.st_ino == directory->st_ino;
}

bool volume_entry_is(const struct volume_entry *entry, int directory)
{
    struct stat status;
    if (fstat(directory, &status) < 0)
        return false;
    if (entry->inode == 0)
        return is_directory(entry->path, &status);
    /* A disk may have another device number after a boot: then its path must be right. */
    return status.st_ino == entry->inode &&
           (status.st_dev == entry->device || is_directory(entry->path, &status));
}

int volume_entry_write(struct store *store, const struct volume_description *description, int directory,
                       bool replace)
{
    char link[64], path[PATH_MAX], manifest[OBJECT_ID_TEXT], text[PATH_MAX + OBJECT_ID_TEXT + 64];
    struct stat status;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    if (length < 0 || fstat(directory, &status) < 0)
        return -errno;
    path[length] = '\0';
    if (strchr(path, '\n'))
        return -EINVAL;
    snprintf(text, sizeof(text), "%s\n%s\ndirectory %llx %llu\n",
             object_id_text(&description->manifest, manifest), path, (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino);
    return replace ? text_publish(store, store->volumes, description->id, text)
                   : volume_make_file(store->volumes, description->id, text, strlen(text), strlen(text));
}

/* After a move, and where a registration has no directory yet. If it cannot be written, it stays as it is. */
static void refresh(struct store *store, const struct volume_entry *entry, int directory,
                    const struct volume_description *description)
{
    CLEANUP_FD int lock = -1;
    struct stat status;
    if (fstat(directory, &status) < 0 || (entry->inode != 0 && is_directory(entry->path, &status)))
        return;
    if (store_lock(store, LOCK_SH, &lock) == 0)
        (void)volume_entry_write(store, description, directory, true);
}

int volume_check_registered(struct store *store, const char *path, int directory, bool read_only,
                            const struct volume_description *description)
{
    struct volume_entry entry;
    if (faccessat(store->volumes, description->id, F_OK, 0) != 0)
        return fail(
            -ENOENT,
            "%s: not registered in %s (is it another store's? stellarium adopt %s registers it if the "
            "store has what it stands on)",
            path, store->path, path);
    int r = volume_entry_read(store, description->id, &entry);
    if (r < 0)
        return r;
    if (!object_id_equal(&entry.manifest, &description->manifest))
        return fail(-EBADMSG, "%s: %s has registered it with another manifest", path, store->path);
    if (!volume_entry_is(&entry, directory))
        return fail(
            -ESTALE,
            "%s: the store knows this volume as %s: this is a copy, or it came here from another file "
            "system (stellarium adopt %s makes it a volume of its own)",
            path, entry.path, path);
    if (!read_only && !store->read_only)
        refresh(store, &entry, directory, description);
    return 0;
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

int volume_make_file(int directory, const char *name, const void *bytes, size_t length, uint64_t size)
{
    CLEANUP_FD int fd = sys_open(directory, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    int r = fd < 0 ? fd : sys_truncate(fd, size);
    return r < 0 || length == 0 ? r : sys_write(fd, bytes, length, 0);
}

int volume_description_write(int directory, const char *file, const struct volume_description *description)
{
    char text[400], manifest[OBJECT_ID_TEXT];
    snprintf(text, sizeof(text),
             "{\"format\": \"stellarium-volume\", \"version\": %u, \"id\": \"%s\",\n \"manifest\": \"%s\",\n"
             " \"bytes\": %llu}\n",
             VOLUME_VERSION, description->id, object_id_text(&description->manifest, manifest),
             (unsigned long long)description->bytes);
    return volume_make_file(directory, file, text, strlen(text), strlen(text));
}
