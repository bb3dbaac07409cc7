#include "base/unix_listener.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* Who connects while the loop is busy waits here; more get EAGAIN. */
#define BACKLOG 1024

static int bind_private(int fd, const struct sockaddr_un *address)
{
    /* The file gets the socket's own mode: no moment in which others could connect, and no umask of the whole
     * process. */
    if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
        return -errno;
    return 0;
}

/* True if `address` is a socket that nobody listens on. */
static bool is_stale(const struct sockaddr_un *address)
{
    struct stat status;
    if (lstat(address->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return false;
    CLEANUP_FD int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return probe >= 0 && connect(probe, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
           errno == ECONNREFUSED;
}

/* The folder of `path`, locked. */
static int lock_folder(const char *path)
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof(copy), "%s", path);
    CLEANUP_FD int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    unsigned attempts = 0;
    while (flock(fd, LOCK_EX | LOCK_NB) < 0)
        if (errno != EWOULDBLOCK || !lock_again(&attempts))
            return -errno;
    return fd_steal(&fd);
}

/* A socket file exists a moment before it is listened on. Under the folder's lock others who look whether one
 * is stale do not see that moment. */
static int bind_and_listen(int fd, const struct sockaddr_un *address, bool replace)
{
    CLEANUP_FD int lock = lock_folder(address->sun_path); /* a folder that cannot be read goes without */
    int r = bind_private(fd, address);
    if (r == -EADDRINUSE && replace && is_stale(address)) {
        if (unlink(address->sun_path) < 0)
            return -errno;
        r = bind_private(fd, address);
    }
    if (r == 0 && listen(fd, BACKLOG) < 0)
        r = -errno;
    return r;
}

static int absolute(const char *path, char **ret_path)
{
    CLEANUP_FREE char *folder = path[0] == '/' ? NULL : getcwd(NULL, 0);
    if (path[0] != '/' && !folder)
        return fail_errno(-errno, "%s", path);
    if (asprintf(ret_path, "%s%s%s", folder ? folder : "", folder ? "/" : "", path) < 0)
        return fail(-ENOMEM, "%s: no memory", path);
    return 0;
}

/* Which file is at `path`; nothing is changed if there is none. Some file systems do not tell when it was
 * made. */
static void identify(const char *path, struct unix_listener *ret_listener)
{
    struct statx status;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &status) < 0)
        return;
    ret_listener->inode = status.stx_ino;
    ret_listener->born[0] = (uint64_t)status.stx_btime.tv_sec;
    ret_listener->born[1] = status.stx_btime.tv_nsec;
}

int unix_listener_open(const char *path, bool replace, struct unix_listener *ret_listener)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return fail(-ENAMETOOLONG, "%s: a socket's path has at most %zu bytes", path,
                    sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path));

    CLEANUP_FREE char *whole = NULL;
    int r = absolute(path, &whole);
    if (r < 0)
        return r;
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail_errno(-errno, "%s", path);
    r = bind_and_listen(fd, &address, replace);
    if (r == -EADDRINUSE)
        return fail(r, "%s: is there already, and in use or no socket (give another path)", path);
    if (r < 0)
        return fail_errno(r, "%s", path);
    struct unix_listener found = {.fd = fd_steal(&fd), .path = ptr_steal(&whole)};
    identify(found.path, &found);
    *ret_listener = found;
    return 0;
}

int unix_listener_adopt(int fd, struct unix_listener *ret_listener)
{
    struct sockaddr_un address = {0};
    socklen_t length = sizeof(address) - 1;
    struct unix_listener found = {.fd = fd};
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        return fail_errno(-errno, "a socket that was handed in");
    if (address.sun_family != AF_UNIX || address.sun_path[0] != '/')
        return fail(-EINVAL, "a socket that was handed in has no path");
    if (listen(fd, BACKLOG) < 0) /* who connects is told that it is this process that listens */
        return fail_errno(-errno, "a socket that was handed in");
    found.path = strdup(address.sun_path);
    if (!found.path)
        return fail(-ENOMEM, "no memory for a socket");
    identify(found.path, &found);
    *ret_listener = found;
    return 0;
}

void unix_listener_remove(struct unix_listener *listener)
{
    struct unix_listener there = {0};
    if (listener->path) {
        CLEANUP_FD int lock = lock_folder(listener->path);
        identify(listener->path, &there);
        if (listener->inode && there.inode == listener->inode &&
            memcmp(there.born, listener->born, sizeof(there.born)) == 0)
            unlinkat(AT_FDCWD, listener->path, 0);
    }
    free(listener->path);
    listener->path = NULL;
}
