#include "store/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define THREADS_MAX 64

struct team {
    uint64_t count;
    int (*work)(void *opaque, uint64_t number);
    void *opaque;
    atomic_uint_fast64_t next;
    pthread_mutex_t mutex; /* over the rest */
    int result;
    char message[400];
};

static void *member(void *opaque)
{
    struct team *team = opaque;
    uint64_t number;
    int r = 0;
    while (r == 0 && (number = atomic_fetch_add(&team->next, 1)) < team->count)
        r = team->work(team->opaque, number);
    if (r < 0) {
        atomic_store(&team->next, team->count);
        pthread_mutex_lock(&team->mutex);
        if (team->result == 0) {
            team->result = r;
            strncpy(team->message, fail_text(), sizeof(team->message) - 1);
        }
        pthread_mutex_unlock(&team->mutex);
    }
    return NULL;
}

int parallel(uint64_t count, int (*work)(void *opaque, uint64_t number), void *opaque)
{
    struct team team = {.count = count, .work = work, .opaque = opaque};
    pthread_t threads[THREADS_MAX];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t wanted = MIN(MIN((uint64_t)MAX(cores, 1L), count), (uint64_t)THREADS_MAX);
    unsigned started = 0;
    pthread_mutex_init(&team.mutex, NULL);
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, member, &team) == 0)
        started++;
    member(&team); /* the caller is one of the threads */
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&team.mutex);
    return team.result < 0 ? fail(team.result, "%s", team.message) : 0;
}
