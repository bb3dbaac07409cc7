/* Writing an image out as a raw disk. */
#include "store/image.h"
#include "store/parallel.h"
#include "store/private.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

struct export
{
    struct store *store;
    const struct manifest *manifest;
    int fd;
    const char *name;
    export_progress progress;
    void *opaque;
    atomic_uint_fast64_t done;
};

static const uint8_t zeros[64 * STORE_PAGE];

static void tell_progress(struct export *export, uint64_t length)
{
    uint64_t done = atomic_fetch_add(&export->done, length) + length;
    if (export->progress)
        export->progress(export->opaque, done);
}

static int export_extent(void *opaque, uint64_t number)
{
    struct export *export = opaque;
    struct manifest_extent extent = manifest_extent(export->manifest, number);
    CLEANUP_FREE uint8_t *buffer = malloc(STORE_OBJECT_BYTES);
    if (!buffer)
        return fail(-ENOMEM, "%s: no memory to write it", export->name);
    int r = object_read_verified(export->store, export->manifest, extent.object, extent.object_page,
                                 extent.pages, buffer, buffer);
    if (r < 0)
        return r;
    uint64_t offset = extent.first_page * STORE_PAGE;
    uint64_t length = MIN((uint64_t)extent.pages * STORE_PAGE, export->manifest->image_bytes - offset);
    r = sys_write(export->fd, buffer, length, offset);
    if (r < 0)
        return fail_errno(r, "%s: cannot be written", export->name);
    tell_progress(export, length);
    return 0;
}

static int write_zeros(struct export *export, uint64_t first_page, uint64_t end_page)
{
    uint64_t at = first_page * STORE_PAGE, end = MIN(end_page * STORE_PAGE, export->manifest->image_bytes);
    while (at < end) {
        size_t length = (size_t)MIN(sizeof(zeros), end - at);
        int r = sys_write(export->fd, zeros, length, at);
        if (r < 0)
            return fail_errno(r, "%s: cannot be written", export->name);
        at += length;
    }
    return 0;
}

int image_export(struct store *store, const struct manifest *manifest, int fd, const char *name, bool sparse,
                 export_progress progress, void *opaque)
{
    struct export export = {store, manifest, fd, name, progress, opaque, 0};
    int r = parallel(manifest->extent_count, export_extent, &export);
    for (uint64_t page = 0; r == 0 && !sparse && page < manifest->image_pages;) {
        struct manifest_run run = manifest_lookup(manifest, page);
        if (run.zero)
            r = write_zeros(&export, page, page + run.pages);
        page += run.pages;
    }
    if (r == 0 && (r = sys_fsync(fd)) < 0)
        return fail_errno(r, "%s", name);
    return r;
}

/* The descriptor may be another's, and set not to wait. */
static int stream_write(struct export *export, const uint8_t *bytes, size_t length)
{
    int r = sys_fault("write", export->fd);
    while (r == 0 && length > 0) {
        ssize_t n = write(export->fd, bytes, length);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd room = {.fd = export->fd, .events = POLLOUT};
            poll(&room, 1, -1);
        } else if (n < 0 && errno != EINTR) {
            r = -errno;
        } else if (n > 0) {
            bytes += n;
            length -= (size_t)n;
        }
    }
    return r < 0 ? fail_errno(r, "%s: cannot be written", export->name) : 0;
}

static int stream_run(struct export *export, uint64_t page, const struct manifest_run *run, uint8_t *buffer)
{
    uint64_t left = MIN(run->pages * STORE_PAGE, export->manifest->image_bytes - page * STORE_PAGE);
    int r = 0;
    if (!run->zero) {
        r = object_read_verified(export->store, export->manifest, run->object, run->object_page,
                                 (unsigned)run->pages, buffer, buffer);
        if (r == 0)
            r = stream_write(export, buffer, (size_t)left);
        if (r == 0)
            tell_progress(export, left);
        return r;
    }
    while (r == 0 && left > 0) {
        size_t length = (size_t)MIN(sizeof(zeros), left);
        r = stream_write(export, zeros, length);
        left -= length;
    }
    return r;
}

int image_export_stream(struct store *store, const struct manifest *manifest, int fd, const char *name,
                        export_progress progress, void *opaque)
{
    struct export export = {store, manifest, fd, name, progress, opaque, 0};
    CLEANUP_FREE uint8_t *buffer = malloc(STORE_OBJECT_BYTES);
    if (!buffer)
        return fail(-ENOMEM, "%s: no memory to write it", name);
    int r = 0;
    for (uint64_t page = 0; r == 0 && page < manifest->image_pages;) {
        struct manifest_run run = manifest_lookup(manifest, page);
        r = stream_run(&export, page, &run, buffer);
        page += run.pages;
    }
    return r;
}

/* Opening it exclusively fails while it is mounted, holds a mounted partition, is swapped to, or is another
 * export's. */
static int open_device(const char *path, uint64_t bytes, int *ret_fd)
{
    uint64_t size = 0;
    CLEANUP_FD int fd = open(path, O_WRONLY | O_EXCL | O_CLOEXEC);
    if (fd < 0 && errno == EBUSY)
        return fail(-EBUSY, "%s: in use, perhaps mounted (nothing was written)", path);
    if (fd < 0)
        return fail_errno(-errno, "%s", path);
    if (ioctl(fd, BLKGETSIZE64, &size) < 0)
        return fail_errno(-errno, "%s: has no size", path);
    if (size < bytes)
        return fail(-ENOSPC, "%s: %llu bytes, the image has %llu (nothing was written)", path,
                    (unsigned long long)size, (unsigned long long)bytes);
    *ret_fd = fd_steal(&fd);
    return 0;
}

/* A file on its way to its name. */
struct target {
    char path[PATH_MAX]; /* without symbolic links, if it exists */
    char *name;          /* its last part */
    int directory, fd;
    char temporary[NAME_MAX + 1]; /* beside it; "" while it has no name at all */
};

/* Where the file system has no unnamed files: a signal's handler removes the name. Another file is left by
 * kill -9. */
static struct {
    int directory;
    const char *volatile name;
} temporary_of_signal;

static void on_signal(int number)
{
    const char *name = temporary_of_signal.name;
    if (name)
        unlinkat(temporary_of_signal.directory, name, 0);
    signal(number, SIG_DFL);
    raise(number);
}

static void catch_signals(const struct target *target)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
    temporary_of_signal.directory = target->directory;
    temporary_of_signal.name = target->temporary;
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++) {
        struct sigaction old;
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
            sigaction(signals[i], &(struct sigaction){.sa_handler = on_signal}, NULL);
    }
}

static void temporary_name(struct target *target)
{
    char random[TMP_NAME_MAX];
    tmp_name("", random); /* a dot and digits */
    snprintf(target->temporary, sizeof(target->temporary), ".stellarium-export%s", random);
}

static int target_open(struct target *target, const char *path)
{
    struct stat link;
    if (!realpath(path, target->path)) { /* it does not exist, then its folder counts */
        if (lstat(path, &link) == 0)     /* /dev/stdout, for one, must not be replaced */
            return fail(-ENOENT, "%s: leads to no file", path);
        if (strlen(path) >= sizeof(target->path))
            return fail(-ENAMETOOLONG, "%.60s", path);
        snprintf(target->path, sizeof(target->path), "%s", path);
    }
    char *slash = strrchr(target->path, '/');
    target->name = slash ? slash + 1 : target->path;
    if (slash)
        *slash = '\0';
    if (!*target->name)
        return fail(-EISDIR, "%s: not the name of a file", path);
    const char *folder = !slash ? "." : slash == target->path ? "/" : target->path;
    target->directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (target->directory < 0)
        return fail_errno(-errno, "%s", path);
    target->fd = sys_open(target->directory, ".", O_WRONLY | O_TMPFILE, 0666);
    if (target->fd == -EOPNOTSUPP || target->fd == -EISDIR || target->fd == -EINVAL ||
        target->fd == -ENOENT) {
        temporary_name(target);
        target->fd = sys_open(target->directory, target->temporary, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (target->fd >= 0)
            catch_signals(target);
    }
    return target->fd < 0 ? fail_errno(target->fd, "%s: cannot be made", path) : 0;
}

static void keep_mode(const struct target *target)
{
    struct stat status;
    if (fstatat(target->directory, target->name, &status, 0) < 0)
        return;
    if (fchown(target->fd, status.st_uid, status.st_gid) == 0 || errno == EPERM)
        (void)fchmod(target->fd, status.st_mode & 0777);
}

/* The name at last. A link cannot replace a file, a rename can: then there is another name for a moment. */
static int target_publish(struct target *target)
{
    char self[64];
    int r = -EEXIST;
    keep_mode(target);
    snprintf(self, sizeof(self), "/proc/self/fd/%d", target->fd);
    if (!target->temporary[0]) {
        r = sys_link(self, target->directory, target->name);
        if (r != -EEXIST)
            return r < 0 ? r : sys_fsync(target->directory);
        temporary_name(target);
        r = sys_link(self, target->directory, target->temporary);
        if (r < 0) {
            target->temporary[0] = '\0';
            return r;
        }
    }
    r = sys_rename(target->directory, target->temporary, target->directory, target->name, 0);
    if (r < 0)
        return r;
    target->temporary[0] = '\0';
    return sys_fsync(target->directory);
}

static int export_file(struct store *store, const struct manifest *manifest, const char *path, bool sparse,
                       export_progress progress, void *opaque)
{
    struct target target = {.directory = -1, .fd = -1};
    int r = target_open(&target, path);
    if (r == 0 && sparse && (r = sys_truncate(target.fd, manifest->image_bytes)) < 0)
        r = fail_errno(r, "%s: cannot be as long as the image", path);
    if (r == 0)
        r = image_export(store, manifest, target.fd, path, sparse, progress, opaque);
    if (r == 0 && (r = target_publish(&target)) < 0)
        r = fail_errno(r, "%s: cannot be given its name", path);
    temporary_of_signal.name = NULL;
    if (target.temporary[0])
        unlinkat(target.directory, target.temporary, 0);
    cleanup_fd(&target.fd);
    cleanup_fd(&target.directory);
    return r;
}

int image_export_to(struct store *store, const struct manifest *manifest, const char *path, bool sparse,
                    export_progress progress, void *opaque)
{
    struct stat status;
    CLEANUP_FD int fd = -1;
    if (strcmp(path, "-") == 0)
        return image_export_stream(store, manifest, STDOUT_FILENO, "standard output", progress, opaque);
    if (stat(path, &status) < 0 || S_ISREG(status.st_mode))
        return export_file(store, manifest, path, sparse, progress, opaque);
    if (S_ISDIR(status.st_mode))
        return fail(-EISDIR, "%s: a directory (give a file's name)", path);
    if (!S_ISBLK(status.st_mode)) {
        fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        return fd < 0 ? fail_errno(-errno, "%s", path)
                      : image_export_stream(store, manifest, fd, path, progress, opaque);
    }
    int r = open_device(path, manifest->image_bytes, &fd);
    /* What a device held before would show through holes, so it is given its zeros. */
    return r < 0 ? r : image_export(store, manifest, fd, path, false, progress, opaque);
}
