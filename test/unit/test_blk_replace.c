/* Another disk in the place of one that is being read. */
#include "dev/disk.h"
#include "device_rig.h"

#include <criterion/criterion.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define HEADER_AT RIG_DATA_AT
#define STATUS_AT (RIG_DATA_AT + 0x800)
#define BUFFER_AT (RIG_DATA_AT + 0x10000)
#define DEPTH     32u

static char paths[2][40] = {"/tmp/test_blk_replace.XXXXXX", "/tmp/test_blk_replace.XXXXXX"};
static const uint64_t sizes[2] = {1 * MIB, 3 * MIB};
static unsigned swaps;

static struct disk *open_disk(unsigned index, const struct disk_options *options)
{
    struct disk *disk = NULL;
    cr_assert(disk_file_open(paths[index], options, &disk) == 0, "%s", fail_text());
    return disk;
}

static void set_up(void)
{
    struct virtio_device *device;
    char bytes[4096];
    rig_new(8 * MIB);
    for (unsigned i = 0; i < 2; i++) {
        int file = mkstemp(paths[i]);
        cr_assert(file >= 0, "no disk file");
        memset(bytes, 'a' + (int)i, sizeof(bytes));
        for (uint64_t at = 0; at < sizes[i]; at += sizeof(bytes))
            cr_assert(write_full_at(file, bytes, sizeof(bytes), at) == 0, "disk file not written");
        close(file);
    }
    cr_assert(virtio_blk_new(rig.loop, open_disk(0, &(struct disk_options){0}), "disk 0", &device) == 0, "%s",
              fail_text());
    rig_attach(device);
    const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN};
    CHECK(guest_mem_write(&rig.mem, gpa(HEADER_AT), &header, sizeof(header)) == 0);
}

static void tear_down(void)
{
    rig_free();
    unlink(paths[0]);
    unlink(paths[1]);
}

TestSuite(blk_replace, .timeout = 30, .init = set_up, .fini = tear_down);

static void swapped(void *context)
{
    (void)context;
    swaps++;
}

static int replace(struct disk *disk)
{
    return virtio_blk_replace(rig.device, disk, swapped, NULL);
}

static void offer_reads(unsigned count)
{
    const struct part parts[] = {{HEADER_AT, 16, false}, {BUFFER_AT, 4096, true}, {STATUS_AT, 1, true}};
    for (unsigned i = 0; i < count; i++)
        rings_add(&rig.rings, parts, 3);
    rig_kick(0);
}

static char first_byte(void)
{
    return *(char *)guest_mem_at(&rig.mem, gpa(BUFFER_AT), 1);
}

static uint64_t capacity(void)
{
    return rig_read(VIRTIO_MMIO_CONFIG) | (uint64_t)rig_read(VIRTIO_MMIO_CONFIG + 4) << 32;
}

Test(blk_replace, with_requests_in_flight)
{
    rig_start(FEATURE(VIRTIO_F_VERSION_1), 128);
    uint32_t generation = rig_read(VIRTIO_MMIO_CONFIG_GENERATION);
    offer_reads(DEPTH);
    virtio_take_chains(rig.device, 0); /* they are on their way */
    cr_assert(replace(open_disk(1, &(struct disk_options){0})) == 0, "%s", fail_text());
    cr_assert(swaps == 0, "swapped under requests");
    offer_reads(DEPTH); /* these wait for the new disk */
    cr_assert(rig_await_used(2 * DEPTH), "requests are lost");
    cr_assert(swaps == 1, "swapped %u times", swaps);
    cr_assert(first_byte() == 'b', "the old disk was read: %c", first_byte());
    cr_assert(capacity() == sizes[1] / 512, "capacity %llu", (unsigned long long)capacity());
    cr_assert(rig_read(VIRTIO_MMIO_CONFIG_GENERATION) != generation, "the generation has not changed");
    cr_assert(rig_read(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG, "no interrupt");
    struct disk *old = open_disk(0, &(struct disk_options){0}); /* nobody has its lock any more */
    old->ops->close(old);
}

Test(blk_replace, of_a_device_that_no_driver_has_started_or_that_is_held)
{
    cr_assert(replace(open_disk(1, &(struct disk_options){0})) == 0 && swaps == 1, "not at once");
    cr_assert(virtio_quiesce(rig.device, swapped, NULL) == 0 && swaps == 2, "%s", fail_text());
    cr_assert(replace(open_disk(0, &(struct disk_options){0})) == 0 && swaps == 3, "not when held");
    virtio_resume(rig.device);
    rig_start(FEATURE(VIRTIO_F_VERSION_1), 128);
    cr_assert(capacity() == sizes[0] / 512, "capacity %llu", (unsigned long long)capacity());
    offer_reads(1);
    cr_assert(rig_await_used(1) && first_byte() == 'a', "not read");
}

Test(blk_replace, while_it_comes_to_rest)
{
    rig_start(FEATURE(VIRTIO_F_VERSION_1), 128);
    offer_reads(DEPTH);
    virtio_take_chains(rig.device, 0);
    cr_assert(replace(open_disk(1, &(struct disk_options){0})) == 0, "%s", fail_text());
    cr_assert(virtio_quiesce(rig.device, swapped, NULL) == 0, "%s", fail_text());
    for (unsigned i = 0; i < 1000 && swaps < 2; i++)
        rig_run(1000);
    cr_assert(swaps == 2 && rings_used_idx(&rig.rings) == DEPTH, "%u, %u", swaps, rings_used_idx(&rig.rings));
    offer_reads(1);
    virtio_resume(rig.device);
    cr_assert(rig_await_used(DEPTH + 1) && first_byte() == 'b', "not read");
}

Test(blk_replace, the_same_file_after_it_grew)
{
    rig_start(FEATURE(VIRTIO_F_VERSION_1), 128);
    const struct disk *disk = virtio_blk_disk(rig.device);
    struct disk_options options = {0};
    struct disk *busy = NULL;
    cr_assert(disk_file_open(paths[0], &options, &busy) == -EBUSY, "opened twice");
    struct stat unused;
    for (int fd = 3; fd < 64 && !options.held_fd; fd++) {
        char link[32], target[64] = "";
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        if (fstat(fd, &unused) == 0 && readlink(link, target, sizeof(target) - 1) > 0 &&
            strcmp(target, paths[0]) == 0)
            options.held_fd = fd;
    }
    cr_assert(options.held_fd > 0, "the disk is not open");
    cr_assert(truncate(paths[0], 5 * MIB) == 0, "cannot grow");
    cr_assert(replace(open_disk(0, &options)) == 0 && virtio_blk_disk(rig.device) != disk, "%s", fail_text());
    cr_assert(capacity() == 5 * MIB / 512, "capacity %llu", (unsigned long long)capacity());
    options.held_fd = 0;
    cr_assert(disk_file_open(paths[0], &options, &busy) == -EBUSY, "its lock is lost");
}

Test(blk_replace, what_the_guest_knows_stays_true)
{
    struct disk *disk = open_disk(1, &(struct disk_options){.read_only = true});
    cr_assert(replace(disk) == -EINVAL && strstr(fail_text(), "writable"), "%s", fail_text());
    disk->ops->close(disk);
    disk = open_disk(1, &(struct disk_options){.sector = 4096});
    cr_assert(replace(disk) == -EINVAL && strstr(fail_text(), "4096"), "%s", fail_text());
    disk->ops->close(disk);
    cr_assert(swaps == 0 && capacity() == sizes[0] / 512, "swapped");
}
