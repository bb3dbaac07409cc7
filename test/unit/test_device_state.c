/* State of a device: saved under load, the device thrown away, loaded into a new one, and on. */
#include "dev/disk.h"
#include "device_rig.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <sys/mman.h>

#define FEATURES (UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VIRTIO_BLK_F_FLUSH)
#define SECTORS  2048u
#define STATUS   (RIG_DATA_AT + 0x10000)
#define BUFFER   (RIG_DATA_AT + 0x20000)

static int file;
static struct state_writer saved;

static void new_device(void)
{
    char path[64];
    struct disk *disk;
    struct virtio_device *device;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    cr_assert(disk_file_open(path, &(struct disk_options){0}, &disk) == 0, "%s", fail_text());
    cr_assert(virtio_blk_new(rig.loop, disk, "disk 0", &device) == 0, "%s", fail_text());
    rig_attach(device);
}

static void set_up(void)
{
    rig_new(8 * MIB);
    file = memfd_create("disk", MFD_CLOEXEC);
    cr_assert(file >= 0 && ftruncate(file, SECTORS * 512) == 0, "no disk");
    for (uint32_t i = 0; i < SECTORS; i++)
        cr_assert(pwrite(file, &i, sizeof(i), (off_t)i * 512) == sizeof(i), "not written");
    new_device();
}

static void tear_down(void)
{
    state_writer_free(&saved);
    rig_free();
    close(file);
}

TestSuite(device_state, .timeout = 30, .init = set_up, .fini = tear_down);

static void set_true(void *context)
{
    *(bool *)context = true;
}

/* The device is made quiet, saved and destroyed. */
static void save_and_wipe(void)
{
    bool quiet = false, closed = false;
    cr_assert(virtio_quiesce(rig.device, set_true, &quiet) == 0, "%s", fail_text());
    while (!quiet)
        rig_run(50);
    state_writer_free(&saved);
    cr_assert(virtio_save(rig.device, &saved) == 0, "%s", fail_text());
    virtio_close(rig.device, set_true, &closed);
    while (!closed)
        rig_run(50);
    rig.device = NULL;
}

static int load(void)
{
    new_device();
    return virtio_load(rig.device, (struct state_reader){.bytes = saved.bytes, .length = saved.length});
}

/* Reads of one sector each, whose chains are 3 descriptors; sector and buffer follow from the count. */
static unsigned asked;

static void ask(void)
{
    unsigned slot = asked % 32;
    struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN, .sector = asked * 7 % SECTORS};
    guest_mem_write(&rig.mem, gpa(RIG_DATA_AT + 16 * slot), &header, sizeof(header));
    const struct part parts[] = {
        {RIG_DATA_AT + 16 * slot, 16, false}, {BUFFER + 512 * slot, 512, true}, {STATUS + slot, 1, true}};
    rings_add(&rig.rings, parts, 3);
    asked++;
}

static void check_last(unsigned count)
{
    for (unsigned i = asked - count; i < asked; i++) {
        uint32_t sector = 0;
        memcpy(&sector, guest_mem_at(&rig.mem, gpa(BUFFER + 512 * (i % 32)), 4), sizeof(sector));
        cr_assert(sector == i * 7 % SECTORS, "request %u read sector %u", i, sector);
    }
}

Test(device_state, twenty_times_under_load)
{
    asked = 0;
    rig_start(FEATURES, 128);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 16; i++)
            ask();
        rig_kick(0);
        if (round % 2)
            virtio_take_chains(rig.device, 0); /* all in flight when it is asked to be quiet */
        save_and_wipe();
        for (unsigned i = 0; i < 8; i++)
            ask(); /* offered while there is no device */
        cr_assert(load() == 0, "%s", fail_text());
        cr_assert(rig_status() & VIRTIO_CONFIG_S_DRIVER_OK, "status 0x%x", rig_status());
        virtio_resume(rig.device);
        cr_assert(rig_await_used((uint16_t)asked), "%u of %u came back", rings_used_idx(&rig.rings), asked);
        check_last(24);
    }
    cr_assert(rig.device->faults == 0 && rig.interrupts > 0, "faults or no interrupt");
}

Test(device_state, a_device_that_no_driver_has_started)
{
    save_and_wipe();
    cr_assert(load() == 0, "%s", fail_text());
    virtio_resume(rig.device);
    asked = 0;
    rig_start(FEATURES, 128);
    ask();
    rig_kick(0);
    cr_assert(rig_await_used(1), "it does not work");
}

Test(device_state, a_driver_in_the_middle_of_its_set_up_goes_on)
{
    rig_negotiate(FEATURES);
    rig_set_queue(0, 128);
    save_and_wipe();
    cr_assert(load() == 0, "%s", fail_text());
    virtio_resume(rig.device);
    rig_add_status(VIRTIO_CONFIG_S_DRIVER_OK);
    asked = 0;
    ask();
    rig_kick(0);
    cr_assert(rig_await_used(1), "it does not work");
}

/* `at`: in the body of the first section, behind its head of 12 bytes. */
static void refused(size_t at, uint32_t value, int error, const char *message)
{
    rig_start(FEATURES, 128);
    save_and_wipe();
    memcpy(saved.bytes + 12 + at, &value, sizeof(value));
    int r = load();
    cr_assert(r == error, "byte %zu: %d, not %d", at, r, error);
    cr_assert(strstr(fail_text(), message), "byte %zu: said '%s'", at, fail_text());
}

Test(device_state, hostile_device_type)
{
    refused(0, 4, -EINVAL, "device type 4");
}
Test(device_state, hostile_queue_count)
{
    refused(4, 4000, -EINVAL, "4000 queues");
}
Test(device_state, hostile_status)
{
    refused(8, 3, -EBADMSG, "status 0x3");
}
Test(device_state, hostile_features)
{
    refused(48, 0xffffffff, -EINVAL, "not offered");
}
Test(device_state, hostile_queue_size)
{
    refused(64, 3, -EBADMSG, "power of two");
}
Test(device_state, hostile_ring_address)
{
    refused(64 + 12, 0xffffffff, -EBADMSG, "not in RAM");
}
Test(device_state, hostile_chains_in_flight)
{
    refused(64 + 32, 0x00000005, -EBADMSG, "in flight");
}

Test(device_state, hostile_indices_harm_nothing)
{
    rig_start(FEATURES, 128);
    save_and_wipe();
    const uint32_t same = 0x12341234;
    memcpy(saved.bytes + 12 + 64 + 32, &same, sizeof(same));
    cr_assert(load() == 0, "%s", fail_text());
    virtio_resume(rig.device);
    rig_run(1000);
    cr_assert(rig_status() & VIRTIO_CONFIG_S_NEEDS_RESET, "the ring does not fit, and no reset is asked for");
}

Test(device_state, every_truncation_is_refused)
{
    rig_start(FEATURES, 128);
    save_and_wipe();
    size_t whole = saved.length;
    for (saved.length = 0; saved.length < whole; saved.length += 3) {
        bool closed = false;
        cr_assert(load() < 0, "%zu of %zu bytes are enough", saved.length, whole);
        virtio_close(rig.device, set_true, &closed);
        while (!closed)
            rig_run(50);
    }
    saved.length = whole;
    cr_assert(load() == 0, "%s", fail_text());
}
