#include "base/base.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* A stretch of data. Both offsets are the same. */
static int copy_stretch(int from, int to, uint64_t at, uint64_t end)
{
    char piece[64 * KIB];
    bool by_kernel = true;
    while (at < end) {
        off_t in = (off_t)at, out = (off_t)at;
        ssize_t n = by_kernel ? copy_file_range(from, &in, to, &out, end - at, 0) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        by_kernel = n > 0; /* not between all file systems */
        if (!by_kernel) {
            n = (ssize_t)MIN(end - at, sizeof(piece));
            int r = read_full_at(from, piece, (size_t)n, at);
            if (r == 0)
                r = write_full_at(to, piece, (size_t)n, at);
            if (r < 0)
                return r;
        }
        at += (uint64_t)n;
    }
    return 0;
}

int file_copy_sparse(int from, int to, uint64_t length)
{
    uint64_t data, hole = 0;
    int r = 0;
    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    if (ftruncate(to, (off_t)length) < 0)
        return -errno;
    while (r == 0 && file_next_data(from, hole, length, &data, &hole))
        r = copy_stretch(from, to, data, hole);
    return r;
}
