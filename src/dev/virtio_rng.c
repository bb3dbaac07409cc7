/* virtio-rng (virtio 1.2, 5.4): one queue of buffers to fill with random bytes. */
#include "dev/virtio.h"

#include <linux/virtio_ids.h>
#include <sys/random.h>

/* Bytes for one request, and buffers of one. Linux asks for 64 bytes in one buffer. The driver is told how
 * many bytes were filled. */
#define RNG_BYTES_MAX 65536u
#define RNG_IOV_MAX   16u

/* Requests in one turn of the loop: a turn takes 4 ms at most, at 250 MB/s. */
#define RNG_BATCH 16u

struct virtio_rng {
    struct virtio_device device; /* first */
    uint64_t requests, bytes;
};

/* Fills the chain's writable part; how many bytes were written. */
static uint32_t fill(const struct virtq_chain *chain)
{
    uint32_t written = 0;
    for (unsigned i = chain->readable; i < chain->readable + chain->writable; i++) {
        size_t part = MIN(chain->iov[i].iov_len, RNG_BYTES_MAX - written);
        /* The kernel's generator is ready long before any VM, so this neither waits nor fails. A signal may
         * cut a request of more than 256 bytes short. */
        ssize_t got = getrandom(chain->iov[i].iov_base, part, GRND_NONBLOCK);
        if (got > 0)
            written += (uint32_t)got;
        if (got < 0 || (size_t)got < chain->iov[i].iov_len)
            break;
    }
    return written;
}

static int rng_take(struct virtio_device *device, unsigned q, struct virtq_chain *chain)
{
    struct virtio_rng *rng = container_of(device, struct virtio_rng, device);
    uint32_t written = fill(chain);
    rng->requests++;
    rng->bytes += written;
    virtio_push(device, q, chain->head, written);
    return 0;
}

static void rng_quiesce(struct virtio_device *device)
{
    virtio_quiesced(device); /* nothing is ever in flight between two handlers */
}

static void rng_destroy(struct virtio_device *device)
{
    free(container_of(device, struct virtio_rng, device));
}

static const struct virtio_counter rng_counters[] = {
    {"requests", "Requests for random bytes.", offsetof(struct virtio_rng, requests)},
    {"bytes", "Random bytes given.", offsetof(struct virtio_rng, bytes)},
};

int virtio_rng_new(struct loop *loop, struct virtio_device **ret_device)
{
    static const struct virtio_ops ops = {
        .name = "virtio-rng",
        .device_id = VIRTIO_ID_RNG,
        .queue_count = 1,
        .iov_max = RNG_IOV_MAX,
        .batch = RNG_BATCH,
        .take = rng_take,
        .quiesce = rng_quiesce,
        .counters = rng_counters,
        .counter_count = ARRAY_SIZE(rng_counters),
        .destroy = rng_destroy,
    };
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    if (!rng)
        return fail(-ENOMEM, "no memory for virtio-rng");
    int r = virtio_init(&rng->device, &ops, loop, "rng", 0);
    if (r < 0) {
        free(rng);
        return r;
    }
    *ret_device = &rng->device;
    return 0;
}
