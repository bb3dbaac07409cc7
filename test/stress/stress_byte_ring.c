/* The byte ring under four threads that put and four that take: every byte arrives, once. */
#include "dev/byte_ring.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#define THREADS 4u
#define BYTES   20000u /* of each thread that puts */

static struct byte_ring ring;
static _Atomic uint64_t taken[THREADS]; /* by whose they are */
static _Atomic bool finished;

/* The sender in the upper two bits, a count in the others. */
static void *put(void *sender)
{
    for (uint32_t i = 0; i < BYTES; i++)
        while (!byte_ring_put(&ring, (uint8_t)((uintptr_t)sender << 6 | (i & 63))))
            sched_yield();
    return NULL;
}

static void *take(void *nothing)
{
    (void)nothing;
    for (;;) {
        bool last = atomic_load(&finished); /* before the look: what was put before it is found by the look */
        int byte = byte_ring_take(&ring);
        if (byte >= 0)
            atomic_fetch_add(&taken[byte >> 6], 1);
        else if (last)
            return NULL;
        else
            sched_yield();
    }
}

int main(void)
{
    pthread_t putters[THREADS], takers[THREADS];
    CHECK(byte_ring_new(64, &ring) == 0);
    for (uintptr_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&putters[i], NULL, put, (void *)i) == 0);
        CHECK(pthread_create(&takers[i], NULL, take, NULL) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(putters[i], NULL);
    atomic_store(&finished, true);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(takers[i], NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        if (taken[i] != BYTES) {
            printf("thread %u: %llu of %u bytes arrived\n", i, (unsigned long long)taken[i], BYTES);
            return 1;
        }
    }
    byte_ring_free(&ring);
    return 0;
}
