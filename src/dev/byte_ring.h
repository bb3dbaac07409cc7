/*
 * A bounded queue of bytes between the threads of a VM that takes no lock: any number of threads put, any
 * number take.
 *
 * Each cell is one atomic word, a byte and the turn that the cell is in; positions count up for ever.
 *
 *     position p lives in cell p % cells, in lap p / cells:   turn 2 * lap      the cell waits for its byte
 *                                                             turn 2 * lap + 1  the byte is there
 *
 * A thread owns position p of one end from the moment it has moved that end from p to p + 1. All zeros is an
 * empty ring, so one that is never filled never touches its memory.
 */
#pragma once

#include "base/base.h"
#include <stdatomic.h>

struct byte_ring {
    uint32_t cells;              /* a power of two */
    _Atomic uint32_t head, tail; /* next position to take, next position to fill */
    _Atomic uint32_t *cell;
};

/* -ENOMEM with a message. `cells`: a power of two, at most 2^20. Ends with byte_ring_free(). */
int byte_ring_new(uint32_t cells, struct byte_ring *ret_ring);
void byte_ring_free(struct byte_ring *ring);

/* False if the ring is full. Any thread. */
bool byte_ring_put(struct byte_ring *ring, uint8_t byte);

/* The oldest byte, or -1 if the ring is empty or the thread that is filling the oldest cell has not done so
 * yet (it wakes whoever it has to afterwards). Any thread. */
int byte_ring_take(struct byte_ring *ring);

/* How many bytes are in it, at some instant during the call. Any thread. */
uint32_t byte_ring_used(struct byte_ring *ring);
