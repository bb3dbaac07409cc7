/* virtio-mmio: the registers and the status machine, with a device that keeps every chain until it is told to
 * let go. */
#include "device_rig.h"

#include <criterion/criterion.h>
#include <linux/virtio_ring.h>

#define VERSION_1 (UINT64_C(1) << VIRTIO_F_VERSION_1)
#define EVENT_IDX (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT  (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)
#define OWN       UINT64_C(0x21) /* two features of the device's own */

#define READY_FOR_FEATURES (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
#define READY_FOR_QUEUES   (READY_FOR_FEATURES | VIRTIO_CONFIG_S_FEATURES_OK)
#define RUNNING            (READY_FOR_QUEUES | VIRTIO_CONFIG_S_DRIVER_OK)
#define NEEDS_RESET        VIRTIO_CONFIG_S_NEEDS_RESET

static struct virtio_device device;
static unsigned starts, stops, kicks, config_writes;
static bool stop_at_once;

static void kind_start(struct virtio_device *d)
{
    (void)d;
    starts++;
}

static void kind_quiesce(struct virtio_device *d)
{
    stops++;
    if (stop_at_once)
        virtio_quiesced(d);
}

static void kind_kicked(struct virtio_device *d, unsigned queue)
{
    struct iovec iov[4];
    struct virtq_chain chain;
    kicks++;
    int r = virtqueue_pop(&d->queues[queue].vq, iov, 4, &chain);
    if (r < 0)
        virtio_fail_device(d);
    else if (r == 1)
        virtio_push(d, queue, chain.head, 0);
}

static void kind_config_write(struct virtio_device *d, uint64_t offset, unsigned length, uint64_t value)
{
    (void)d, (void)offset, (void)length, (void)value;
    config_writes++;
}

static void kind_destroy(struct virtio_device *d)
{
    (void)d;
}

static const struct virtio_ops ops = {
    .name = "test",
    .device_id = 42,
    .queue_count = 2,
    .iov_max = 4,
    .start = kind_start,
    .quiesce = kind_quiesce,
    .kicked = kind_kicked,
    .config_write = kind_config_write,
    .destroy = kind_destroy,
};

static void set_up(void)
{
    rig_new(4 * MIB);
    starts = stops = kicks = config_writes = 0;
    stop_at_once = true;
    cr_assert(virtio_init(&device, &ops, rig.loop, "device under test", OWN) == 0, "%s", fail_text());
    virtio_set_config(&device, "0123456789ab", 12);
    rig_attach(&device);
}

static void tear_down(void)
{
    stop_at_once = true;
    rig_free();
}

TestSuite(virtio, .timeout = 10, .init = set_up, .fini = tear_down);

static void status_is(uint32_t expected)
{
    cr_assert(rig_status() == expected, "status 0x%x, not 0x%x", rig_status(), expected);
}

static void faults_are(uint64_t expected)
{
    cr_assert(device.faults == expected, "%lu faults counted, not %lu", device.faults, expected);
}

static void start(void)
{
    rig_start(VERSION_1, 8);
    status_is(RUNNING);
    faults_are(0);
}

/* --- what is read --- */

Test(virtio, identity)
{
    cr_assert(rig_read(VIRTIO_MMIO_MAGIC_VALUE) == 0x74726976, "magic");
    cr_assert(rig_read(VIRTIO_MMIO_VERSION) == 2, "version");
    cr_assert(rig_read(VIRTIO_MMIO_DEVICE_ID) == 42, "device id");
    cr_assert(rig_read(VIRTIO_MMIO_QUEUE_NUM_MAX) == VIRTQUEUE_SIZE_MAX, "queue size");
    rig_write(VIRTIO_MMIO_QUEUE_SEL, 2);
    cr_assert(rig_read(VIRTIO_MMIO_QUEUE_NUM_MAX) == 0, "a queue that is not there");
    faults_are(0);
}

Test(virtio, features_are_offered_by_halves)
{
    cr_assert(rig_offered() == (OWN | VERSION_1 | EVENT_IDX | INDIRECT), "offered 0x%lx", rig_offered());
    rig_write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    cr_assert(rig_read(VIRTIO_MMIO_DEVICE_FEATURES) == 0, "features beyond 64");
}

Test(virtio, shared_memory_is_none)
{
    cr_assert(rig_read(0xb0) == UINT32_MAX && rig_read(0xb4) == UINT32_MAX, "length");
    cr_assert(rig_read(0xb8) == UINT32_MAX && rig_read(0xbc) == UINT32_MAX, "base");
}

Test(virtio, config_reads_in_any_width)
{
    cr_assert(rig_read_bytes(0x100, 1) == '0', "a byte");
    cr_assert(rig_read_bytes(0x102, 2) == 0x3332, "two");
    cr_assert(rig_read_bytes(0x104, 4) == 0x37363534, "four");
    cr_assert(rig_read_bytes(0x100, 8) == UINT64_C(0x3736353433323130), "eight");
    cr_assert(rig_read_bytes(0x10c, 4) == 0 && rig_read_bytes(0xffc, 4) == 0, "beyond the end");
    faults_are(0);
}

Test(virtio, config_change_shows_in_generation_and_interrupt)
{
    start();
    uint32_t before = rig_read(VIRTIO_MMIO_CONFIG_GENERATION);
    virtio_set_config_word(&device, 0, 'X');
    cr_assert(rig_read(VIRTIO_MMIO_CONFIG_GENERATION) != before, "the generation is the same");
    cr_assert(rig_read(VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_CONFIG, "no interrupt");
    cr_assert(rig_read_bytes(0x100, 2) == 'X', "old bytes");
    rig_write(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
    cr_assert(rig_read(VIRTIO_MMIO_INTERRUPT_STATUS) == 0, "not acknowledged");
}

Test(virtio, config_writes_reach_the_kind_inside_its_size_only)
{
    rig_write_bytes(0x108, 4, 1);
    rig_write_bytes(0x10c, 4, 1);
    rig_write_bytes(0x10a, 4, 1);
    rig_write_bytes(0xff8, 8, 1);
    cr_assert(config_writes == 1, "%u writes came through", config_writes);
}

/* --- the status machine --- */

Test(virtio, starts_in_order)
{
    start();
    cr_assert(starts == 1 && device.features == VERSION_1, "not started");
}

Test(virtio, status_bits_cannot_be_taken_back)
{
    rig_negotiate(VERSION_1);
    rig_write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    status_is(READY_FOR_QUEUES);
    faults_are(1);
}

Test(virtio, status_bits_come_in_order)
{
    rig_write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER);
    rig_write(VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_ACKNOWLEDGE);
    rig_write(VIRTIO_MMIO_STATUS, RUNNING & ~VIRTIO_CONFIG_S_FEATURES_OK);
    rig_write(VIRTIO_MMIO_STATUS, 0x100 | VIRTIO_CONFIG_S_ACKNOWLEDGE);
    status_is(0);
    faults_are(4);
}

Test(virtio, driver_may_give_up)
{
    rig_negotiate(VERSION_1);
    rig_add_status(VIRTIO_CONFIG_S_FAILED);
    status_is(READY_FOR_QUEUES | VIRTIO_CONFIG_S_FAILED);
    faults_are(0);
}

Test(virtio, features_not_offered_are_refused)
{
    rig_negotiate(VERSION_1 | 2);
    status_is(READY_FOR_FEATURES);
    faults_are(1);
}

Test(virtio, features_beyond_64_are_refused)
{
    rig_write(VIRTIO_MMIO_STATUS, 0);
    rig_add_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
    rig_add_status(VIRTIO_CONFIG_S_DRIVER);
    rig_accept(VERSION_1);
    rig_write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, UINT32_MAX);
    rig_write(VIRTIO_MMIO_DRIVER_FEATURES, 1);
    rig_add_status(VIRTIO_CONFIG_S_FEATURES_OK);
    status_is(READY_FOR_FEATURES);
}

Test(virtio, drivers_before_version_1_are_refused)
{
    rig_negotiate(OWN);
    status_is(READY_FOR_FEATURES);
    faults_are(1);
}

Test(virtio, all_status_bits_at_once_do_not_skip_the_features)
{
    rig_write(VIRTIO_MMIO_STATUS, RUNNING);
    status_is(READY_FOR_FEATURES);
    cr_assert(starts == 0, "started without features");
}

Test(virtio, features_are_fixed_after_features_ok)
{
    rig_negotiate(VERSION_1);
    rig_accept(VERSION_1 | OWN);
    rig_set_queue(0, 8);
    rig_add_status(VIRTIO_CONFIG_S_DRIVER_OK);
    cr_assert(device.features == VERSION_1, "features changed");
    faults_are(2);
}

Test(virtio, features_come_after_driver)
{
    rig_accept(VERSION_1);
    faults_are(2);
}

Test(virtio, queues_are_set_up_between_features_ok_and_driver_ok)
{
    rig_set_queue(0, 8);
    faults_are(8);
    cr_assert(rig_read(VIRTIO_MMIO_QUEUE_READY) == 0, "ready before FEATURES_OK");
    device.faults = 0;
    rig_start(VERSION_1, 8);
    faults_are(0);
    rig_write(VIRTIO_MMIO_QUEUE_READY, 0);
    rig_write(VIRTIO_MMIO_QUEUE_NUM, 4);
    cr_assert(rig_read(VIRTIO_MMIO_QUEUE_READY) == 1, "taken away while in use");
    faults_are(2);
}

Test(virtio, queue_that_is_not_there_cannot_be_set_up)
{
    rig_negotiate(VERSION_1);
    rig_set_queue(2, 8);
    rig_set_queue(UINT32_MAX, 8);
    faults_are(16);
}

Test(virtio, registers_are_words)
{
    cr_assert(rig_read_bytes(VIRTIO_MMIO_MAGIC_VALUE, 1) == 0, "a byte of a register");
    rig_write_bytes(VIRTIO_MMIO_STATUS, 8, 1);
    rig_write_bytes(VIRTIO_MMIO_STATUS + 1, 4, 1);
    status_is(0);
    faults_are(3);
}

/* --- what needs a reset --- */

static void needs_reset(void)
{
    cr_assert(rig_status() & NEEDS_RESET, "status 0x%x: no reset asked for", rig_status());
    cr_assert(rig_read(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG, "and not said so");
    cr_assert(device.faults > 0, "not counted");
    rig_write(VIRTIO_MMIO_STATUS, 0);
    status_is(0);
    cr_assert(rig_read(VIRTIO_MMIO_INTERRUPT_STATUS) == 0, "an interrupt is left after the reset");
    rig_start(VERSION_1, 8);
    status_is(RUNNING);
}

static void start_with_ring_at(uint64_t reg, uint64_t at)
{
    rig_negotiate(VERSION_1);
    rig_set_queue(0, 8);
    rig_write_gpa(reg, gpa(at));
    rig_add_status(VIRTIO_CONFIG_S_DRIVER_OK);
    cr_assert(starts == 0, "started");
    needs_reset();
}

Test(virtio, hostile_descriptors_outside_memory)
{
    start_with_ring_at(VIRTIO_MMIO_QUEUE_DESC_LOW, UINT64_MAX - 15);
}

Test(virtio, hostile_avail_ring_in_a_hole)
{
    start_with_ring_at(VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0xc0000000);
}

Test(virtio, hostile_used_ring_misaligned)
{
    start_with_ring_at(VIRTIO_MMIO_QUEUE_USED_LOW, 0x12002);
}

Test(virtio, hostile_queue_size)
{
    static const uint32_t sizes[] = {0, 3, 512, 0x10000, 0x10008, UINT32_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        starts = 0;
        rig_negotiate(VERSION_1);
        rig_set_queue(0, 8);
        rig_write(VIRTIO_MMIO_QUEUE_NUM, sizes[i]);
        rig_add_status(VIRTIO_CONFIG_S_DRIVER_OK);
        cr_assert(starts == 0, "started with size %u", sizes[i]);
        needs_reset();
    }
}

Test(virtio, hostile_ring_while_running)
{
    start();
    rings_offer(&rig.rings, 99);
    rig_kick(0);
    rig_run(1000);
    cr_assert(stops == 1, "not stopped");
    rig_kick(0);
    rig_run(1000);
    cr_assert(kicks == 1, "kicked while it needs a reset");
    needs_reset();
}

/* --- notifications --- */

Test(virtio, hostile_notify_before_set_up)
{
    rig_kick(0);
    rig_run(1000);
    faults_are(1);
    rig_write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    faults_are(2);
    rig_negotiate(VERSION_1);
    rig_kick(1);
    rig_run(1000);
    faults_are(3);
    cr_assert(kicks == 0, "the kind was kicked");
}

Test(virtio, hostile_notify_of_a_queue_not_made_ready)
{
    start();
    rig_kick(1);
    rig_run(1000);
    faults_are(1);
    cr_assert(kicks == 0, "the kind was kicked");
}

Test(virtio, hostile_notify_of_a_queue_that_is_not_there)
{
    start();
    rig_write(VIRTIO_MMIO_QUEUE_NOTIFY, 2);
    rig_write(VIRTIO_MMIO_QUEUE_NOTIFY, UINT32_MAX);
    faults_are(2);
}

Test(virtio, notify_by_register_works_too)
{
    start();
    rig_write(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    cr_assert(kicks == 1, "%u kicks", kicks);
}

Test(virtio, one_interrupt_for_a_turn)
{
    start();
    for (unsigned i = 0; i < 3; i++) {
        rings_add(&rig.rings, &(struct part){RIG_DATA_AT, 1, true}, 1);
        kind_kicked(&device, 0);
    }
    cr_assert(rig.interrupts == 0, "interrupted before the turn's end");
    rig_run(100);
    cr_assert(rig.interrupts == 1, "%u interrupts", rig.interrupts);
    cr_assert(rig_read(VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING, "the wrong one");
}

/* --- reset --- */

Test(virtio, reset_waits_until_nothing_is_in_flight)
{
    start();
    stop_at_once = false;
    bool answered = false, other = false;
    rig_write_status_later(0, &answered);
    cr_assert(!answered && stops == 1, "answered while in flight");
    status_is(RUNNING);
    rig_write_status_later(0, &other);
    cr_assert(other && !answered, "a second CPU's reset is not turned away");
    virtio_quiesced(&device);
    cr_assert(answered, "not answered");
    status_is(0);
    cr_assert(rig_read(VIRTIO_MMIO_QUEUE_READY) == 0, "a queue is still ready");
}

Test(virtio, reset_during_the_stop_of_a_fault)
{
    start();
    stop_at_once = false;
    rings_offer(&rig.rings, 99);
    rig_kick(0);
    rig_run(1000);
    status_is(RUNNING | NEEDS_RESET);
    bool answered = false;
    rig_write_status_later(0, &answered);
    cr_assert(!answered && stops == 1, "stopped twice, or answered too early");
    virtio_quiesced(&device);
    cr_assert(answered, "not answered");
    status_is(0);
}
