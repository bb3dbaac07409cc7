/* virtio-blk with a rate limit, on the real clock: never faster than asked, and as fast when this machine
 * lets it. */
#include "dev/disk.h"
#include "device_rig.h"

#include <criterion/criterion.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <math.h>
#include <stdio.h>

#define HEADER_AT RIG_DATA_AT
#define STATUS_AT (RIG_DATA_AT + 0x800)
#define BUFFER_AT (RIG_DATA_AT + 0x10000)

static char path[] = "/tmp/test_blk_limits.XXXXXX";

static void set_up(void)
{
    struct disk *disk;
    struct virtio_device *device;
    rig_new(8 * MIB);
    int file = mkstemp(path);
    cr_assert(file >= 0 && ftruncate(file, 1 * MIB) == 0, "no disk file");
    close(file);
    cr_assert(disk_file_open(path, &(struct disk_options){0}, &disk) == 0, "%s", fail_text());
    cr_assert(virtio_blk_new(rig.loop, disk, "disk 0", &device) == 0, "%s", fail_text());
    rig_attach(device);
    rig_start(FEATURE(VIRTIO_F_VERSION_1), 128);
    const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN};
    CHECK(guest_mem_write(&rig.mem, gpa(HEADER_AT), &header, sizeof(header)) == 0);
}

static void tear_down(void)
{
    rig_free();
    unlink(path);
}

TestSuite(blk_limits, .timeout = 150, .init = set_up, .fini = tear_down);

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Keeps `depth` reads of `length` bytes in the queue until `count` have come back; nanoseconds. */
static uint64_t read_many(unsigned count, unsigned depth, uint32_t length)
{
    const struct part parts[] = {{HEADER_AT, 16, false}, {BUFFER_AT, length, true}, {STATUS_AT, 1, true}};
    uint16_t first = rings_used_idx(&rig.rings);
    uint64_t start = now_ns();
    unsigned offered = 0;
    for (uint16_t back = 0; back < count; back = (uint16_t)(rings_used_idx(&rig.rings) - first)) {
        unsigned before = offered;
        for (; offered < count && offered - back < depth; offered++)
            rings_add(&rig.rings, parts, 3);
        if (offered != before)
            rig_kick(0);
        rig_run(100);
    }
    return now_ns() - start;
}

/* The rate that `limits` gives for `count` reads, the bucket being empty at first: of up to twenty runs the
 * one nearest to `asked`, since this machine may be busy with something else. In no run come more than
 * `asked` a second and the bucket's size, which fills while the machine is busy. */
static double limited_rate(const struct rate_limiter_config *limits, unsigned depth, uint32_t length,
                           unsigned count, double asked)
{
    double nearest = 0;
    uint64_t bucket = limits->bandwidth.size ? limits->bandwidth.size / length : limits->ops.size;
    for (unsigned run = 0; run < 20 && fabs(nearest - asked) > asked * 0.01; run++) {
        virtio_blk_limit(rig.device, limits);
        read_many((unsigned)MAX(bucket, 1u), depth, length);
        double seconds = (double)read_many(count, depth, length) / 1e9;
        cr_assert(count <= asked * seconds + (double)bucket + 1, "%u in %.4f s, with %.1f a second asked",
                  count, seconds, asked);
        double rate = count / seconds;
        if (fabs(rate - asked) < fabs(nearest - asked))
            nearest = rate;
    }
    return nearest;
}

Test(blk_limits, a_thousand_operations_a_second)
{
    static const uint64_t refills[] = {1, 10, 100};
    for (size_t i = 0; i < ARRAY_SIZE(refills); i++) {
        const struct rate_limiter_config limits = {.ops = {refills[i], 0, refills[i]}};
        double rate = limited_rate(&limits, i ? 32 : 2, 512, 300, 1000);
        cr_assert(rate > 990 && rate < 1010, "refill %llu ms: %.1f a second", (unsigned long long)refills[i],
                  rate);
    }
}

Test(blk_limits, a_hundred_megabytes_a_second)
{
    const struct rate_limiter_config limits = {.bandwidth = {1000000, 0, 10}};
    double rate = limited_rate(&limits, 16, 65536, 400, 100e6 / 65536);
    cr_assert(rate > 0.98 * 100e6 / 65536 && rate < 1.01 * 100e6 / 65536, "%.0f bytes a second",
              rate * 65536);
}

Test(blk_limits, a_limited_request_waits_in_the_queue)
{
    const struct rate_limiter_config limits = {.ops = {1, 2, 3600000}};
    virtio_blk_limit(rig.device, &limits);
    uint16_t first = rings_used_idx(&rig.rings);
    const struct part parts[] = {{HEADER_AT, 16, false}, {BUFFER_AT, 512, true}, {STATUS_AT, 1, true}};
    for (unsigned i = 0; i < 10; i++)
        rings_add(&rig.rings, parts, 3);
    rig_kick(0);
    rig_run(3000);
    cr_assert_eq(rings_used_idx(&rig.rings) - first, 3, "not the bucket and the burst");

    /* It can be made quiet while one waits, and goes on with other limits. */
    bool quiet = false;
    cr_assert(virtio_quiesce(rig.device, rig_closed, &quiet) == 0, "%s", fail_text());
    for (unsigned i = 0; i < 1000 && !quiet; i++)
        rig_run(100);
    cr_assert(quiet, "it is never quiet");
    virtio_resume(rig.device);
    rig_run(1000);
    cr_assert_eq(rings_used_idx(&rig.rings) - first, 3, "the limit is gone");
    virtio_blk_limit(rig.device, &(struct rate_limiter_config){0});
    cr_assert(rig_await_used((uint16_t)(first + 10)), "without limit they do not come back");
    cr_assert_eq(virtio_blk_limiter(rig.device)->held_requests, 0, "held requests: none of them ended held");
}

Test(blk_limits, reset_with_a_limited_request)
{
    const struct rate_limiter_config limits = {.ops = {1, 0, 3600000}};
    virtio_blk_limit(rig.device, &limits);
    const struct part parts[] = {{HEADER_AT, 16, false}, {BUFFER_AT, 512, true}, {STATUS_AT, 1, true}};
    for (unsigned i = 0; i < 3; i++)
        rings_add(&rig.rings, parts, 3);
    rig_kick(0);
    rig_run(1000);
    rig_write(VIRTIO_MMIO_STATUS, 0);
    cr_assert_eq(rig_status(), 0, "no reset");
    /* Closed with one waiting (tear_down). */
    rig_start(FEATURE(VIRTIO_F_VERSION_1), 128);
    rings_add(&rig.rings, parts, 3);
    rig_kick(0);
    rig_run(1000);
}
