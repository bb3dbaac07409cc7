/* Raw disks in regular files and block devices. Never mapped: a file that is truncated under a mapping kills
 * by SIGBUS, a read of it only comes up short. */
#include "dev/disk.h"
#include "dev/disk_ranges.h"
#include "store/disk_format.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

struct disk_file {
    struct disk disk;
    int fd;
    /* With `direct`, requests that O_DIRECT cannot do (unaligned buffers, parts of blocks) go through the
     * page cache by a second description of the file, alone on their pages. A direct write afterwards has the
     * kernel write those pages and drop them first. -1 without `direct`. */
    int cached_fd;
    uint32_t memory_align, offset_align; /* what O_DIRECT takes */
    struct disk_ranges ranges;           /* used with `direct` only */
};

static struct disk_file *file_of(struct disk *disk)
{
    return container_of(disk, struct disk_file, disk);
}

/* --- reading and writing --- */

/* Every length of a part must do, not only that of all: the kernel may split the request there. */
static bool takes_direct(const struct disk_file *file, const struct disk_io *io)
{
    uint64_t offsets = io->offset + io->progress, buffers = 0;
    for (unsigned i = 0; i < io->iov_count; i++) {
        offsets |= io->iov[i].iov_len;
        buffers |= (uintptr_t)io->iov[i].iov_base;
    }
    return !(offsets & (file->offset_align - 1)) && !(buffers & (file->memory_align - 1));
}

static int fd_for(const struct disk_file *file, const struct disk_io *io)
{
    return file->cached_fd >= 0 && !takes_direct(file, io) ? file->cached_fd : file->fd;
}

static void start_read(struct disk_io *io)
{
    int fd = fd_for(file_of(io->disk), io);
    uint64_t offset = io->offset + io->progress;
    if (io->iov_count == 1)
        loop_read(io->disk->loop, &io->op, fd, io->iov->iov_base, (uint32_t)io->iov->iov_len, offset);
    else
        loop_readv(io->disk->loop, &io->op, fd, io->iov, io->iov_count, offset);
}

static void start_write(struct disk_io *io)
{
    int fd = fd_for(file_of(io->disk), io);
    uint64_t offset = io->offset + io->progress;
    if (io->iov_count == 1)
        loop_write(io->disk->loop, &io->op, fd, io->iov->iov_base, (uint32_t)io->iov->iov_len, offset);
    else
        loop_writev(io->disk->loop, &io->op, fd, io->iov, io->iov_count, offset);
}

/* True if the operation is over, `*result` as it is for done(). A file that ends early (it was truncated
 * after it was opened) is an I/O error. */
static bool is_over(struct disk_io *io, int *result)
{
    if (*result == -EINTR)
        return false;
    if (*result > 0 && (uint64_t)*result < io->length - io->progress) {
        disk_io_advance(io, (uint64_t)*result);
        return false;
    }
    if (*result >= 0)
        *result = *result == 0 ? -EIO : 0;
    return true;
}

static void read_done(struct loop_op *op, int result, unsigned flags)
{
    struct disk_io *io = container_of(op, struct disk_io, op);
    (void)flags;
    if (is_over(io, &result))
        io->done(io, result);
    else
        start_read(io);
}

static void begin(struct disk *disk, struct disk_io *io, loop_done *done)
{
    io->disk = disk;
    io->progress = 0;
    io->op = (struct loop_op){.done = done};
}

static void disk_file_read(struct disk *disk, struct disk_io *io)
{
    begin(disk, io, read_done);
    start_read(io);
}

/* --- changes: writes, discards, zeroes --- */

static void write_done(struct loop_op *op, int result, unsigned flags);
static void punch_done(struct loop_op *op, int result, unsigned flags);
static void zero_range_done(struct loop_op *op, int result, unsigned flags);

static void allocate(struct disk_io *io, int mode)
{
    loop_fallocate(io->disk->loop, &io->op, file_of(io->disk)->fd, mode | FALLOC_FL_KEEP_SIZE, io->offset,
                   io->length);
}

/* Also after a part, or when it had to wait. */
static void start_change(struct disk_io *io)
{
    struct disk_file *file = file_of(io->disk);
    bool write = io->op.done == write_done;
    if (file->cached_fd >= 0 && !disk_ranges_enter(&file->ranges, io, align_down(io->offset, DISK_PHYSICAL),
                                                   align_up(io->offset + io->length, DISK_PHYSICAL),
                                                   write && !takes_direct(file, io)))
        return;
    if (write)
        start_write(io);
    else
        allocate(io, io->op.done == zero_range_done ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE);
}

static void leave(struct disk_io *io)
{
    struct disk_file *file = file_of(io->disk);
    if (file->cached_fd >= 0)
        disk_ranges_leave(&file->ranges, io, start_change);
}

static void change_done(struct disk_io *io, int result)
{
    leave(io);
    io->done(io, result);
}

static void write_done(struct loop_op *op, int result, unsigned flags)
{
    struct disk_io *io = container_of(op, struct disk_io, op);
    (void)flags;
    if (is_over(io, &result)) {
        change_done(io, result);
    } else { /* what is left may be nothing for O_DIRECT, then it has to be alone */
        leave(io);
        start_change(io);
    }
}

static void disk_file_write(struct disk *disk, struct disk_io *io)
{
    begin(disk, io, write_done);
    start_change(io);
}

static void punch_done(struct loop_op *op, int result, unsigned flags)
{
    (void)flags;
    change_done(container_of(op, struct disk_io, op), result);
}

/* A discard is a hint: a file system that cannot make holes has taken it. */
static void discard_done(struct loop_op *op, int result, unsigned flags)
{
    punch_done(op, result == -EOPNOTSUPP ? 0 : result, flags);
}

static void disk_file_discard(struct disk *disk, struct disk_io *io)
{
    begin(disk, io, discard_done);
    start_change(io);
}

/* A hole reads as zeros too; it only does not keep the space, which not every file system (tmpfs) can
 * promise. */
static void zero_range_done(struct loop_op *op, int result, unsigned flags)
{
    if (result == -EOPNOTSUPP) {
        op->done = punch_done;
        allocate(container_of(op, struct disk_io, op), FALLOC_FL_PUNCH_HOLE);
    } else {
        punch_done(op, result, flags);
    }
}

static void disk_file_write_zeroes(struct disk *disk, struct disk_io *io)
{
    begin(disk, io, io->unmap ? punch_done : zero_range_done);
    start_change(io);
}

/* --- the others --- */

static void flush_done(struct loop_op *op, int result, unsigned flags)
{
    struct disk_io *io = container_of(op, struct disk_io, op);
    (void)flags;
    io->done(io, result);
}

static void disk_file_flush(struct disk *disk, struct disk_io *io)
{
    begin(disk, io, flush_done);
    loop_fdatasync(disk->loop, &io->op, file_of(disk)->fd);
}

static void disk_file_each_fd(struct disk *disk, disk_fd_told *told, void *context)
{
    told(context, file_of(disk)->fd);
    told(context, file_of(disk)->cached_fd);
}

static int disk_file_copy(struct disk *disk, int fd)
{
    if (ioctl(fd, FICLONE, file_of(disk)->fd) == 0)
        return 0;
    return fail(-EOPNOTSUPP,
                "its file cannot be copied at once (%s): use a volume of the store, or ,ro, or a file system "
                "with reflinks (xfs, btrfs) for both the disk and $TMPDIR",
                strerror(errno));
}

/* Direct I/O ends with the descriptor that had it. */
static void disk_file_copied(struct disk *disk, int fd)
{
    struct disk_file *file = file_of(disk);
    if (fd < 0)
        return;
    cleanup_fd(&file->fd);
    cleanup_fd(&file->cached_fd);
    file->fd = fd;
}

static void disk_file_close(struct disk *disk)
{
    struct disk_file *file = file_of(disk);
    cleanup_fd(&file->fd); /* and with it the lock */
    cleanup_fd(&file->cached_fd);
    free(file->ranges.waiting.items);
    free(file);
}

/* --- opening --- */

/* Bytes of the disk, by what kind of file it is. */
static int disk_size(int fd, const char *path, const struct stat *st, uint64_t *ret_size)
{
    uint64_t size = (uint64_t)st->st_size;
    if (S_ISBLK(st->st_mode) && ioctl(fd, BLKGETSIZE64, &size) < 0)
        return fail_errno(-errno, "%s: the size of the device", path);
    if (size == 0)
        return fail(-EINVAL, "%s: empty (make it as large as the disk is to be: truncate -s 1G)", path);
    *ret_size = size;
    return 0;
}

/* A device can be read-only although it opens for writing (blockdev --setro). */
static int check_writable(int fd, const char *path, const struct stat *st)
{
    int read_only = 0;
    if (S_ISBLK(st->st_mode) && ioctl(fd, BLKROGET, &read_only) == 0 && read_only)
        return fail(-EROFS, "%s: the device is read-only (give it ,ro, or blockdev --setrw)", path);
    return 0;
}

/* For O_DIRECT: the alignment it wants, and a description that wants none. */
static int open_cached(struct disk_file *file, const char *path, bool read_only)
{
    struct statx x = {0};
    int logical = 0;
    file->memory_align = file->offset_align = 4096; /* before Linux 6.1: what every disk can do */
    if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &x) == 0 && (x.stx_mask & STATX_DIOALIGN)) {
        if (x.stx_dio_offset_align == 0)
            return fail(-EINVAL, "%s: its file system has no direct I/O (leave ,direct out)", path);
        file->memory_align = x.stx_dio_mem_align;
        file->offset_align = x.stx_dio_offset_align;
    } else if (ioctl(file->fd, BLKSSZGET, &logical) == 0 && logical > 0) {
        file->memory_align = file->offset_align = (uint32_t)logical;
    }
    char again[32];
    snprintf(again, sizeof(again), "/proc/self/fd/%d", file->fd);
    file->cached_fd = open(again, O_CLOEXEC | (read_only ? O_RDONLY : O_RDWR));
    if (file->cached_fd < 0)
        return fail_errno(-errno, "%s: cannot be opened again for requests that direct I/O does not take",
                          path);
    /* No pages are read ahead, which a direct write would have to throw out again. */
    (void)posix_fadvise(file->cached_fd, 0, 0, POSIX_FADV_RANDOM);
    return 0;
}

/* One writer or many readers; the lock goes with the open file, also into a child of fork(2). */
static int lock(int fd, const char *path, bool read_only)
{
    struct flock whole = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    unsigned attempts = 0;
    int r;
    do
        r = fcntl(fd, F_OFD_SETLK, &whole);
    while (r < 0 && (errno == EAGAIN || errno == EACCES) && lock_again(&attempts));
    if (r == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return fail(-EBUSY, "%s: in use by another VM%s (give this one a copy, or ,ro to both)", path,
                    read_only ? " that writes to it" : "");
    return fail_errno(-errno, "%s: lock", path);
}

static int open_failed(int error, const char *path, bool read_only, bool direct)
{
    if ((error == -EACCES || error == -EROFS || error == -EPERM) && !read_only)
        return fail(error, "%s: cannot be written (make it writable, or give it ,ro)", path);
    if (error == -EBUSY)
        return fail(error, "%s: the device is mounted or otherwise in use (unmount it, or give it ,ro)",
                    path);
    if (error == -EINVAL && direct)
        return fail(error, "%s: its file system has no direct I/O (leave ,direct out)", path);
    return fail_errno(error, "%s", path);
}

/* One that is open already has its lock, and a device that is open exclusively cannot be opened again. */
static bool is_held(const struct disk_options *options, const struct stat *st)
{
    struct stat held;
    return options->held_fd > 0 && fstat(options->held_fd, &held) == 0 && held.st_dev == st->st_dev &&
           held.st_ino == st->st_ino;
}

static int open_path(const char *path, const struct disk_options *options, struct stat *ret_st, int *ret_fd)
{
    bool read_only = options->read_only;
    /* A look first: opening a FIFO would wait for its other end. */
    struct stat st;
    if (stat(path, &st) < 0)
        return open_failed(-errno, path, true, false);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return fail(-EINVAL, "%s: neither a file nor a block device", path);
    int flags = O_CLOEXEC | (read_only ? O_RDONLY : O_RDWR) | (options->direct ? O_DIRECT : 0);
    if (S_ISBLK(st.st_mode) && !read_only)
        flags |= O_EXCL; /* for a device: refuse one that is mounted */
    CLEANUP_FD int fd = is_held(options, &st) ? fcntl(options->held_fd, F_DUPFD_CLOEXEC, 3)
                                              : open_noatime(AT_FDCWD, path, flags);
    if (fd < 0)
        return open_failed(-errno, path, read_only, options->direct);
    if (fstat(fd, &st) < 0)
        return fail_errno(-errno, "%s", path);
    *ret_st = st;
    *ret_fd = fd_steal(&fd);
    return 0;
}

static int open_file(struct disk_file *file, const char *path, const struct disk_options *options)
{
    struct stat st = {0};
    int r = open_path(path, options, &st, &file->fd);
    if (r == 0)
        r = disk_size(file->fd, path, &st, &file->disk.size);
    if (r == 0)
        r = disk_choose_sector(path, options, file->disk.size, &file->disk.sector);
    if (r == 0 && !options->read_only)
        r = check_writable(file->fd, path, &st);
    if (r == 0 && !is_held(options, &st))
        r = lock(file->fd, path, options->read_only);
    if (r == 0 && options->direct)
        r = open_cached(file, path, options->read_only);
    const char *format = r == 0 ? disk_format(options->direct ? file->cached_fd : file->fd) : NULL;
    if (format)
        return fail(-EINVAL,
                    "%s: a %s image, not a raw disk (store it with stellarium import, or make it raw with "
                    "qemu-img convert)",
                    path, format);
    if (r == 0)
        snprintf(file->disk.serial, sizeof(file->disk.serial), "%llx-%llx", (unsigned long long)st.st_dev,
                 (unsigned long long)(S_ISBLK(st.st_mode) ? st.st_rdev : st.st_ino));
    return r;
}

int disk_file_open(const char *path, const struct disk_options *options, struct disk **ret_disk)
{
    static const struct disk_ops ops = {
        .read = disk_file_read,
        .write = disk_file_write,
        .flush = disk_file_flush,
        .discard = disk_file_discard,
        .write_zeroes = disk_file_write_zeroes,
        .each_fd = disk_file_each_fd,
        .copy = disk_file_copy,
        .copied = disk_file_copied,
        .close = disk_file_close,
    };
    struct disk_file *file = calloc(1, sizeof(*file));
    if (!file)
        return fail(-ENOMEM, "no memory for the disk %s", path);
    *file =
        (struct disk_file){.disk = {.ops = &ops, .read_only = options->read_only}, .fd = -1, .cached_fd = -1};
    int r = open_file(file, path, options);
    if (r < 0) {
        disk_file_close(&file->disk);
        return r;
    }
    *ret_disk = &file->disk;
    return 0;
}
