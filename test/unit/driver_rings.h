/* The driver's side of a split virtqueue, played in guest memory: for tests and fuzzers of devices. */
#pragma once

#include "dev/virtqueue.h"
#include "vcpu/mem.h"

#include <linux/virtio_ring.h>
#include <string.h>

/* Where a queue's parts lie in guest memory, and what the driver knows of it. Room for the largest queue. */
struct rings {
    const struct guest_mem *mem;
    uint16_t size;
    gpa_t desc, avail, used;
    uint16_t avail_idx; /* as last published */
    uint16_t used_seen;
    uint16_t next_desc; /* next free descriptor, for rings_add() */
};

#define RINGS_BYTES UINT64_C(0x4000)

/* Guest memory that the test itself has laid out, so that it is there. */
static inline void *rings_at(const struct guest_mem *mem, gpa_t at, uint64_t length)
{
    void *host = guest_mem_at(mem, at, length);
    CHECK(host != NULL);
    return host;
}

static inline void rings_init(struct rings *rings, const struct guest_mem *mem, uint64_t at, uint16_t size)
{
    *rings = (struct rings){
        .mem = mem, .size = size, .desc = gpa(at), .avail = gpa(at + 0x1000), .used = gpa(at + 0x2000)};
    memset(rings_at(mem, gpa(at), RINGS_BYTES), 0, RINGS_BYTES);
}

static inline struct vring_desc *rings_desc(const struct rings *rings, unsigned index)
{
    return (struct vring_desc *)rings_at(rings->mem, rings->desc, 0x1000) + index;
}
static inline uint16_t *rings_avail(const struct rings *rings)
{
    return rings_at(rings->mem, rings->avail, 0x1000);
}
static inline uint16_t *rings_used(const struct rings *rings)
{
    return rings_at(rings->mem, rings->used, 0x1000);
}
static inline uint16_t *rings_used_event(const struct rings *rings)
{
    return rings_avail(rings) + 2 + rings->size;
}
static inline uint16_t rings_avail_event(const struct rings *rings)
{
    return *(uint16_t *)(void *)((uint8_t *)rings_used(rings) + 4 + 8 * (size_t)rings->size);
}

static inline void rings_set_desc(const struct rings *rings, unsigned index, uint64_t addr, uint32_t len,
                                  uint16_t flags, uint16_t next)
{
    *rings_desc(rings, index) = (struct vring_desc){.addr = addr, .len = len, .flags = flags, .next = next};
}

/* Puts `head` into the avail ring and publishes it. */
static inline void rings_offer(struct rings *rings, uint16_t head)
{
    uint16_t *avail = rings_avail(rings);
    avail[2 + rings->avail_idx % rings->size] = head;
    __atomic_store_n(&avail[1], ++rings->avail_idx, __ATOMIC_RELEASE);
}

struct part {
    uint64_t addr;
    uint32_t len;
    bool writable;
};

/* Offers a chain of `count` parts made of the next free descriptors; its head. */
static inline uint16_t rings_add(struct rings *rings, const struct part *parts, unsigned count)
{
    uint16_t head = rings->next_desc;
    for (unsigned i = 0; i < count; i++) {
        uint16_t index = rings->next_desc, next = (uint16_t)((index + 1) % rings->size);
        uint16_t flags = (uint16_t)((parts[i].writable ? VRING_DESC_F_WRITE : 0) |
                                    (i + 1 < count ? VRING_DESC_F_NEXT : 0));
        rings_set_desc(rings, index, parts[i].addr, parts[i].len, flags, next);
        rings->next_desc = next;
    }
    rings_offer(rings, head);
    return head;
}

static inline uint16_t rings_used_idx(const struct rings *rings)
{
    return __atomic_load_n(&rings_used(rings)[1], __ATOMIC_ACQUIRE);
}

/* The used element at free-running index `at`. */
static inline struct vring_used_elem rings_used_elem(const struct rings *rings, uint16_t at)
{
    struct vring_used_elem elem;
    memcpy(&elem, (uint8_t *)rings_used(rings) + 4 + sizeof(elem) * (size_t)(at % rings->size), sizeof(elem));
    return elem;
}
