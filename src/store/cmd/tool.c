/* Removing what other programs unpacked. */
#include "store/cmd/cmd.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

int remove_contents(int directory, const char *name)
{
    int again = directory < 0 ? -1 : dup(directory);
    DIR *stream = again < 0 ? NULL : fdopendir(again);
    if (!stream)
        return fail_errno(-errno, "%s cannot be removed", name);
    int r = 0;
    struct dirent *entry;
    while (r == 0 && (entry = readdir(stream)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = remove_tree(directory, entry->d_name);
    closedir(stream);
    return r;
}

int remove_tree(int directory, const char *path)
{
    if (unlinkat(directory, path, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return fail_errno(-errno, "%s cannot be removed", path);
    CLEANUP_FD int fd = openat(directory, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int r = remove_contents(fd, path);
    if (r == 0 && unlinkat(directory, path, AT_REMOVEDIR) < 0)
        r = fail_errno(-errno, "%s cannot be removed", path);
    return r;
}
