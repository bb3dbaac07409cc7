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
    int r = flags & O_CREAT ? step((struct store_step){"create", directory, path, -1, NULL}) : 0;
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

int text_read(int directory, const char *path, char *text, size_t size)
{
    CLEANUP_FD int fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    size_t have = 0;
    while (have < size) {
        ssize_t n = read(fd, text + have, size - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        have += (size_t)n;
    }
    if (have == size)
        return -EFBIG;
    text[have] = '\0';
    return 0;
}

int text_publish(struct store *store, int directory, const char *path, const char *text,
                 unsigned rename_flags)
{
    char temporary[TMP_NAME_MAX];
    tmp_name("text", temporary);
    CLEANUP_FD int fd = sys_open(store->tmp, temporary, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (fd < 0)
        return fd;
    int r = sys_write(fd, text, __builtin_strlen(text), 0);
    if (r == 0)
        r = sys_fsync(fd);
    if (r == 0)
        r = sys_rename(store->tmp, temporary, directory, path, rename_flags);
    if (r < 0) {
        unlinkat(store->tmp, temporary, 0);
        return r;
    }
    return sys_fsync(directory);
}
