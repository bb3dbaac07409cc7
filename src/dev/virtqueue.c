#include "dev/virtqueue.h"

#include <linux/virtio_ring.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian (virtio 1.2, 1.4)");

/* Sizes and alignments of the three parts: virtio 1.2, 2.7. The event words behind the rings are always
 * counted. */
#define DESC_ALIGN  16u
#define AVAIL_ALIGN 2u
#define USED_ALIGN  4u

static uint64_t avail_bytes(uint16_t size)
{
    return 4 + 2 * (uint64_t)size + 2;
}
static uint64_t used_bytes(uint16_t size)
{
    return 4 + sizeof(struct vring_used_elem) * (uint64_t)size + 2;
}

/* The words that both sides look at. Alignment was checked at the start, and RAM is page-aligned. */
static uint16_t *word_at(uint8_t *area, size_t offset)
{
    return (uint16_t *)(void *)(area + offset);
}
static uint16_t *avail_flags(const struct virtqueue *vq)
{
    return word_at(vq->avail, 0);
}
static uint16_t *avail_idx(const struct virtqueue *vq)
{
    return word_at(vq->avail, 2);
}
static uint16_t *avail_ring(const struct virtqueue *vq, uint16_t entry)
{
    return word_at(vq->avail, 4 + 2 * (size_t)(entry & (vq->size - 1)));
}
static uint16_t *used_event(const struct virtqueue *vq)
{
    return word_at(vq->avail, 4 + 2 * (size_t)vq->size);
}
static uint16_t *used_flags(const struct virtqueue *vq)
{
    return word_at(vq->used, 0);
}
static uint16_t *used_idx(const struct virtqueue *vq)
{
    return word_at(vq->used, 2);
}
static uint16_t *avail_event(const struct virtqueue *vq)
{
    return word_at(vq->used, 4 + sizeof(struct vring_used_elem) * (size_t)vq->size);
}

int virtqueue_start(struct virtqueue *vq, const struct guest_mem *mem, uint16_t size, gpa_t desc, gpa_t avail,
                    gpa_t used, bool event_idx, bool indirect)
{
    if (size == 0 || size > VIRTQUEUE_SIZE_MAX || (size & (size - 1)))
        return fail(-EPROTO, "queue size %u is not a power of two up to %u", size, VIRTQUEUE_SIZE_MAX);
    if (desc.value % DESC_ALIGN || avail.value % AVAIL_ALIGN || used.value % USED_ALIGN)
        return fail(-EPROTO, "queue at 0x%llx, 0x%llx, 0x%llx is misaligned", (unsigned long long)desc.value,
                    (unsigned long long)avail.value, (unsigned long long)used.value);
    uint8_t *desc_host = guest_mem_at(mem, desc, sizeof(struct vring_desc) * (uint64_t)size);
    uint8_t *avail_host = guest_mem_at(mem, avail, avail_bytes(size));
    uint8_t *used_host = guest_mem_at(mem, used, used_bytes(size));
    if (!desc_host || !avail_host || !used_host)
        return fail(-EPROTO, "queue at 0x%llx, 0x%llx, 0x%llx is not in RAM", (unsigned long long)desc.value,
                    (unsigned long long)avail.value, (unsigned long long)used.value);
    *vq = (struct virtqueue){
        .mem = mem,
        .size = size,
        .event_idx = event_idx,
        .indirect = indirect,
        .ready = true,
        .desc = desc_host,
        .avail = avail_host,
        .used = used_host,
    };
    return 0;
}

void virtqueue_end(struct virtqueue *vq)
{
    *vq = (struct virtqueue){0};
}

/* --- taking --- */

/* A table that a chain runs through: the queue's own, or an indirect one. */
struct table {
    const uint8_t *host;
    uint32_t entries;
};

/* The table that `desc` points to. */
static int open_indirect(const struct virtqueue *vq, const struct vring_desc *desc, struct table *ret_table)
{
    if (!vq->indirect)
        return fail(-EPROTO, "an indirect table, which was not negotiated");
    if (desc->flags & VRING_DESC_F_NEXT)
        return fail(-EPROTO, "an indirect descriptor with a next one");
    if (desc->len == 0 || desc->len % sizeof(struct vring_desc))
        return fail(-EPROTO, "an indirect table of %u bytes", desc->len);
    const uint8_t *host = guest_mem_at(vq->mem, gpa(desc->addr), desc->len);
    if (!host)
        return fail(-EPROTO, "an indirect table at 0x%llx, outside RAM", (unsigned long long)desc->addr);
    *ret_table = (struct table){.host = host, .entries = desc->len / (uint32_t)sizeof(struct vring_desc)};
    return 0;
}

/* What a walk has gathered. */
struct walk {
    struct iovec *next, *end; /* of the caller's array */
    struct iovec *writable;   /* the first writable part; NULL if there is none */
    uint64_t readable_bytes;  /* before that part */
    uint64_t bytes;           /* in all parts: an array's worth of 4 GiB each does not overflow */
};

/* A chain has filled the caller's array of `max` parts and goes on. */
static int no_room(uint64_t max, const struct table *table)
{
    return max >= table->entries ? fail(-EPROTO, "a chain that runs in a circle")
                                 : fail(-EPROTO, "a chain of more than %u buffers", (unsigned)max);
}

/*
 * Follows the chain from its head. This runs for each buffer of each request, so what it needs fits in
 * registers: hence the copies, and few checks. That the caller's array is full also ends a chain that runs in
 * a circle.
 */
static int follow(const struct virtqueue *vq, uint16_t head, struct walk *ret_walk)
{
    const struct guest_region low = vq->mem->regions[0];
    struct table table = {.host = vq->desc, .entries = vq->size};
    struct walk walk = *ret_walk;
    uint32_t index = head, writing = 0;
    bool in_indirect = false;
    for (;;) {
        if (index >= table.entries)
            return fail(-EPROTO, "descriptor %u of %u", index, table.entries);
        /* The one copy of the descriptor; what the guest does to the original from here on is not seen. */
        struct vring_desc desc;
        memcpy(&desc, table.host + sizeof(desc) * index, sizeof(desc));
        if (desc.flags & VRING_DESC_F_INDIRECT) {
            if (in_indirect)
                return fail(-EPROTO, "an indirect table in an indirect table");
            int r = open_indirect(vq, &desc, &table);
            if (r < 0)
                return r;
            in_indirect = true;
            index = 0;
            continue;
        }
        if (walk.next == walk.end)
            return no_room((uint64_t)(walk.end - ret_walk->next), &table);
        if ((desc.flags & VRING_DESC_F_WRITE) != writing) {
            if (writing)
                return fail(-EPROTO, "a readable buffer after a writable one");
            writing = VRING_DESC_F_WRITE;
            walk.writable = walk.next;
            walk.readable_bytes = walk.bytes;
        }
        void *host = guest_region_at(&low, gpa(desc.addr), desc.len);
        if (__builtin_expect(!host, 0)) {
            host = guest_mem_at(vq->mem, gpa(desc.addr), desc.len);
            if (!host)
                return desc.len == 0 ? fail(-EPROTO, "a buffer of no length")
                                     : fail(-EPROTO, "a buffer of %u bytes at 0x%llx, outside RAM", desc.len,
                                            (unsigned long long)desc.addr);
        }
        walk.bytes += desc.len;
        *walk.next++ = (struct iovec){.iov_base = host, .iov_len = desc.len};
        if (!(desc.flags & VRING_DESC_F_NEXT))
            break;
        index = desc.next;
    }
    if (walk.bytes > UINT32_MAX)
        return fail(-EPROTO, "a chain of 4 GiB or more");
    *ret_walk = walk;
    return 0;
}

int virtqueue_pop(struct virtqueue *vq, struct iovec *iov, unsigned iov_max, struct virtq_chain *ret_chain)
{
    /* Acquire: what the driver wrote before it moved idx is visible after (2.7.13.3). */
    uint16_t available = (uint16_t)(__atomic_load_n(avail_idx(vq), __ATOMIC_ACQUIRE) - vq->next_avail);
    if (available == 0)
        return 0;
    if (available > vq->size)
        return fail(-EPROTO, "%u chains available in a queue of %u", available, vq->size);
    /* Each chain in flight holds one descriptor at least; so a driver that has more breaks the protocol, and
     * this bounds what a device keeps of a queue. */
    if (vq->in_flight == vq->size)
        return fail(-EPROTO, "more chains in flight than the queue's %u", vq->size);

    uint16_t head = __atomic_load_n(avail_ring(vq, vq->next_avail), __ATOMIC_RELAXED);
    struct walk walk = {.next = iov, .end = iov + iov_max};
    int r = follow(vq, head, &walk);
    if (r < 0)
        return r;
    vq->next_avail++;
    vq->in_flight++;
    const struct iovec *writable = walk.writable ? walk.writable : walk.next;
    uint64_t readable_bytes = walk.writable ? walk.readable_bytes : walk.bytes;
    *ret_chain = (struct virtq_chain){
        .head = head,
        .readable = (unsigned)(writable - iov),
        .writable = (unsigned)(walk.next - writable),
        .readable_bytes = readable_bytes,
        .writable_bytes = walk.bytes - readable_bytes,
        .iov = iov,
    };
    return 1;
}

/* --- giving back --- */

void virtqueue_unpop(struct virtqueue *vq, uint16_t count)
{
    CHECK(count <= vq->in_flight);
    vq->next_avail = (uint16_t)(vq->next_avail - count);
    vq->in_flight = (uint16_t)(vq->in_flight - count);
}

void virtqueue_fill(struct virtqueue *vq, uint16_t head, uint32_t written)
{
    CHECK(vq->in_flight > 0);
    const struct vring_used_elem elem = {.id = head, .len = written};
    memcpy(vq->used + 4 + sizeof(elem) * (size_t)(vq->next_used & (vq->size - 1)), &elem, sizeof(elem));
    vq->next_used++;
    vq->in_flight--;
}

void virtqueue_publish(struct virtqueue *vq)
{
    /* Release: the entries and the data are visible before idx says so. */
    __atomic_store_n(used_idx(vq), vq->next_used, __ATOMIC_RELEASE);
}

void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written)
{
    virtqueue_fill(vq, head, written);
    virtqueue_publish(vq);
}

bool virtqueue_wants_interrupt(struct virtqueue *vq)
{
    if (vq->next_used == vq->signalled)
        return false;
    uint16_t before = vq->signalled;
    vq->signalled = vq->next_used;
    /* Between our store of used idx and our load of used_event. The driver stores used_event, then looks at
     * used idx again (2.7.7.2). So at least one of us sees the other's store. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!vq->event_idx)
        return !(__atomic_load_n(avail_flags(vq), __ATOMIC_RELAXED) & VRING_AVAIL_F_NO_INTERRUPT);
    return vring_need_event(__atomic_load_n(used_event(vq), __ATOMIC_RELAXED), vq->next_used, before);
}

void virtqueue_disable_kicks(struct virtqueue *vq)
{
    /* With event indices it is enough to leave avail_event behind: the driver kicks only when it crosses
     * it. */
    if (!vq->event_idx)
        __atomic_store_n(used_flags(vq), VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

bool virtqueue_enable_kicks(struct virtqueue *vq)
{
    if (vq->event_idx)
        __atomic_store_n(avail_event(vq), vq->next_avail, __ATOMIC_RELAXED);
    else
        __atomic_store_n(used_flags(vq), 0, __ATOMIC_RELAXED);
    /* The mirror of virtqueue_wants_interrupt(): our store first, then a look at what the driver added before
     * it could see it. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(avail_idx(vq), __ATOMIC_RELAXED) != vq->next_avail;
}
