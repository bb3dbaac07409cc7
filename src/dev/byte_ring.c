#include "dev/byte_ring.h"

/* Sequentially consistent throughout: the users' wake-up flags rely on "put, then look at the flag" on one
 * side and "set the flag, then look for bytes" on the other. */

int byte_ring_new(uint32_t cells, struct byte_ring *ret_ring)
{
    CHECK(cells && !(cells & (cells - 1)) && cells <= 1u << 20);
    _Atomic uint32_t *cell = calloc(cells, sizeof(*cell));
    if (!cell)
        return fail(-ENOMEM, "no memory for a ring of %u bytes", cells);
    *ret_ring = (struct byte_ring){.cells = cells, .cell = cell};
    return 0;
}

void byte_ring_free(struct byte_ring *ring)
{
    free(ring->cell);
    ring->cell = NULL;
}

/* What a cell holds: the turn in the upper 24 bits, where it wraps as positions do, and the byte. */
static uint32_t cell_word(const struct byte_ring *ring, uint32_t position, bool filled, uint8_t byte)
{
    uint32_t turn = 2 * (position / ring->cells) + filled;
    return turn << 8 | byte;
}
static bool same_turn(uint32_t a, uint32_t b)
{
    return a >> 8 == b >> 8;
}

bool byte_ring_put(struct byte_ring *ring, uint8_t byte)
{
    uint32_t position = atomic_load(&ring->tail);
    for (;;) {
        _Atomic uint32_t *cell = &ring->cell[position % ring->cells];
        if (same_turn(atomic_load(cell), cell_word(ring, position, false, 0))) {
            if (atomic_compare_exchange_weak(&ring->tail, &position, position + 1)) {
                atomic_store(cell, cell_word(ring, position, true, byte));
                return true;
            }
        } else {
            /* Still holding the byte of a lap ago, unless another thread has filled this position
             * meanwhile. */
            uint32_t now = atomic_load(&ring->tail);
            if (now == position)
                return false;
            position = now;
        }
    }
}

int byte_ring_take(struct byte_ring *ring)
{
    uint32_t position = atomic_load(&ring->head);
    for (;;) {
        _Atomic uint32_t *cell = &ring->cell[position % ring->cells];
        uint32_t word = atomic_load(cell);
        if (same_turn(word, cell_word(ring, position, true, 0))) {
            if (atomic_compare_exchange_weak(&ring->head, &position, position + 1)) {
                atomic_store(cell, cell_word(ring, position + ring->cells, false, 0));
                return (int)(word & 0xff);
            }
        } else {
            uint32_t now = atomic_load(&ring->head);
            if (now == position)
                return -1;
            position = now;
        }
    }
}

uint32_t byte_ring_used(struct byte_ring *ring)
{
    uint32_t head = atomic_load(&ring->head);
    uint32_t used = atomic_load(&ring->tail) - head;
    return MIN(used, ring->cells); /* others may have taken and put between the two loads */
}
