/* The queue walker: the input is the rings, the descriptors and indirect tables, and what the driver does
 * between pops. */
#include "../unit/driver_rings.h"

#define MEM_BYTES (2 * MIB)
#define RINGS_AT  0x10000u
#define IOV_MAX_  32u

/* Every byte that the walker hands out must be guest memory. */
static void check_chain(const struct guest_mem *mem, const struct virtq_chain *chain)
{
    const uint8_t *start = guest_mem_at(mem, gpa(0), MEM_BYTES);
    uint64_t readable = 0, writable = 0;
    CHECK(chain->readable + chain->writable <= IOV_MAX_);
    for (unsigned i = 0; i < chain->readable + chain->writable; i++) {
        const uint8_t *base = chain->iov[i].iov_base;
        size_t length = chain->iov[i].iov_len;
        CHECK(length > 0 && base >= start && base + length <= start + MEM_BYTES);
        *(i < chain->readable ? &readable : &writable) += length;
    }
    CHECK(readable == chain->readable_bytes && writable == chain->writable_bytes);
    CHECK(readable + writable <= UINT32_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct guest_mem mem;
    if (!mem.region_count)
        CHECK(guest_mem_new(MEM_BYTES, GUEST_PAGES_THP_OFF, &mem) == 0);
    if (size < 4)
        return 0;
    uint16_t entries = (uint16_t)(1u << (data[0] % 9));
    bool event_idx = data[1] & 1, indirect = data[1] & 2;
    unsigned rounds = data[2];
    data += 4;
    size -= 4;

    /* The rest lies over descriptors, rings and a page beyond, which tables can point to. */
    struct rings rings;
    struct virtqueue vq;
    rings_init(&rings, &mem, RINGS_AT, entries);
    uint8_t *area = guest_mem_at(&mem, gpa(RINGS_AT), RINGS_BYTES);
    memcpy(area, data, MIN(size, RINGS_BYTES));
    CHECK(virtqueue_start(&vq, &mem, entries, rings.desc, rings.avail, rings.used, event_idx, indirect) == 0);

    uint16_t heads[VIRTQUEUE_SIZE_MAX];
    unsigned taken = 0;
    for (unsigned i = 0; i < rounds; i++) {
        struct iovec iov[IOV_MAX_];
        struct virtq_chain chain;
        int r = virtqueue_pop(&vq, iov, IOV_MAX_, &chain);
        CHECK(r == 1 || r == 0 || r == -EPROTO);
        CHECK(vq.in_flight <= entries);
        if (r == -EPROTO)
            break;
        if (r == 1) {
            check_chain(&mem, &chain);
            if (area[i] % 5 == 0) { /* not now: it is popped again */
                virtqueue_unpop(&vq, 1);
                continue;
            }
            heads[taken++] = chain.head;
        }
        if (taken && (r == 0 || area[i] % 2)) {
            virtqueue_push(&vq, heads[--taken], area[i]);
            virtqueue_wants_interrupt(&vq);
        }
        if (area[i] % 3 == 0)
            virtqueue_disable_kicks(&vq);
        else
            virtqueue_enable_kicks(&vq);
    }
    return 0;
}
