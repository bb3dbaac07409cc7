/*
 * Split virtqueues, the device's side (virtio 1.2, 2.7), and the one descriptor-chain walker that all devices
 * share.
 *
 *   driver area (avail ring)          descriptor table                 device area (used ring)
 *   flags | idx | ring[] | used_event  [addr|len|flags|next] x size     flags | idx | ring[] | avail_event
 *        driver writes                      driver writes                    device writes
 *
 * The guest owns every byte of it and changes it while we read. So: each index, descriptor and flag is copied
 * once, and only the copy is looked at; every address passes the gate; a chain has at most as many
 * descriptors of the table as the queue has entries, one indirect table, and as many parts as the caller has
 * room for; what breaks the protocol is -EPROTO, on which the device asks for a reset (design invariants 2
 * and 3).
 *
 * All functions run on the loop thread.
 */
#pragma once

#include "vcpu/mem.h"
#include <sys/uio.h>

#define VIRTQUEUE_SIZE_MAX 256u

struct virtqueue {
    const struct guest_mem *mem;
    uint16_t size;                /* entries; power of two, <= VIRTQUEUE_SIZE_MAX */
    bool event_idx;               /* VIRTIO_F_EVENT_IDX was negotiated */
    bool indirect;                /* VIRTIO_F_INDIRECT_DESC was negotiated */
    bool ready;                   /* in use: between virtqueue_start() and virtqueue_end() */
    uint8_t *desc, *avail, *used; /* through the gate, for their whole length */
    uint16_t next_avail;          /* ours: the next avail entry to take */
    uint16_t next_used;           /* ours: the next used entry to fill */
    uint16_t signalled;           /* next_used when it was last asked whether to interrupt */
    uint16_t in_flight;           /* chains taken and not yet given back */
};

/* A chain, copied out: readable parts first, then writable parts (2.7.4.2), each through the gate. */
struct virtq_chain {
    uint16_t head;
    unsigned readable, writable;             /* parts of each kind */
    uint64_t readable_bytes, writable_bytes; /* together less than 4 GiB */
    struct iovec *iov;                       /* the caller's array, readable then writable */
};

/* Takes the rings into use: 0, or -EPROTO with a message (size not a power of two or too big, misaligned, not in
 * RAM). */
int virtqueue_start(struct virtqueue *vq, const struct guest_mem *mem, uint16_t size, gpa_t desc, gpa_t avail,
                    gpa_t used, bool event_idx, bool indirect);

/* Out of use: chains that were taken are forgotten. */
void virtqueue_end(struct virtqueue *vq);

/*
 * Takes the next available chain into `iov` (room for `iov_max` parts). 1 a chain, 0 none available, -EPROTO
 * with a message: index out of range, more available or in flight than the queue holds, loop, nested or empty
 * indirect table, indirect not negotiated, readable after writable, zero length, address outside RAM, 4 GiB
 * or more in all, more than iov_max parts. ret_chain->iov is `iov`.
 */
int virtqueue_pop(struct virtqueue *vq, struct iovec *iov, unsigned iov_max, struct virtq_chain *ret_chain);

/* Gives chain `head` back with `written` bytes written into it. The entry is visible to the driver at
 * once. */
void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written);

/* True if the driver wants an interrupt for what was pushed since the last time this was asked. */
bool virtqueue_wants_interrupt(struct virtqueue *vq);

/* Kicks are not wanted while a batch is worked off (disable), wanted again before sleep: enable returns true
 * if more became available meanwhile, and the caller goes on popping. */
void virtqueue_disable_kicks(struct virtqueue *vq);
bool virtqueue_enable_kicks(struct virtqueue *vq);
