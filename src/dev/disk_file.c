/* Raw disks in regular files and block devices. Never mapped: a file that is truncated under a mapping kills
 * by SIGBUS, a read of it only comes up short. */
#include "dev/disk.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

struct disk_file {
    struct disk disk;
    int fd;
};

static struct disk_file *file_of(struct disk *disk)
{
    return container_of(disk, struct disk_file, disk);
}

/* --- reading and writing --- */

static void start_read(struct disk_io *io)
{
    int fd = file_of(io->disk)->fd;
    uint64_t offset = io->offset + io->progress;
    if (io->iov_count == 1)
        loop_read(io->disk->loop, &io->op, fd, io->iov->iov_base, (uint32_t)io->iov->iov_len, offset);
    else
        loop_readv(io->disk->loop, &io->op, fd, io->iov, io->iov_count, offset);
}

static void start_write(struct disk_io *io)
{
    int fd = file_of(io->disk)->fd;
    uint64_t offset = io->offset + io->progress;
    if (io->iov_count == 1)
        loop_write(io->disk->loop, &io->op, fd, io->iov->iov_base, (uint32_t)io->iov->iov_len, offset);
    else
        loop_writev(io->disk->loop, &io->op, fd, io->iov, io->iov_count, offset);
}

/* Takes the first `bytes` off the iovecs, fewer than they hold. */
static void skip(struct disk_io *io, size_t bytes)
{
    while (bytes >= io->iov->iov_len) {
        bytes -= io->iov->iov_len;
        io->iov++;
        io->iov_count--;
    }
    io->iov->iov_base = (char *)io->iov->iov_base + bytes;
    io->iov->iov_len -= bytes;
}

/* Goes on after a part. A file that ends early (it was truncated after it was opened) is an I/O error. */
static void transferred(struct loop_op *op, int result, void (*start)(struct disk_io *io))
{
    struct disk_io *io = container_of(op, struct disk_io, op);
    if (result > 0)
        io->progress += (uint64_t)result;
    if (io->progress >= io->length) {
        io->done(io, 0);
    } else if (result > 0 || result == -EINTR) {
        skip(io, result > 0 ? (size_t)result : 0);
        start(io);
    } else {
        io->done(io, result < 0 ? result : -EIO);
    }
}

static void read_done(struct loop_op *op, int result, unsigned flags)
{
    (void)flags;
    transferred(op, result, start_read);
}

static void write_done(struct loop_op *op, int result, unsigned flags)
{
    (void)flags;
    transferred(op, result, start_write);
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

static void disk_file_write(struct disk *disk, struct disk_io *io)
{
    begin(disk, io, write_done);
    start_write(io);
}

/* --- everything else --- */

static void whole_done(struct loop_op *op, int result, unsigned flags)
{
    struct disk_io *io = container_of(op, struct disk_io, op);
    (void)flags;
    io->done(io, result);
}

static void disk_file_flush(struct disk *disk, struct disk_io *io)
{
    begin(disk, io, whole_done);
    loop_fdatasync(disk->loop, &io->op, file_of(disk)->fd);
}

static void punch(struct disk_io *io)
{
    loop_fallocate(io->disk->loop, &io->op, file_of(io->disk)->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                   io->offset, io->length);
}

/* A discard is a hint: a file system that cannot make holes has taken it. */
static void discard_done(struct loop_op *op, int result, unsigned flags)
{
    whole_done(op, result == -EOPNOTSUPP ? 0 : result, flags);
}

static void disk_file_discard(struct disk *disk, struct disk_io *io)
{
    begin(disk, io, discard_done);
    punch(io);
}

/* A hole reads as zeros too; it only does not keep the space, which not every file system (tmpfs) can
 * promise. */
static void zero_range_done(struct loop_op *op, int result, unsigned flags)
{
    struct disk_io *io = container_of(op, struct disk_io, op);
    if (result == -EOPNOTSUPP) {
        op->done = whole_done;
        punch(io);
    } else {
        whole_done(op, result, flags);
    }
}

static void disk_file_write_zeroes(struct disk *disk, struct disk_io *io)
{
    begin(disk, io, io->unmap ? whole_done : zero_range_done);
    if (io->unmap)
        punch(io);
    else
        loop_fallocate(disk->loop, &io->op, file_of(disk)->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                       io->offset, io->length);
}

static void disk_file_close(struct disk *disk)
{
    struct disk_file *file = file_of(disk);
    cleanup_fd(&file->fd); /* and with it the lock */
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
    if (size % DISK_SECTOR)
        return fail(-EINVAL, "%s: not a multiple of %u bytes (is it truncated?)", path, DISK_SECTOR);
    *ret_size = size;
    return 0;
}

/* Past the page cache, transfers must be whole blocks of the device below. */
static uint32_t disk_block_size(int fd, const char *path, const struct stat *st, bool direct, uint64_t size)
{
    int logical = 0;
    uint32_t block = DISK_SECTOR;
    if (S_ISBLK(st->st_mode)) {
        if (ioctl(fd, BLKSSZGET, &logical) == 0 && logical > 0)
            block = (uint32_t)logical;
    } else if (direct) {
        struct statx x = {0};
        if (statx(AT_FDCWD, path, 0, STATX_DIOALIGN, &x) == 0 && (x.stx_mask & STATX_DIOALIGN))
            block = x.stx_dio_offset_align;
        else
            block = 4096; /* before Linux 6.1: what every disk can do */
    }
    return block >= 4096 && size % 4096 == 0 ? 4096 : DISK_SECTOR;
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

int disk_file_open(struct loop *loop, const char *path, bool read_only, bool direct, struct disk **ret_disk)
{
    struct stat st;
    /* A look first: opening a FIFO would wait for its other end. */
    if (stat(path, &st) < 0)
        return open_failed(-errno, path, true, false);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return fail(-EINVAL, "%s: neither a file nor a block device", path);
    int flags = O_CLOEXEC | (read_only ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0);
    if (S_ISBLK(st.st_mode) && !read_only)
        flags |= O_EXCL; /* for a device: refuse one that is mounted */
    CLEANUP_FD int fd = open_noatime(AT_FDCWD, path, flags);
    if (fd < 0)
        return open_failed(-errno, path, read_only, direct);
    if (fstat(fd, &st) < 0)
        return fail_errno(-errno, "%s", path);

    uint64_t size;
    int r = disk_size(fd, path, &st, &size);
    if (r == 0)
        r = lock(fd, path, read_only);
    if (r < 0)
        return r;

    static const struct disk_ops ops = {
        .read = disk_file_read,
        .write = disk_file_write,
        .flush = disk_file_flush,
        .discard = disk_file_discard,
        .write_zeroes = disk_file_write_zeroes,
        .close = disk_file_close,
    };
    struct disk_file *file = calloc(1, sizeof(*file));
    if (!file)
        return fail(-ENOMEM, "no memory for the disk %s", path);
    file->disk = (struct disk){
        .ops = &ops,
        .loop = loop,
        .size = size,
        .block_size = disk_block_size(fd, path, &st, direct, size),
        .read_only = read_only,
    };
    snprintf(file->disk.serial, sizeof(file->disk.serial), "%llx-%llx", (unsigned long long)st.st_dev,
             (unsigned long long)(S_ISBLK(st.st_mode) ? st.st_rdev : st.st_ino));
    file->fd = fd_steal(&fd);
    *ret_disk = &file->disk;
    return 0;
}
