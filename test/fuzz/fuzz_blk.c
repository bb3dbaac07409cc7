/*
 * The whole virtio-blk device as a guest can reach it: the input is a program of register accesses, memory
 * writes, kicks and turns of the loop, against a disk in a file. Nothing may be reported by the sanitizers,
 * and at the end a reset and a read of a well-behaved driver must succeed.
 */
#include "../unit/device_rig.h"
#include "dev/disk.h"

#include <linux/virtio_blk.h>
#include <stdio.h>
#include <sys/mman.h>

#define MEM_BYTES  (2 * MIB)
#define DISK_BYTES 65536u

struct program {
    const uint8_t *at, *end;
};

static uint64_t take(struct program *program, size_t bytes)
{
    uint64_t value = 0;
    bytes = MIN(bytes, (size_t)(program->end - program->at));
    memcpy(&value, program->at, bytes);
    program->at += bytes;
    return value;
}

/* Over the rings and what lies behind them: a byte of the program says where, in steps that make sense
 * there. */
static void write_memory(struct program *program)
{
    uint64_t at = RIG_RINGS_AT + take(program, 2) % (RINGS_BYTES / 2) * 2;
    size_t length = take(program, 1) % 33;
    length = MIN(length, (size_t)(program->end - program->at));
    guest_mem_write(&rig.mem, gpa(at), program->at, length);
    program->at += length;
}

/* A request as drivers make them, of which the program says one thing or another. */
static void add_request(struct program *program)
{
    struct virtio_blk_outhdr header = {.type = (uint32_t)take(program, 1) % 16, .sector = take(program, 1)};
    uint32_t length = (uint32_t)take(program, 2);
    bool writable = take(program, 1) & 1;
    guest_mem_write(&rig.mem, gpa(RIG_DATA_AT), &header, sizeof(header));
    const struct part parts[] = {
        {RIG_DATA_AT, 16, false}, {RIG_DATA_AT + 0x1000, length, writable}, {RIG_DATA_AT + 0x800, 1, true}};
    if (rig.rings.size)
        rings_add(&rig.rings, parts, 3);
}

static void step(struct program *program)
{
    uint64_t offset;
    unsigned length;
    switch (take(program, 1) % 8) {
    case 0:
        offset = take(program, 1) * 4;
        rig_write(offset, (uint32_t)take(program, 4));
        break;
    case 1:
        offset = take(program, 2) % LAYOUT_VIRTIO_SIZE;
        length = 1u << take(program, 1) % 4;
        if (offset + length <= LAYOUT_VIRTIO_SIZE)
            rig_write_bytes(offset, length, take(program, 8));
        break;
    case 2:
        offset = take(program, 2) % LAYOUT_VIRTIO_SIZE;
        length = 1u << take(program, 1) % 4;
        if (offset + length <= LAYOUT_VIRTIO_SIZE)
            rig_read_bytes(offset, length);
        break;
    case 3: write_memory(program); break;
    case 4: rig_kick(0); break;
    case 5: rig_run(20); break;
    case 6: rig_start(rig_offered(), (uint16_t)(1u << take(program, 1) % 9)); break;
    case 7: add_request(program); break;
    }
}

static void sane_read(void)
{
    rig_start(rig_offered(), 8);
    struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN};
    guest_mem_write(&rig.mem, gpa(RIG_DATA_AT), &header, sizeof(header));
    const struct part parts[] = {
        {RIG_DATA_AT, 16, false}, {RIG_DATA_AT + 0x1000, 512, true}, {RIG_DATA_AT + 0x800, 1, true}};
    rings_add(&rig.rings, parts, 3);
    rig_kick(0);
    CHECK(rig_await_used(1));
    CHECK(*(uint8_t *)guest_mem_at(&rig.mem, gpa(RIG_DATA_AT + 0x800), 1) == VIRTIO_BLK_S_OK);
}

/* One device for all inputs: each ends with a reset. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    char path[64];
    struct disk *disk;
    struct virtio_device *device;
    int fd = memfd_create("fuzz_blk", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    rig_new(MEM_BYTES);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    CHECK(disk_file_open(path, &(struct disk_options){0}, &disk) == 0);
    CHECK(virtio_blk_new(rig.loop, disk, "disk 0", &device) == 0);
    rig_attach(device);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct program program = {.at = data, .end = data + size};
    while (program.at < program.end)
        step(&program);
    sane_read();
    return 0;
}
