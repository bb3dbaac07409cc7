/*
 * virtio-balloon (virtio 1.2, 5.5): guest memory that comes back to the host.
 *
 *   balloon      the host sets a target, and the driver takes that many pages out of the guest's use
 *   reporting    the driver names pages of 2 MiB and more that have been free for some seconds
 *   hinting      the host asks once, and the driver names all that is free
 *
 * What the driver names is discarded (guest_mem_discard): its next use reads zeros.
 *
 * Hinting has a race in Linux's driver: a guest that runs short of memory during a run takes pages back that
 * it has named and that are not discarded yet, and loses what it writes into them. Reporting has none. So a
 * run starts only when someone asks for it.
 *
 * All functions are for the loop thread.
 */
#pragma once

#include "dev/virtio.h"

struct virtio_balloon_options {
    uint64_t target; /* bytes, whole MiB */
    bool deflate_on_oom;
    bool reporting, hinting;
    unsigned stats_seconds; /* between two requests for statistics; 0: there are none */
};

int virtio_balloon_new(struct loop *loop, const struct virtio_balloon_options *options,
                       struct virtio_device **ret_device);

/* The balloon shall hold `target` bytes, in whole MiB. -EINVAL with a message if the guest has less
 * memory. */
int virtio_balloon_set_target(struct virtio_device *device, uint64_t target);

/* Statistics are asked for now and then every so many seconds; 0: no more. Without effect if the options had
 * none. */
void virtio_balloon_set_stats(struct virtio_device *device, unsigned seconds);

/* Starts a run of hinting. `acknowledge`: when the driver has named all, it may use these pages again at
 * once; otherwise it holds them until virtio_balloon_stop_hinting(). -EOPNOTSUPP with a message if the
 * options had no hinting, or without a driver that can. */
int virtio_balloon_start_hinting(struct virtio_device *device, bool acknowledge);
void virtio_balloon_stop_hinting(struct virtio_device *device);

/* What the driver tells of the guest, by VIRTIO_BALLOON_S_.... */
#define BALLOON_STATS_MAX 16u

struct virtio_balloon_status {
    bool active; /* there is a driver */
    bool deflate_on_oom, reporting, hinting;
    uint64_t target, actual; /* bytes: what it shall hold, and what the driver says it holds */
    unsigned stats_seconds;
    uint32_t host_command, guest_command; /* of hinting: 0 stopped, 1 done, from 2 on the run's number */
    bool answered;                        /* the driver has given a command: guest_command means something */
    uint32_t known;                       /* which of the statistics the driver has told, as bits */
    uint64_t stats[BALLOON_STATS_MAX];
};
void virtio_balloon_status(const struct virtio_device *device, struct virtio_balloon_status *ret_status);

/* Firecracker's name of statistic `tag`. */
const char *virtio_balloon_stat_name(unsigned tag);
