/* How a registered volume is, and sweeping away one that is half done. */
#include "store/volume_files.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

int volume_remove_files(int directory, const char *const *files, unsigned count)
{
    int first = 0;
    for (unsigned i = 0; i < count; i++) {
        int r = sys_unlink(directory, files[i], 0);
        if (first == 0 && r != -ENOENT)
            first = r;
    }
    return first;
}

/* Whether a writer, or any process, has the volume open: asked in a way that keeps only writers out, for a
 * moment. */
static bool is_open(int directory)
{
    CLEANUP_FD int map = openat(directory, "map", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return map >= 0 && flock(map, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

static bool has(int directory, const char *file, struct stat *ret_status)
{
    return fstatat(directory, file, ret_status, AT_SYMLINK_NOFOLLOW) == 0;
}

enum volume_state volume_entry_state(const struct volume_entry *entry, uint64_t *ret_written)
{
    struct volume_description description;
    struct stat status;
    *ret_written = 0;
    CLEANUP_FD int directory = open(entry->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return VOLUME_MISSING;
    if (!volume_entry_is(entry, directory))
        return VOLUME_REPLACED;
    if (has(directory, "delta", &status))
        *ret_written = (uint64_t)status.st_blocks * 512;
    if (!has(directory, VOLUME_DESCRIPTION, &status)) {
        if (has(directory, VOLUME_REMOVED, &status))
            return VOLUME_HALF_REMOVED;
        bool started = has(directory, VOLUME_NEW, &status);
        return started || !(has(directory, "map", &status) || has(directory, "delta", &status))
                   ? VOLUME_HALF_MADE
                   : VOLUME_DAMAGED;
    }
    if (volume_description_read(directory, entry->path, VOLUME_DESCRIPTION, &description) < 0)
        return VOLUME_DAMAGED;
    if (strcmp(description.id, entry->id) != 0)
        return VOLUME_REPLACED;
    if (!has(directory, "map", &status) || !has(directory, "delta", &status))
        return VOLUME_DAMAGED;
    return is_open(directory) ? VOLUME_IN_USE : VOLUME_READY;
}

void volume_entry_sweep(const struct volume_entry *entry)
{
    static const char *const files[] = {VOLUME_NEW, VOLUME_REMOVED, "delta", "map"};
    CLEANUP_FD int directory = open(entry->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0 && volume_entry_is(entry, directory) &&
        volume_remove_files(directory, files, ARRAY_SIZE(files)) == 0)
        (void)sys_unlink(AT_FDCWD, entry->path, AT_REMOVEDIR);
}
