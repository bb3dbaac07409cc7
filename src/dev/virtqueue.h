/*
 * Split virtqueues, the device's side (virtio 1.2, 2.7), and the one descriptor-chain walker that all devices
 * share.
 *
 *   driver area (avail ring)          descriptor table                 device area (used ring)
 *   flags | idx | ring[] | used_event  [addr|len|flags|next] x size     flags | idx | ring[] | avail_event
 *        driver writes                      driver writes                    device writes
 *
 * A chain is one request: descriptors linked by `next`, each a buffer in guest memory that the device either
 * reads or writes. The driver links a chain in the table, puts the index of its first descriptor (the head)
 * into the avail ring, moves avail idx, and kicks. The device pops the head, works, puts {head, bytes
 * written} into the used ring, moves used idx, and interrupts. Chains may end in another order than they
 * came. Indices only count up, modulo 65536; an entry is its index modulo the queue's size. The event words
 * save notifications: "kick me only when avail idx passes avail_event" is the device's word to the driver,
 * "interrupt me only when used idx passes used_event" the driver's to the device (event_idx). Without that
 * feature a flag of each ring says yes or no.
 *
 * The guest owns every byte of this and changes it while we read. So each index, descriptor and flag is
 * copied once, and only the copy is looked at. Every address passes the gate. A chain has at most as many
 * descriptors as the table has entries, at most one indirect table, and as many parts as the caller has room
 * for. A breach of the protocol is -EPROTO, on which the device asks for a reset (design invariants 2 and 3).
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
    uint16_t next_avail;          /* index of the next avail entry to pop */
    uint16_t next_used;           /* index of the next used entry to fill */
    uint16_t signalled;           /* next_used when it was last asked whether to interrupt */
    uint16_t in_flight;           /* chains popped and not yet given back */
};

/* A chain, copied out: the parts that the device reads first, then those that it writes (2.7.4.2), each
 * through the gate. */
struct virtq_chain {
    uint16_t head;
    unsigned readable, writable;             /* parts of each kind */
    uint64_t readable_bytes, writable_bytes; /* together less than 4 GiB */
    struct iovec *iov;                       /* the caller's array, readable then writable */
};

/* Takes the rings into use: 0, or -EPROTO with a message (size not a power of two or too big, misaligned, not
 * in RAM). */
int virtqueue_start(struct virtqueue *vq, const struct guest_mem *mem, uint16_t size, gpa_t desc, gpa_t avail,
                    gpa_t used, bool event_idx, bool indirect);

/* Out of use: chains that were popped are forgotten. */
void virtqueue_end(struct virtqueue *vq);

/*
 * Takes the next available chain into `iov` (room for `iov_max` parts). 1 a chain, 0 none available, -EPROTO
 * with a message: index out of range, more available or in flight than the queue holds, loop, nested or empty
 * indirect table, indirect not negotiated, readable after writable, zero length, address outside RAM, 4 GiB
 * or more in all, more than iov_max parts. ret_chain->iov is `iov`.
 */
int virtqueue_pop(struct virtqueue *vq, struct iovec *iov, unsigned iov_max, struct virtq_chain *ret_chain);

/* The last `count` chains that were popped go back into the avail ring, to be popped again. None of them was
 * filled. */
void virtqueue_unpop(struct virtqueue *vq, uint16_t count);

/* Gives chains back: fill() writes one used entry (`written` bytes were put into chain `head`), publish()
 * shows the driver all that were filled. push() is both. */
void virtqueue_fill(struct virtqueue *vq, uint16_t head, uint32_t written);
void virtqueue_publish(struct virtqueue *vq);
void virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t written);

/* True if the driver wants an interrupt for what was published since the last time this was asked. */
bool virtqueue_wants_interrupt(struct virtqueue *vq);

/* Kicks are off while a batch is worked on, and on again before the loop sleeps. enable() returns true if
 * more became available meanwhile: then the caller goes on popping. */
void virtqueue_disable_kicks(struct virtqueue *vq);
bool virtqueue_enable_kicks(struct virtqueue *vq);
