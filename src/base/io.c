#include "base/base.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>

int open_noatime(int dir, const char *path, int flags)
{
    int fd = openat(dir, path, flags | O_NOATIME);
    return fd < 0 && errno == EPERM ? openat(dir, path, flags) : fd;
}

int fd_own_description(int fd, int mode)
{
    struct stat status;
    char path[32];
    if (fstat(fd, &status) < 0 || !(S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)))
        return fd;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int own = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return own < 0 ? fd : own;
}

int open_input_file(const char *what, const char *path, int *ret_fd)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail_errno(-errno, "%s %s", what, path);
    if (S_ISREG(status.st_mode)) {
        *ret_fd = fd;
        return 0;
    }
    close(fd);
    return fail(-EINVAL, "%s %s: %s, and no file (copy what it holds into one)", what, path,
                S_ISDIR(status.st_mode)    ? "a folder"
                : S_ISFIFO(status.st_mode) ? "a FIFO"
                                           : "a device");
}

bool lock_again(unsigned *attempts)
{
    static const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
    if ((*attempts)++ == 100)
        return false;
    nanosleep(&pause, NULL);
    return true;
}

void fd_reserve(unsigned count)
{
    static unsigned reserved = 64; /* what any process has open, and what the kernel begins with */
    reserved += count;
    /* The highest of them in use for a moment makes the table as large as it. */
    int any = open("/", O_PATH | O_CLOEXEC);
    int last = any < 0 ? -1 : fcntl(any, F_DUPFD_CLOEXEC, (int)reserved);
    cleanup_fd(&last);
    cleanup_fd(&any);
}

bool file_next_data(int fd, uint64_t at, uint64_t end, uint64_t *ret_data, uint64_t *ret_hole)
{
    if (at >= end)
        return false;
    off_t data = lseek(fd, (off_t)at, SEEK_DATA);
    if ((data < 0 && errno == ENXIO) || (data >= 0 && (uint64_t)data >= end))
        return false;
    off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
    *ret_data = data < 0 ? at : (uint64_t)data;
    *ret_hole = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
    return true;
}

int read_full_at(int fd, void *buffer, size_t length, uint64_t offset)
{
    char *at = buffer;
    while (length > 0) {
        ssize_t n = pread(fd, at, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EPIPE;
        at += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return 0;
}

int write_full_at(int fd, const void *buffer, size_t length, uint64_t offset)
{
    const char *at = buffer;
    while (length > 0) {
        ssize_t n = pwrite(fd, at, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return 0;
}

static int compare_fds(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

void fd_close_others(int fds[], size_t count)
{
    unsigned first = 0;
    qsort(fds, count, sizeof(*fds), compare_fds);
    for (size_t i = 0; i < count; i++) {
        if ((unsigned)fds[i] > first)
            syscall(SYS_close_range, first, (unsigned)fds[i] - 1, 0);
        first = (unsigned)fds[i] + 1;
    }
    syscall(SYS_close_range, first, UINT_MAX, 0);
}

int write_full(int fd, const void *buffer, size_t length)
{
    const char *at = buffer;
    while (length > 0) {
        ssize_t n = write(fd, at, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        length -= (size_t)n;
    }
    return 0;
}
