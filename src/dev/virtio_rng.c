/* virtio-rng (virtio 1.2, 5.4): one queue of buffers to fill with random bytes. */
#include "dev/virtio.h"

#include <linux/virtio_ids.h>
#include <sys/random.h>

/* Bytes for one request, and buffers of one: Linux asks for 64 in one buffer. What is over is not filled,
 * which the driver is told. */
#define RNG_BYTES_MAX 65536u
#define RNG_IOV_MAX   16u

/* Requests in one turn of the loop: a turn takes 4 ms at most, at 250 MB/s. */
#define RNG_BATCH 16u

/* Fills the chain's writable part; how many bytes were written. */
static uint32_t fill(const struct virtq_chain *chain)
{
    uint32_t written = 0;
    for (unsigned i = chain->readable; i < chain->readable + chain->writable; i++) {
        size_t part = MIN(chain->iov[i].iov_len, RNG_BYTES_MAX - written);
        /* The kernel's generator is ready long before any VM, so this neither waits nor fails; if it ever
         * did, the guest gets the less. More than 256 bytes may come up short when a signal arrives. */
        ssize_t got = getrandom(chain->iov[i].iov_base, part, GRND_NONBLOCK);
        if (got > 0)
            written += (uint32_t)got;
        if (got < 0 || (size_t)got < chain->iov[i].iov_len)
            break;
    }
    return written;
}

static void rng_kicked(struct virtio_device *device, unsigned queue)
{
    struct virtqueue *vq = &device->queues[queue];
    unsigned budget = RNG_BATCH;
    do {
        struct iovec iov[RNG_IOV_MAX];
        struct virtq_chain chain;
        int r;
        virtqueue_disable_kicks(vq);
        while (budget && (r = virtqueue_pop(vq, iov, RNG_IOV_MAX, &chain)) == 1) {
            virtio_push(device, queue, chain.head, fill(&chain));
            budget--;
        }
        if (!budget) {
            virtio_kick_again(device, queue);
            return;
        }
        if (r < 0) {
            virtio_fail_device(device);
            return;
        }
    } while (virtqueue_enable_kicks(vq));
}

static void rng_stop(struct virtio_device *device)
{
    virtio_stopped(device); /* every request ends where it begins */
}

static void rng_destroy(struct virtio_device *device)
{
    free(device);
}

int virtio_rng_new(struct loop *loop, struct virtio_device **ret_device)
{
    static const struct virtio_ops ops = {
        .name = "virtio-rng",
        .device_id = VIRTIO_ID_RNG,
        .queue_count = 1,
        .stop = rng_stop,
        .kicked = rng_kicked,
        .destroy = rng_destroy,
    };
    struct virtio_device *device = calloc(1, sizeof(*device));
    if (!device)
        return fail(-ENOMEM, "no memory for virtio-rng");
    virtio_init(device, &ops, loop, "rng", 0);
    *ret_device = device;
    return 0;
}
