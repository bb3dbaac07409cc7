/* virtio-blk on a real file: requests in every shape, and every shape that they must not have. */
#include "dev/disk.h"
#include "device_rig.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <sys/stat.h>

#define FEATURE(bit) (UINT64_C(1) << (bit))
#define BASE         (FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC))
#define WITH_FLUSH   (BASE | FEATURE(VIRTIO_BLK_F_FLUSH))

#define DISK_BYTES (1 * MIB)
#define HEADER_AT  (RIG_DATA_AT)
#define STATUS_AT  (RIG_DATA_AT + 0x800)
#define BUFFER_AT  (RIG_DATA_AT + 0x10000)
#define NOT_SET    0xee

static char path[] = "/tmp/test_blk.XXXXXX";
static int file = -1;

static void attach_with(const struct disk_options *options)
{
    struct disk *disk;
    struct virtio_device *device;
    cr_assert(disk_file_open(path, options, &disk) == 0, "%s", fail_text());
    cr_assert(virtio_blk_new(rig.loop, disk, "disk 0", &device) == 0, "%s", fail_text());
    rig_attach(device);
}

static void attach(bool read_only)
{
    attach_with(&(struct disk_options){.read_only = read_only});
}

static void set_up(void)
{
    rig_new(8 * MIB);
    file = mkstemp(path);
    cr_assert(file >= 0 && ftruncate(file, DISK_BYTES) == 0, "no disk file");
    for (unsigned sector = 0; sector < DISK_BYTES / 512; sector++) {
        uint32_t message[128];
        for (unsigned i = 0; i < 128; i++)
            message[i] = sector * 1000 + i;
        cr_assert(write_full_at(file, message, sizeof(message), sector * UINT64_C(512)) == 0,
                  "disk file not written");
    }
}

static void tear_down(void)
{
    rig_free();
    close(file);
    unlink(path);
}

TestSuite(blk, .timeout = 30, .init = set_up, .fini = tear_down);

static uint8_t *host(uint64_t at)
{
    return guest_mem_at(&rig.mem, gpa(at), 1);
}

/* Whether guest memory at `at` holds sector `sector` of the disk as it was made. */
static bool holds_sector(uint64_t at, uint32_t sector)
{
    const uint32_t *message = (const uint32_t *)(void *)host(at);
    for (uint32_t i = 0; i < 128; i++)
        if (message[i] != sector * 1000 + i)
            return false;
    return true;
}

static void header(uint32_t type, uint64_t sector)
{
    struct virtio_blk_outhdr h = {.type = type, .sector = sector};
    memcpy(host(HEADER_AT), &h, sizeof(h));
    *host(STATUS_AT) = NOT_SET;
}

/* Offers the parts as one request, kicks, waits, and returns its used length. */
static uint32_t run_parts(const struct part *parts, unsigned count)
{
    uint16_t before = rings_used_idx(&rig.rings);
    uint16_t head = rings_add(&rig.rings, parts, count);
    rig_kick(0);
    cr_assert(rig_await_used((uint16_t)(before + 1)), "the request does not come back");
    struct vring_used_elem elem = rings_used_elem(&rig.rings, before);
    cr_assert(elem.id == head, "chain %u came back, not %u", elem.id, head);
    return elem.len;
}

/* A request with one data buffer at BUFFER_AT; its status. */
static uint8_t request(uint32_t type, uint64_t sector, uint32_t length)
{
    bool from_guest = type != VIRTIO_BLK_T_IN && type != VIRTIO_BLK_T_GET_ID;
    const struct part parts[] = {
        {HEADER_AT, 16, false}, {BUFFER_AT, length, !from_guest}, {STATUS_AT, 1, true}};
    header(type, sector);
    run_parts(parts, 3);
    return *host(STATUS_AT);
}

static uint8_t plain_request(uint32_t type)
{
    const struct part parts[] = {{HEADER_AT, 16, false}, {STATUS_AT, 1, true}};
    header(type, 0);
    run_parts(parts, 2);
    return *host(STATUS_AT);
}

static void start(void)
{
    attach(false);
    rig_start(WITH_FLUSH, 128);
}

static void still_works(void)
{
    cr_assert(request(VIRTIO_BLK_T_IN, 7, 512) == VIRTIO_BLK_S_OK, "the device does not work any more");
    cr_assert(holds_sector(BUFFER_AT, 7), "wrong data");
}

/* --- what drivers do --- */

Test(blk, configuration)
{
    start();
    cr_assert(rig_read(VIRTIO_MMIO_DEVICE_ID) == 2, "device id");
    cr_assert(rig_read_bytes(0x100, 8) == DISK_BYTES / 512, "capacity");
    cr_assert(rig_read(0x10c) == 126, "seg_max");
    cr_assert(rig_read(0x114) == 512, "blk_size");
    cr_assert(rig_offered() & FEATURE(VIRTIO_BLK_F_TOPOLOGY), "no topology");
    cr_assert(rig_read_bytes(0x118, 1) == 3 && rig_read_bytes(0x11a, 2) == 8, "physical sectors are 4096");
    cr_assert(rig_offered() & FEATURE(VIRTIO_BLK_F_FLUSH), "no flush");
    cr_assert(rig_offered() & FEATURE(VIRTIO_BLK_F_DISCARD), "no discard");
    cr_assert(!(rig_offered() & FEATURE(VIRTIO_BLK_F_RO)), "read-only");
}

Test(blk, sectors_of_4096_bytes)
{
    attach_with(&(struct disk_options){.sector = 4096});
    rig_start(WITH_FLUSH, 128);
    cr_assert(rig_read_bytes(0x100, 8) == DISK_BYTES / 512, "capacity is in 512 bytes all the same");
    cr_assert(rig_read(0x114) == 4096, "blk_size");
    cr_assert(rig_read_bytes(0x118, 1) == 0 && rig_read_bytes(0x11a, 2) == 1, "physical sectors are 4096");
    still_works();
}

Test(blk, reads)
{
    start();
    const struct part parts[] = {{HEADER_AT, 16, false}, {BUFFER_AT, 4096, true}, {STATUS_AT, 1, true}};
    header(VIRTIO_BLK_T_IN, 40);
    cr_assert(run_parts(parts, 3) == 4097, "used length");
    for (uint32_t i = 0; i < 8; i++)
        cr_assert(holds_sector(BUFFER_AT + 512 * i, 40 + i), "sector %u", 40 + i);
    cr_assert(rig.interrupts > 0, "no interrupt");
}

Test(blk, reads_into_scattered_buffers)
{
    start();
    const struct part parts[] = {{HEADER_AT, 16, false},
                                 {BUFFER_AT, 512, true},
                                 {BUFFER_AT + 0x3000, 1, true},
                                 {BUFFER_AT + 0x1000, 1023, true},
                                 {STATUS_AT, 1, true}};
    header(VIRTIO_BLK_T_IN, 3);
    cr_assert(run_parts(parts, 5) == 1537, "used length");
    cr_assert(holds_sector(BUFFER_AT, 3), "first sector");
    memmove(host(BUFFER_AT + 1), host(BUFFER_AT + 0x1000), 1023);
    *host(BUFFER_AT) = *host(BUFFER_AT + 0x3000);
    cr_assert(holds_sector(BUFFER_AT, 4) && holds_sector(BUFFER_AT + 512, 5), "the others");
}

Test(blk, assumes_no_framing)
{
    start();
    /* Header in three pieces, data and status in one buffer. */
    const struct part parts[] = {
        {HEADER_AT, 3, false}, {HEADER_AT + 3, 9, false}, {HEADER_AT + 12, 4, false}, {BUFFER_AT, 513, true}};
    header(VIRTIO_BLK_T_IN, 9);
    cr_assert(run_parts(parts, 4) == 513, "used length");
    cr_assert(holds_sector(BUFFER_AT, 9) && *host(BUFFER_AT + 512) == VIRTIO_BLK_S_OK,
              "wrong data or status");
    /* Header and data in one. */
    const struct part write[] = {{HEADER_AT, 16 + 512, false}, {STATUS_AT, 1, true}};
    header(VIRTIO_BLK_T_OUT, 11);
    memset(host(HEADER_AT + 16), 0x5a, 512);
    cr_assert(run_parts(write, 2) == 1 && *host(STATUS_AT) == VIRTIO_BLK_S_OK, "not written");
    uint8_t byte = 0;
    cr_assert(pread(file, &byte, 1, 11 * 512 + 511) == 1 && byte == 0x5a, "not in the file");
}

Test(blk, writes_and_flushes)
{
    start();
    memset(host(BUFFER_AT), 0xa5, 8192);
    cr_assert(request(VIRTIO_BLK_T_OUT, 100, 8192) == VIRTIO_BLK_S_OK, "not written");
    cr_assert(plain_request(VIRTIO_BLK_T_FLUSH) == VIRTIO_BLK_S_OK, "not flushed");
    uint8_t bytes[8192];
    cr_assert(read_full_at(file, bytes, sizeof(bytes), 100 * 512) == 0, "file not read");
    for (unsigned i = 0; i < sizeof(bytes); i++)
        cr_assert(bytes[i] == 0xa5, "byte %u", i);
}

Test(blk, many_in_flight)
{
    start();
    enum { COUNT = 42 };
    for (uint32_t i = 0; i < COUNT; i++) {
        struct virtio_blk_outhdr h = {.type = VIRTIO_BLK_T_IN, .sector = i * 3};
        memcpy(host(HEADER_AT + 16 * i), &h, sizeof(h));
        const struct part parts[] = {
            {HEADER_AT + 16 * i, 16, false}, {BUFFER_AT + 512 * i, 512, true}, {STATUS_AT + i, 1, true}};
        *host(STATUS_AT + i) = NOT_SET;
        rings_add(&rig.rings, parts, 3);
    }
    rig_kick(0);
    cr_assert(rig_await_used(COUNT), "%u came back", rings_used_idx(&rig.rings));
    for (uint32_t i = 0; i < COUNT; i++)
        cr_assert(*host(STATUS_AT + i) == VIRTIO_BLK_S_OK && holds_sector(BUFFER_AT + 512 * i, i * 3),
                  "request %u", i);
}

Test(blk, longest_request)
{
    start();
    struct vring_desc *table = (struct vring_desc *)(void *)host(RIG_DATA_AT + 0x2000);
    table[0] = (struct vring_desc){HEADER_AT, 16, VRING_DESC_F_NEXT, 1};
    for (uint16_t i = 1; i <= 126; i++)
        table[i] = (struct vring_desc){BUFFER_AT + 4096 * (126u - i), 4096,
                                       VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, (uint16_t)(i + 1)};
    table[127] = (struct vring_desc){STATUS_AT, 1, VRING_DESC_F_WRITE, 0};
    header(VIRTIO_BLK_T_IN, 0);
    rings_set_desc(&rig.rings, 0, RIG_DATA_AT + 0x2000, 128 * 16, VRING_DESC_F_INDIRECT, 0);
    rings_offer(&rig.rings, 0);
    rig_kick(0);
    cr_assert(rig_await_used(1) && *host(STATUS_AT) == VIRTIO_BLK_S_OK, "status %u", *host(STATUS_AT));
    for (uint32_t i = 0; i < 126; i++)
        cr_assert(holds_sector(BUFFER_AT + 4096 * (125 - i), i * 8), "page %u", i);
}

Test(blk, serial_number)
{
    start();
    memset(host(BUFFER_AT), 0xff, 32);
    cr_assert(request(VIRTIO_BLK_T_GET_ID, 0, 20) == VIRTIO_BLK_S_OK, "no serial number");
    cr_assert(strlen((char *)host(BUFFER_AT)) > 3, "it is short");
    cr_assert(*host(BUFFER_AT + 20) == 0xff, "written beyond the buffer");
    cr_assert(request(VIRTIO_BLK_T_GET_ID, 0, 5) == VIRTIO_BLK_S_OK, "a short buffer");
}

/* --- discard and write zeroes --- */

static uint8_t range_request(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    const struct virtio_blk_discard_write_zeroes range = {
        .sector = sector, .num_sectors = sectors, .flags = flags};
    memcpy(host(BUFFER_AT), &range, sizeof(range));
    return request(type, 0, sizeof(range));
}

/* How many times the disk was asked to make its file durable: wrapped by the linker. */
static unsigned syncs;

void __real_loop_fdatasync(struct loop *loop, struct loop_op *op, int fd);
void __wrap_loop_fdatasync(struct loop *loop, struct loop_op *op, int fd);
void __wrap_loop_fdatasync(struct loop *loop, struct loop_op *op, int fd)
{
    syncs++;
    __real_loop_fdatasync(loop, op, fd);
}

/* Whoever has not taken FLUSH is told of nothing that a power cut can take back. */
Test(blk, writes_through_without_flush)
{
    attach(false);
    rig_start(BASE | FEATURE(VIRTIO_BLK_F_DISCARD) | FEATURE(VIRTIO_BLK_F_WRITE_ZEROES), 128);
    cr_assert(request(VIRTIO_BLK_T_OUT, 100, 512) == VIRTIO_BLK_S_OK && syncs == 1, "write: %u", syncs);
    cr_assert(range_request(VIRTIO_BLK_T_DISCARD, 8, 8, 0) == VIRTIO_BLK_S_OK && syncs == 2, "discard: %u",
              syncs);
    cr_assert(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 0) == VIRTIO_BLK_S_OK && syncs == 3,
              "zeroes: %u", syncs);
    rig_start(WITH_FLUSH, 128);
    cr_assert(request(VIRTIO_BLK_T_OUT, 100, 512) == VIRTIO_BLK_S_OK && syncs == 3, "write: %u", syncs);
    cr_assert(plain_request(VIRTIO_BLK_T_FLUSH) == VIRTIO_BLK_S_OK && syncs == 4, "flush: %u", syncs);
}

static void sector_is_zero(uint32_t sector, bool zero)
{
    uint8_t bytes[512], zeros[512] = {0};
    cr_assert(read_full_at(file, bytes, 512, sector * UINT64_C(512)) == 0, "file not read");
    cr_assert((memcmp(bytes, zeros, 512) == 0) == zero, "sector %u is %szero", sector, zero ? "not " : "");
}

Test(blk, discard_makes_a_hole)
{
    start();
    struct stat before, after;
    fstat(file, &before);
    cr_assert(range_request(VIRTIO_BLK_T_DISCARD, 512, 512, 0) == VIRTIO_BLK_S_OK, "not discarded");
    fstat(file, &after);
    cr_assert(after.st_blocks < before.st_blocks, "no space was given back");
    sector_is_zero(511, false);
    sector_is_zero(512, true);
    sector_is_zero(1023, true);
    sector_is_zero(1024, false);
}

Test(blk, write_zeroes_in_ranges)
{
    start();
    const struct virtio_blk_discard_write_zeroes ranges[] = {{.sector = 10, .num_sectors = 2},
                                                             {.sector = 20, .num_sectors = 1, .flags = 1},
                                                             {.sector = 2047, .num_sectors = 1}};
    memcpy(host(BUFFER_AT), ranges, sizeof(ranges));
    cr_assert(request(VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof(ranges)) == VIRTIO_BLK_S_OK, "not written");
    for (uint32_t sector = 9; sector <= 21; sector++)
        sector_is_zero(sector, sector == 10 || sector == 11 || sector == 20);
    sector_is_zero(2047, true);
    sector_is_zero(2046, false);
}

Test(blk, hostile_ranges)
{
    start();
    uint32_t const both[] = {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
    for (unsigned i = 0; i < 2; i++) {
        cr_assert(range_request(both[i], 2047, 2, 0) == VIRTIO_BLK_S_IOERR, "across the end");
        cr_assert(range_request(both[i], UINT64_MAX, 1, 0) == VIRTIO_BLK_S_IOERR, "far away");
        cr_assert(range_request(both[i], UINT64_MAX / 512 + 1, 1, 0) == VIRTIO_BLK_S_IOERR, "wraps to 0");
        cr_assert(range_request(both[i], 0, UINT32_MAX, 0) == VIRTIO_BLK_S_IOERR, "too long");
        cr_assert(range_request(both[i], 0, 0, 0) == VIRTIO_BLK_S_IOERR, "of nothing");
        cr_assert(range_request(both[i], 0, 1, 2) == VIRTIO_BLK_S_UNSUPP, "an unknown flag");
        cr_assert(request(both[i], 0, 15) == VIRTIO_BLK_S_IOERR, "part of a range");
        cr_assert(request(both[i], 0, 17 * 16) == VIRTIO_BLK_S_IOERR, "too many ranges");
        cr_assert(plain_request(both[i]) == VIRTIO_BLK_S_IOERR, "no range");
    }
    cr_assert(range_request(VIRTIO_BLK_T_DISCARD, 0, 1, 1) == VIRTIO_BLK_S_UNSUPP,
              "discard has no unmap flag");
    sector_is_zero(0, false);
    sector_is_zero(2047, false);
}

/* --- what gets an error, and nothing else --- */

Test(blk, hostile_beyond_the_end)
{
    start();
    static const struct {
        uint64_t sector;
        uint32_t length;
    } cases[] = {
        {2048, 512}, {2047, 1024}, {UINT64_MAX, 512}, {UINT64_MAX / 512 + 1, 512}, {0, DISK_BYTES + 512}};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        cr_assert(request(VIRTIO_BLK_T_IN, cases[i].sector, cases[i].length) == VIRTIO_BLK_S_IOERR,
                  "read %zu", i);
        cr_assert(request(VIRTIO_BLK_T_OUT, cases[i].sector, cases[i].length) == VIRTIO_BLK_S_IOERR,
                  "write %zu", i);
    }
    struct stat st;
    cr_assert(fstat(file, &st) == 0 && st.st_size == DISK_BYTES, "the file grew");
    still_works();
}

Test(blk, hostile_length_not_in_sectors)
{
    start();
    cr_assert(request(VIRTIO_BLK_T_IN, 0, 511) == VIRTIO_BLK_S_IOERR, "511");
    cr_assert(request(VIRTIO_BLK_T_OUT, 0, 513) == VIRTIO_BLK_S_IOERR, "513");
    still_works();
}

Test(blk, hostile_type)
{
    start();
    cr_assert(request(0xffffffff, 0, 512) == VIRTIO_BLK_S_UNSUPP, "unknown type");
    cr_assert(request(VIRTIO_BLK_T_SCSI_CMD, 0, 512) == VIRTIO_BLK_S_UNSUPP, "SCSI");
    still_works();
}

Test(blk, read_only_is_not_written)
{
    attach(true);
    cr_assert(rig_offered() & FEATURE(VIRTIO_BLK_F_RO), "RO is not offered");
    rig_start(BASE, 128);
    cr_assert(request(VIRTIO_BLK_T_OUT, 0, 512) == VIRTIO_BLK_S_IOERR, "written");
    cr_assert(range_request(VIRTIO_BLK_T_DISCARD, 0, 8, 0) == VIRTIO_BLK_S_IOERR, "discarded");
    cr_assert(range_request(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0) == VIRTIO_BLK_S_IOERR, "zeroed");
    cr_assert(plain_request(VIRTIO_BLK_T_FLUSH) == VIRTIO_BLK_S_OK, "a flush has nothing to do");
    sector_is_zero(0, false);
    still_works();
}

Test(blk, file_truncated_while_in_use)
{
    start();
    cr_assert(ftruncate(file, 512 * 100 + 100) == 0, "not truncated");
    cr_assert(request(VIRTIO_BLK_T_IN, 100, 512) == VIRTIO_BLK_S_IOERR, "half a sector is there");
    cr_assert(request(VIRTIO_BLK_T_IN, 99, 4096) == VIRTIO_BLK_S_IOERR, "one sector and a half is there");
    cr_assert(request(VIRTIO_BLK_T_IN, 2000, 512) == VIRTIO_BLK_S_IOERR, "nothing is there");
    still_works();
}

/* --- what breaks the protocol --- */

static void breaks_the_protocol(const struct part *parts, unsigned count)
{
    start();
    header(VIRTIO_BLK_T_IN, 0);
    rings_add(&rig.rings, parts, count);
    rig_kick(0);
    rig_run(5000);
    cr_assert(rig_status() & VIRTIO_CONFIG_S_NEEDS_RESET, "no reset asked for");
    cr_assert(rings_used_idx(&rig.rings) == 0, "given back");
    rig_start(WITH_FLUSH, 128);
    still_works();
}

Test(blk, hostile_no_header)
{
    breaks_the_protocol((const struct part[]){{HEADER_AT, 15, false}, {STATUS_AT, 1, true}}, 2);
}

Test(blk, hostile_no_status)
{
    breaks_the_protocol((const struct part[]){{HEADER_AT, 16, false}, {BUFFER_AT, 512, false}}, 2);
}

Test(blk, hostile_only_writable)
{
    breaks_the_protocol((const struct part[]){{BUFFER_AT, 4096, true}}, 1);
}

Test(blk, hostile_too_many_buffers)
{
    struct part parts[129];
    parts[0] = (struct part){HEADER_AT, 16, false};
    for (unsigned i = 1; i < ARRAY_SIZE(parts); i++)
        parts[i] = (struct part){BUFFER_AT, 4, true};
    start();
    rig_start(WITH_FLUSH, 256);
    header(VIRTIO_BLK_T_IN, 0);
    rings_add(&rig.rings, parts, ARRAY_SIZE(parts));
    rig_kick(0);
    rig_run(5000);
    cr_assert(rig_status() & VIRTIO_CONFIG_S_NEEDS_RESET, "no reset asked for");
}

Test(blk, hostile_status_in_the_header)
{
    start();
    /* The driver lets the device overwrite the request while it is read: only the copy counts. */
    const struct part parts[] = {{HEADER_AT, 16, false}, {HEADER_AT, 513, true}};
    header(VIRTIO_BLK_T_IN, 5);
    run_parts(parts, 2);
    cr_assert(holds_sector(HEADER_AT, 5), "wrong data");
}

Test(blk, kick_of_a_full_queue)
{
    start();
    /* As many requests as the queue holds, and a kick that brings nothing. */
    rig_start(WITH_FLUSH, 256);
    struct vring_desc *table = (struct vring_desc *)(void *)host(RIG_DATA_AT + 0x2000);
    table[0] = (struct vring_desc){HEADER_AT, 16, VRING_DESC_F_NEXT, 1};
    table[1] = (struct vring_desc){BUFFER_AT, 512, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2};
    table[2] = (struct vring_desc){STATUS_AT, 1, VRING_DESC_F_WRITE, 0};
    header(VIRTIO_BLK_T_IN, 1);
    for (uint16_t i = 0; i < 256; i++) {
        rings_set_desc(&rig.rings, i, RIG_DATA_AT + 0x2000, 48, VRING_DESC_F_INDIRECT, 0);
        rings_offer(&rig.rings, i);
    }
    rig_kick(0);
    virtio_take_chains(rig.device, 0);
    virtio_take_chains(rig.device, 0);
    cr_assert(rig_await_used(256), "%u came back", rings_used_idx(&rig.rings));
    still_works();
}

Test(blk, reset_in_the_middle_of_requests)
{
    start();
    for (unsigned round = 0; round < 50; round++) {
        for (uint32_t i = 0; i < 40; i++) {
            const struct part parts[] = {
                {HEADER_AT, 16, false}, {BUFFER_AT + 4096 * i, 4096, true}, {STATUS_AT, 1, true}};
            rings_add(&rig.rings, parts, 3);
        }
        header(VIRTIO_BLK_T_IN, 0);
        virtio_take_chains(rig.device, 0);
        rig_write(VIRTIO_MMIO_STATUS, 0);
        /* From here on the memory is the driver's again. */
        memset(host(BUFFER_AT), 0x11, 40 * 4096);
        rig_run(200);
        for (uint32_t i = 0; i < 40 * 4096; i++)
            cr_assert(*host(BUFFER_AT + i) == 0x11, "written after the reset");
        rig_start(WITH_FLUSH, 128);
    }
    still_works();
}
