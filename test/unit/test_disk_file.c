/* Raw disks: what is none, requests that direct I/O does not take, limits. */
#include "disk_requests.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define DISK_BYTES (1 * MIB)

static char path[] = "/tmp/test_disk_file.XXXXXX";
static int file = -1;
static uint8_t *model; /* what the file should hold */

static void set_up(void)
{
    cr_assert(loop_new(64, &loop) == 0, "%s", fail_text());
    file = mkstemp(path);
    model = malloc(DISK_BYTES);
    for (unsigned i = 0; i < DISK_BYTES; i++)
        model[i] = (uint8_t)(i * 7 + i / 512);
    cr_assert(file >= 0 && write_full_at(file, model, DISK_BYTES, 0) == 0, "no disk file");
}

static void tear_down(void)
{
    loop_free(loop);
    free(model);
    close(file);
    unlink(path);
}

TestSuite(disk_file, .timeout = 30, .init = set_up, .fini = tear_down);

static void open_refused(const char *name, const struct disk_options *options, int error, const char *message)
{
    struct disk *disk = NULL;
    int r = disk_file_open(name, options, &disk);
    cr_assert(r == error, "%s: %d, not %d", name, r, error);
    cr_assert(strstr(fail_text(), message), "said '%s', not '%s'", fail_text(), message);
    cr_assert(disk == NULL, "a disk was returned all the same");
}

static const struct disk_options writable = {0}, readable = {.read_only = true}, direct = {.direct = true},
                                 large_sectors = {.sector = 4096};

Test(disk_file, files_that_are_no_disks)
{
    char fifo[64];
    open_refused("/nowhere/at/all", &readable, -ENOENT, "No such file");
    open_refused("/tmp", &readable, -EINVAL, "neither a file nor a block device");
    open_refused("/dev/null", &readable, -EINVAL, "neither a file nor a block device");
    snprintf(fifo, sizeof(fifo), "%s.fifo", path);
    cr_assert(mkfifo(fifo, 0600) == 0, "no FIFO");
    open_refused(fifo, &writable, -EINVAL, "neither a file nor a block device");
    unlink(fifo);
    cr_assert(ftruncate(file, 4096 + 512) == 0, "not truncated");
    open_refused(path, &large_sectors, -EINVAL, "multiple of 4096");
    cr_assert(ftruncate(file, 1000) == 0, "not truncated");
    open_refused(path, &readable, -EINVAL, "multiple of 512");
    cr_assert(ftruncate(file, 0) == 0, "not truncated");
    open_refused(path, &readable, -EINVAL, "empty");
}

static struct disk *open_disk(const struct disk_options *options)
{
    struct disk *disk = NULL;
    cr_assert(disk_file_open(path, options, &disk) == 0, "%s", fail_text());
    disk_attach(disk, loop);
    return disk;
}

Test(disk_file, one_writer_or_many_readers)
{
    struct disk *first = open_disk(&readable), *second = open_disk(&readable);
    open_refused(path, &writable, -EBUSY, "in use by another VM");
    first->ops->close(first);
    second->ops->close(second);
    first = open_disk(&writable);
    open_refused(path, &readable, -EBUSY, "in use by another VM");
    first->ops->close(first);
}

/* --- past the page cache --- */

enum { BATCH = 24, WINDOW = 4 };

/* One of many writes in flight beside each other, two in each page, no two over each other: some that
 * O_DIRECT takes, some from odd buffers. */
static void make_small_write(struct request *request, uint8_t *buffers, unsigned i, unsigned random)
{
    uint64_t offset = (WINDOW * i + random % 2) * UINT64_C(512),
             length = (1 + (random >> 4) % 3) * UINT64_C(512);
    uint8_t *bytes = buffers + UINT64_C(8192) * i + (i % 3 == 0 ? 0 : (random >> 8) % 4096);
    request_make(request, offset, length);
    memset(bytes, (int)(random >> 3), length);
    memcpy(model + offset, bytes, length);
    if (i % 3 == 0)
        request->io.iov_count = 1;
    request->iov[0] = (struct iovec){bytes, i % 3 == 0 ? length : length / 3};
    request->iov[1] = (struct iovec){bytes + length / 3, length / 2 - length / 3};
    request->iov[2] = (struct iovec){bytes + length / 2, length - length / 2};
}

static void expect_file(const char *when)
{
    uint8_t *now = malloc(DISK_BYTES);
    cr_assert(now && read_full_at(file, now, DISK_BYTES, 0) == 0, "file not read");
    cr_assert(memcmp(now, model, DISK_BYTES) == 0, "%s: the file is another", when);
    free(now);
}

static void skip_without_direct_io(void)
{
    struct disk *disk = NULL;
    if (disk_file_open(path, &direct, &disk) == -EINVAL)
        cr_skip_test("no direct I/O in /tmp");
    disk->ops->close(disk);
}

/* What O_DIRECT cannot take goes another way, and neither loses the other's bytes. */
Test(disk_file, direct_takes_every_buffer_and_length)
{
    skip_without_direct_io();
    struct disk *disk = open_disk(&direct);
    struct request requests[BATCH], read;
    uint8_t *buffers = aligned_alloc(4096, BATCH * 8192);
    unsigned random = 7;
    for (unsigned round = 0; round < 50; round++) {
        pending = BATCH;
        for (unsigned i = 0; i < BATCH; i++)
            make_small_write(&requests[i], buffers, i, (random = random * 1103515245 + 12345) >> 8);
        for (unsigned i = 0; i < BATCH; i++)
            disk->ops->write(disk, &requests[i].io);
        wait_for_requests();
        for (unsigned i = 0; i < BATCH; i++) {
            cr_assert(requests[i].result == 0, "round %u, write %u: %d", round, i, requests[i].result);
            free(requests[i].bytes);
        }
        expect_file("after a round");
    }
    for (uint64_t offset = 0; offset < DISK_BYTES - 1536; offset += 5 * 512) {
        request_make(&read, offset, 1536);
        cr_assert(run_one(disk->ops->read, disk, &read) == 0, "read: %d", read.result);
        cr_assert(memcmp(read.bytes, model + offset, 1536) == 0, "read at %llu", (unsigned long long)offset);
        free(read.bytes);
    }
    free(buffers);
    disk->ops->close(disk);
}

/* --- limits --- */

static int write_page_at(struct disk *disk, uint64_t offset)
{
    struct request request;
    request_make(&request, offset, 4096);
    memset(request.bytes, 0x44, 4096);
    int result = run_one(disk->ops->write, disk, &request);
    free(request.bytes);
    return result;
}

/* As on a full disk: an error as long as it lasts. */
static void write_beyond_a_limit(const struct disk_options *options)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    cr_assert(ftruncate(file, 0) == 0 && ftruncate(file, DISK_BYTES) == 0, "file not emptied");
    struct disk *disk = open_disk(options);
    cr_assert(getrlimit(RLIMIT_FSIZE, &limit) == 0, "getrlimit");
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = DISK_BYTES / 2;
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
    cr_assert(write_page_at(disk, 4096) == 0, "below it");
    cr_assert(write_page_at(disk, DISK_BYTES / 2) < 0, "beyond it");
    cr_assert(write_page_at(disk, DISK_BYTES / 2 - 512) < 0, "across it");
    limit.rlim_cur = before;
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
    cr_assert(write_page_at(disk, DISK_BYTES / 2) == 0, "without it");
    disk->ops->close(disk);
}

Test(disk_file, a_write_beyond_ulimit_f_is_an_error)
{
    write_beyond_a_limit(&writable);
}

Test(disk_file, a_direct_write_beyond_ulimit_f_is_an_error)
{
    skip_without_direct_io();
    write_beyond_a_limit(&direct);
}
