#include "store/private.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>

int (*store_fault)(const struct store_step *step);

static int step(struct store_step step)
{
    return store_fault ? store_fault(&step) : 0;
}

int sys_fault(const char *name, int fd)
{
    return step((struct store_step){.name = name, .fd = fd});
}

static int result(int returned)
{
    return returned < 0 ? -errno : 0;
}

int sys_open(int directory, const char *path, int flags, mode_t mode)
{
    int r = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE
                ? step((struct store_step){"create", directory, path, -1, NULL})
                : 0;
    if (r < 0)
        return r;
    int fd = openat(directory, path, flags | O_CLOEXEC, mode);
    return fd < 0 ? -errno : fd;
}

int sys_write(int fd, const void *bytes, size_t length, uint64_t offset)
{
    int r = sys_fault("write", fd);
    return r < 0 ? r : write_full_at(fd, bytes, length, offset);
}

int sys_fsync(int fd)
{
    int r = sys_fault("fsync", fd);
    return r < 0 ? r : result(fsync(fd));
}

int sys_fdatasync(int fd)
{
    int r = sys_fault("fdatasync", fd);
    return r < 0 ? r : result(fdatasync(fd));
}

int sys_syncfs(int fd)
{
    int r = sys_fault("syncfs", fd);
    return r < 0 ? r : result(syncfs(fd));
}

int sys_rename(int from_directory, const char *from, int to_directory, const char *to, unsigned flags)
{
    int r = step((struct store_step){"rename", from_directory, from, to_directory, to});
    return r < 0 ? r : result(renameat2(from_directory, from, to_directory, to, flags));
}

int sys_unlink(int directory, const char *path, int flags)
{
    int r = step((struct store_step){"unlink", directory, path, -1, NULL});
    return r < 0 ? r : result(unlinkat(directory, path, flags));
}

int sys_link(const char *from, int directory, const char *to)
{
    int r = step((struct store_step){"link", directory, to, -1, NULL});
    return r < 0 ? r : result(linkat(AT_FDCWD, from, directory, to, AT_SYMLINK_FOLLOW));
}

int sys_mkdir(int directory, const char *path, mode_t mode)
{
    int r = step((struct store_step){"mkdir", directory, path, -1, NULL});
    return r < 0 ? r : result(mkdirat(directory, path, mode));
}

int sys_truncate(int fd, uint64_t length)
{
    int r = sys_fault("truncate", fd);
    return r < 0 ? r : result(ftruncate(fd, (off_t)length));
}

int sys_stamp(int directory, const char *path, const struct timespec *stamp)
{
    int r = step((struct store_step){"stamp", directory, path, -1, NULL});
    if (r < 0)
        return r;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, *stamp};
    return result(path ? utimensat(directory, path, times, AT_SYMLINK_NOFOLLOW) : futimens(directory, times));
}
