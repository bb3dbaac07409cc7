/* Disks in Stellarium: asynchronous reads and writes against a model in memory, damage, and what is left
 * after a crash. */
#include "dev/disk_cas.h"
#include "disk_requests.h"
#include "store_rig.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { PAGES = 1400 };
static struct rig rig;
static uint8_t *model; /* what the disk should read as */
static const struct disk_options writable = {0};
static char store_directory[128], volume_spec[160];

static void make(void)
{
    uint64_t seeds[PAGES];
    char path[128];
    rig_make(&rig);
    for (unsigned i = 0; i < PAGES; i++)
        seeds[i] = i % 9 == 8 ? 0 : i + 1;
    model = pages_make(seeds, PAGES);
    rig_import(&rig, model, (uint64_t)PAGES * STORE_PAGE, "image");
    rig_path(&rig, "store", store_directory);
    rig_path(&rig, "volume", path);
    snprintf(volume_spec, sizeof(volume_spec), "volume:%s", path);
    cr_assert_eq(volume_create(rig.store, "image", 0, path), 0, "clone: %s", fail_text());
    cr_assert_eq(loop_new(64, &loop), 0, "loop: %s", fail_text());
}
static void remove_all(void)
{
    loop_free(loop);
    rig_remove(&rig);
    free(model);
}
TestSuite(disk_cas, .timeout = 60, .init = make, .fini = remove_all);

static struct disk *open_disk(const char *spec, bool read_only)
{
    struct disk *disk = NULL;
    cr_assert_eq(disk_cas_open(store_directory, spec, &(struct disk_options){.read_only = read_only}, &disk),
                 0, "open %s: %s", spec, fail_text());
    disk_attach(disk, loop);
    return disk;
}

static void expect_range(struct disk *disk, uint64_t offset, uint64_t length)
{
    struct request request;
    request_make(&request, offset, length);
    cr_assert_eq(run_one(disk->ops->read, disk, &request), 0, "read of %llu at %llu: %d",
                 (unsigned long long)length, (unsigned long long)offset, request.result);
    cr_assert_eq(memcmp(request.bytes, model + offset, length), 0, "%llu bytes at %llu are others",
                 (unsigned long long)length, (unsigned long long)offset);
    free(request.bytes);
}

static void expect_all(struct disk *disk)
{
    for (uint64_t offset = 0; offset < disk->size; offset += 128 * 1024)
        expect_range(disk, offset, MIN(disk->size - offset, UINT64_C(128) * 1024));
}

static void write_range(struct disk *disk, uint64_t offset, uint64_t length, int seed)
{
    struct request request;
    request_make(&request, offset, length);
    for (uint64_t i = 0; i < length; i++)
        model[offset + i] = request.bytes[i] = (uint8_t)(seed + (int)(i * 7));
    cr_assert_eq(run_one(disk->ops->write, disk, &request), 0, "write: %d", request.result);
    free(request.bytes);
}

static void flush(struct disk *disk)
{
    struct request request = {.io.done = request_done, .result = 1};
    cr_assert_eq(run_one(disk->ops->flush, disk, &request), 0, "flush: %d", request.result);
}

static void zero_range(struct disk *disk, uint64_t offset, uint64_t length)
{
    struct request request = {.io = {.offset = offset, .length = length, .done = request_done}, .result = 1};
    cr_assert_eq(run_one(disk->ops->discard, disk, &request), 0, "discard: %d", request.result);
    memset(model + offset, 0, length);
}

Test(disk_cas, reads_across_objects_zeros_and_sectors)
{
    struct disk *disk = open_disk(volume_spec, false);
    cr_assert_eq(disk->size, (uint64_t)PAGES * STORE_PAGE, "size");
    expect_all(disk);
    expect_range(disk, 512, 512);
    expect_range(disk, 8 * 4096 - 512, 1536);
    expect_range(disk, 2 * MIB - 4096, 12288);
    expect_range(disk, disk->size - 512, 512);
    disk->ops->close(disk);
}

Test(disk_cas, a_thousand_random_operations_agree_with_memory)
{
    struct disk *disk = open_disk(volume_spec, false);
    unsigned state = 1;
    for (unsigned i = 0; i < 1000; i++) {
        state = state * 1103515245 + 12345;
        uint64_t sector = (state >> 8) % (PAGES * 8 - 64), sectors = 1 + (state >> 3) % 63;
        uint64_t offset = sector * 512, length = sectors * 512;
        switch (state >> 28) {
        case 0: zero_range(disk, offset, length); break;
        case 1: flush(disk); break;
        case 2:
        case 3:
        case 4:
        case 5: write_range(disk, offset, length, (int)i); break;
        default: expect_range(disk, offset, length);
        }
    }
    expect_all(disk);
    flush(disk);
    disk->ops->close(disk);
    disk = open_disk(volume_spec, true);
    expect_all(disk);
    disk->ops->close(disk);
}

/* Sectors of one page, all in flight together: each needs the page filled, none may lose another's. */
Test(disk_cas, sectors_of_one_page_written_at_once)
{
    struct disk *disk = open_disk(volume_spec, false);
    struct request requests[24];
    for (unsigned i = 0; i < ARRAY_SIZE(requests); i++) {
        uint64_t offset = 100 * STORE_PAGE + i * 512;
        request_make(&requests[i], offset, 512);
        memset(requests[i].bytes, (int)(i + 1), 512);
        memcpy(model + offset, requests[i].bytes, 512);
    }
    pending = ARRAY_SIZE(requests);
    for (unsigned i = 0; i < ARRAY_SIZE(requests); i++)
        disk->ops->write(disk, &requests[i].io);
    wait_for_requests();
    for (unsigned i = 0; i < ARRAY_SIZE(requests); i++) {
        cr_assert_eq(requests[i].result, 0, "write %u: %d", i, requests[i].result);
        free(requests[i].bytes);
    }
    expect_all(disk);
    disk->ops->close(disk);
}

/* Writes and discards of sectors, many at once and two or more in each page, none over another: each batch is
 * in a part of the disk where no page is in the delta yet. */
Test(disk_cas, batches_of_odd_writes_beside_each_other)
{
    enum { BATCH = 48, WINDOW = 5 };
    struct disk *disk = open_disk(volume_spec, false);
    struct request requests[BATCH];
    unsigned state = 3;
    for (unsigned batch = 0; batch < 40; batch++) {
        pending = BATCH;
        for (unsigned i = 0; i < BATCH; i++) {
            state = state * 1103515245 + 12345;
            uint64_t sector = (uint64_t)(batch * BATCH + i) * WINDOW + (state >> 16) % 3;
            uint64_t length = (1 + (state >> 20) % 3) * UINT64_C(512);
            request_make(&requests[i], sector * 512, length);
            memset(requests[i].bytes, state % 5 ? (int)(state >> 8) : 0, length);
            memcpy(model + sector * 512, requests[i].bytes, length);
        }
        for (unsigned i = 0; i < BATCH; i++)
            if (requests[i].bytes[0])
                disk->ops->write(disk, &requests[i].io);
            else
                disk->ops->discard(disk, &requests[i].io);
        wait_for_requests();
        for (unsigned i = 0; i < BATCH; i++) {
            cr_assert_eq(requests[i].result, 0, "request %u: %d", i, requests[i].result);
            free(requests[i].bytes);
        }
    }
    expect_all(disk);
    disk->ops->close(disk);
}

/* A page that is written whole while a part of it is read, modified and written keeps what came last. */
Test(disk_cas, whole_pages_beside_parts_of_them)
{
    struct disk *disk = open_disk(volume_spec, false);
    for (unsigned page = 0; page < 200; page++) {
        struct request whole, part;
        uint64_t at = page * STORE_PAGE;
        request_make(&whole, at, page % 2 ? 2 * STORE_PAGE : STORE_PAGE);
        request_make(&part, at + 1024, 512);
        memset(whole.bytes, 0x11, whole.io.length);
        memset(part.bytes, 0x22, 512);
        pending = 2;
        disk->ops->write(disk, page % 3 ? &whole.io : &part.io);
        disk->ops->write(disk, page % 3 ? &part.io : &whole.io);
        wait_for_requests();
        cr_assert(whole.result == 0 && part.result == 0, "results %d, %d", whole.result, part.result);
        memset(model + at, 0x11, whole.io.length);
        struct request read;
        request_make(&read, at, STORE_PAGE);
        cr_assert_eq(run_one(disk->ops->read, disk, &read), 0, "read: %d", read.result);
        for (unsigned i = 0; i < STORE_PAGE; i++)
            if (read.bytes[i] != 0x11)
                cr_assert(i / 512 == 2 && read.bytes[i] == 0x22, "page %u, byte %u: %x", page, i,
                          read.bytes[i]);
        memcpy(model + at, read.bytes, STORE_PAGE);
        free(whole.bytes);
        free(part.bytes);
        free(read.bytes);
    }
    expect_all(disk);
    disk->ops->close(disk);
}

Test(disk_cas, sectors_are_512_bytes_unless_asked_for)
{
    struct disk *disk = open_disk(volume_spec, false);
    cr_assert_eq(disk->sector, 512, "a sector of %u", disk->sector);
    disk->ops->close(disk);
    cr_assert_eq(disk_cas_open(store_directory, volume_spec, &(struct disk_options){.sector = 4096}, &disk),
                 0, "%s", fail_text());
    cr_assert_eq(disk->sector, 4096, "a sector of %u", disk->sector);
    disk->ops->close(disk);
}

Test(disk_cas, many_reads_wait_for_one_verification)
{
    rig.store->boot_tag++; /* what follows is for the disk's own store: */
    struct manifest *manifest = rig_manifest(&rig, "image");
    struct object_id id;
    unsigned pages;
    manifest_object(manifest, 0, &id, &pages);
    stamp_mark_verified(rig.store, rig.store->objects, &id, false);
    manifest_free(manifest);
    struct disk *disk = open_disk("cas:image", true);
    struct request requests[50];
    pending = ARRAY_SIZE(requests);
    for (unsigned i = 0; i < ARRAY_SIZE(requests); i++)
        request_make(&requests[i], i * STORE_PAGE, STORE_PAGE);
    for (unsigned i = 0; i < ARRAY_SIZE(requests); i++)
        disk->ops->read(disk, &requests[i].io);
    wait_for_requests();
    for (unsigned i = 0; i < ARRAY_SIZE(requests); i++) {
        cr_assert_eq(requests[i].result, 0, "read %u: %d", i, requests[i].result);
        cr_assert_eq(memcmp(requests[i].bytes, model + i * STORE_PAGE, STORE_PAGE), 0, "read %u", i);
        free(requests[i].bytes);
    }
    disk->ops->close(disk);
}

static void expect_error_at(struct disk *disk, uint64_t offset)
{
    struct request request;
    request_make(&request, offset, STORE_PAGE);
    cr_assert_eq(run_one(disk->ops->read, disk, &request), -EIO, "at %llu: %d", (unsigned long long)offset,
                 request.result);
    free(request.bytes);
}

/* What is damaged is an error, again and again; what is not is still read. */
Test(disk_cas, a_corrupt_object_is_an_error_and_nothing_else)
{
    struct manifest *manifest = rig_manifest(&rig, "image");
    struct object_id id;
    unsigned pages;
    rig_damage(&rig, "image", false);
    struct disk *disk = open_disk("cas:image", false);
    expect_error_at(disk, 0);
    expect_error_at(disk, 3 * STORE_PAGE);
    expect_range(disk, 600 * STORE_PAGE, 8192);
    write_range(disk, 0, STORE_PAGE, 1); /* a page written whole needs nothing of it */
    expect_range(disk, 0, STORE_PAGE);
    struct request request;
    request_make(&request, 5 * STORE_PAGE + 512, 512);
    cr_assert_eq(run_one(disk->ops->write, disk, &request), -EIO, "a part of a page: %d", request.result);
    free(request.bytes);
    write_range(disk, 700 * STORE_PAGE + 512, 512, 2);
    disk->ops->close(disk);

    char path[SHARD_PATH_MAX];
    manifest_object(manifest, 1, &id, &pages);
    manifest_free(manifest);
    shard_path(&id, path);
    cr_assert_eq(unlinkat(rig.store->objects, path, 0), 0, "unlink");
    disk = open_disk("cas:image", true);
    expect_error_at(disk, 600 * STORE_PAGE);
    disk->ops->close(disk);
}

Test(disk_cas, a_throw_away_clone_forgets_and_a_volume_is_alone)
{
    struct disk *disk = open_disk("cas:image", false), *second = NULL;
    uint8_t *image = malloc((size_t)PAGES * STORE_PAGE);
    memcpy(image, model, (size_t)PAGES * STORE_PAGE);
    write_range(disk, 4096, 8192, 3);
    flush(disk);
    expect_all(disk);
    disk->ops->close(disk);
    rig_expect(&rig, "image", image, PAGES);
    free(image);
    disk = open_disk(volume_spec, false);
    cr_assert_eq(disk_cas_open(store_directory, volume_spec, &writable, &second), -EBUSY, "opened twice");
    disk->ops->close(disk);
    cr_assert_eq(disk_cas_open(store_directory, "cas:nothing", &writable, &second), -ENOENT,
                 "opened nothing");
    cr_assert_eq(disk_cas_open(NULL, "cas:image", &writable, &second), -EINVAL, "opened in no store");
}

/* In a process of its own, which ends as by kill -9: without a word to the disk. */
static void write_in_a_process_that_is_killed(void)
{
    pid_t child = fork();
    if (child == 0) {
        if (loop_new(64, &loop) < 0)
            _exit(1);
        struct disk *disk = open_disk(volume_spec, false);
        write_range(disk, 0, 4 * STORE_PAGE, 1);
        flush(disk);
        write_range(disk, 50 * STORE_PAGE, STORE_PAGE, 2);
        _exit(0);
    }
    int status;
    cr_assert(waitpid(child, &status, 0) == child && status == 0, "the child: status %x", status);
}

Test(disk_cas, writes_that_were_not_flushed_leave_the_image)
{
    write_in_a_process_that_is_killed();
    for (unsigned i = 0; i < 4 * STORE_PAGE; i++)
        model[i] = (uint8_t)(1 + i * 7);
    struct disk *disk = open_disk(volume_spec, true);
    expect_all(disk);
    disk->ops->close(disk);
}

/* What a guest is told is written is there after a clean end, also if it never flushes. */
Test(disk_cas, a_clean_end_keeps_what_was_not_flushed)
{
    struct disk *disk = open_disk(volume_spec, false);
    write_range(disk, 50 * STORE_PAGE, STORE_PAGE, 2);
    write_range(disk, 90 * STORE_PAGE + 512, 1024, 3);
    zero_range(disk, 600 * STORE_PAGE, 3 * STORE_PAGE);
    disk->ops->write_back(disk);
    struct disk *other = NULL; /* still held: as by a VM that is about to end */
    cr_assert_eq(disk_cas_open(store_directory, volume_spec, &writable, &other), -EBUSY, "opened twice");
    write_range(disk, 70 * STORE_PAGE, STORE_PAGE, 4);
    disk->ops->close(disk);
    disk = open_disk(volume_spec, true);
    expect_all(disk);
    disk->ops->close(disk);
}

/* --- what a flush does, in which order --- */

/* Every fdatasync and every write of a map that the disk starts, as words: wrapped by the linker. */
static char steps[1024];

void __real_loop_fdatasync(struct loop *where, struct loop_op *op, int fd);
void __wrap_loop_fdatasync(struct loop *where, struct loop_op *op, int fd);
void __real_loop_write(struct loop *where, struct loop_op *op, int fd, const void *buffer, uint32_t length,
                       uint64_t offset);
void __wrap_loop_write(struct loop *where, struct loop_op *op, int fd, const void *buffer, uint32_t length,
                       uint64_t offset);

static void note(const char *what, int fd)
{
    char link[32], path[256];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    cr_assert(length > 0, "readlink");
    path[length] = '\0';
    const char *name = strrchr(path, '/') + 1;
    if (strcmp(what, "write") == 0 && strcmp(name, "map") != 0)
        return;
    bool own = strcmp(name, "map") == 0 || strcmp(name, "delta") == 0;
    size_t used = strlen(steps);
    snprintf(steps + used, sizeof(steps) - used, "%s %s, ", what, own ? name : "name");
}

void __wrap_loop_fdatasync(struct loop *where, struct loop_op *op, int fd)
{
    note("sync", fd);
    __real_loop_fdatasync(where, op, fd);
}

void __wrap_loop_write(struct loop *where, struct loop_op *op, int fd, const void *buffer, uint32_t length,
                       uint64_t offset)
{
    note("write", fd);
    __real_loop_write(where, op, fd, buffer, length, offset);
}

static void expect_flush(struct disk *disk, const char *expected)
{
    steps[0] = '\0';
    flush(disk);
    cr_assert_str_eq(steps, expected, "the flush did: %s", steps);
}

/* The map never says more than the delta durably has, and a volume's first flush makes its name durable.
 * Steps are started one after the other: an order of starts is one of ends. */
Test(disk_cas, a_flush_syncs_the_delta_before_the_map)
{
    struct disk *disk = open_disk(volume_spec, false);
    write_range(disk, 0, STORE_PAGE, 1);
    expect_flush(disk,
                 "sync delta, sync name, sync name, sync name, sync name, sync name, write map, write map, "
                 "sync map, ");
    write_range(disk, 5 * STORE_PAGE, STORE_PAGE, 2);
    expect_flush(disk, "sync delta, write map, sync map, ");
    write_range(disk, 5 * STORE_PAGE, STORE_PAGE, 3); /* in the map already */
    expect_flush(disk, "sync delta, ");
    zero_range(disk, 6 * STORE_PAGE, STORE_PAGE);
    expect_flush(disk, "sync delta, write map, sync map, ");
    disk->ops->close(disk);
}

/* --- shortages: an error while they last, and nothing afterwards --- */

/* Takes all descriptors that are left; how many. */
static unsigned take_descriptors(int *fds, unsigned room)
{
    unsigned count = 0;
    while (count < room && (fds[count] = dup(STDERR_FILENO)) >= 0)
        count++;
    return count;
}

static void give_descriptors(const int *fds, unsigned count)
{
    while (count > 0)
        close(fds[--count]);
}

Test(disk_cas, no_descriptors_is_no_lasting_error)
{
    static int fds[256];
    const struct rlimit few = {.rlim_cur = 120, .rlim_max = 120};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0, "setrlimit");
    struct disk *first = open_disk("cas:image", true), *second = open_disk("cas:image", true);
    expect_range(first, 0, 512);
    unsigned taken = take_descriptors(fds, ARRAY_SIZE(fds));
    cr_assert(taken > 0 && taken < ARRAY_SIZE(fds), "%u descriptors", taken);
    expect_range(first, 600 * STORE_PAGE, 512); /* in place of the other object's */
    expect_range(second, 0, 512);               /* also another disk's */
    expect_range(first, 1200 * STORE_PAGE, 512);
    expect_range(second, 600 * STORE_PAGE, 512);
    first->ops->close(first);
    taken += take_descriptors(fds + taken, ARRAY_SIZE(fds) - taken);
    second->ops->close(second);
    give_descriptors(fds, taken);

    first = open_disk("cas:image", true);
    taken = take_descriptors(fds, ARRAY_SIZE(fds));
    expect_error_at(first, 0); /* it has none to give back */
    expect_error_at(first, 600 * STORE_PAGE);
    give_descriptors(fds, taken);
    expect_all(first);
    first->ops->close(first);
}

/* Many disks with more objects than descriptors: all are read, over and over. */
Test(disk_cas, disks_share_the_descriptors)
{
    struct disk *disks[6];
    for (unsigned i = 0; i < ARRAY_SIZE(disks); i++)
        disks[i] = open_disk("cas:image", true);
    int next = dup(STDERR_FILENO);
    close(next);
    const struct rlimit few = {.rlim_cur = (rlim_t)next + 10, .rlim_max = (rlim_t)next + 10};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0, "setrlimit"); /* 18 objects */
    for (unsigned round = 0; round < 20; round++)
        for (unsigned i = 0; i < ARRAY_SIZE(disks); i++)
            for (unsigned object = 0; object < 3; object++)
                expect_range(disks[i], (object * 512 + round) * STORE_PAGE, STORE_PAGE);
    for (unsigned i = 0; i < ARRAY_SIZE(disks); i++)
        disks[i]->ops->close(disks[i]);
}

static int try_write(struct disk *disk, uint64_t offset, uint64_t length)
{
    struct request request;
    request_make(&request, offset, length);
    memset(request.bytes, 0x33, length);
    int result = run_one(disk->ops->write, disk, &request);
    if (result == 0)
        memset(model + offset, 0x33, length);
    free(request.bytes);
    return result;
}

/* As on a full disk: the delta takes nothing beyond a limit. */
Test(disk_cas, no_room_is_no_lasting_error)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    struct disk *disk = open_disk(volume_spec, false);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0, "getrlimit");
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = 100 * STORE_PAGE + 1024;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0, "setrlimit");
    cr_assert_eq(try_write(disk, 10 * STORE_PAGE, STORE_PAGE), 0, "below the limit");
    cr_assert_eq(try_write(disk, 200 * STORE_PAGE, STORE_PAGE), -EFBIG, "beyond the limit");
    cr_assert_lt(try_write(disk, 100 * STORE_PAGE, STORE_PAGE), 0, "half a page");
    cr_assert_lt(try_write(disk, 300 * STORE_PAGE + 512, 512), 0, "a part of a page");
    cr_assert_lt(try_write(disk, 99 * STORE_PAGE, 4 * STORE_PAGE), 0, "pages across the limit");
    expect_all(disk); /* every page is as it was */
    flush(disk);
    limit.rlim_cur = before;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0, "setrlimit");
    cr_assert_eq(try_write(disk, 200 * STORE_PAGE, STORE_PAGE), 0, "after it");
    cr_assert_eq(try_write(disk, 300 * STORE_PAGE + 512, 512), 0, "after it");
    flush(disk);
    disk->ops->close(disk);
    disk = open_disk(volume_spec, true);
    expect_all(disk);
    disk->ops->close(disk);
}
