#include "net/none.h"

#include <linux/if_tun.h>

/* Since Linux 6.2; Debian 12's headers are older. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20u
#define TUN_F_USO6 0x40u
#endif

/* The frame vanishes, as on a cable that is plugged in nowhere. */
static void none_send(struct net_backend *backend, unsigned pair, struct net_io *io, const struct iovec *iov,
                      unsigned count)
{
    size_t length = 0;
    (void)backend;
    (void)pair;
    for (unsigned i = 0; i < count; i++)
        length += iov[i].iov_len;
    io->done(io, (int)length);
}

static void none_receive(struct net_backend *backend, unsigned pair, struct net_io *io,
                         const struct iovec *iov, unsigned count)
{
    (void)backend;
    (void)pair;
    (void)iov;
    (void)count;
    io->busy = true; /* until it is cancelled */
}

static void none_cancel(struct net_backend *backend, struct net_io *io)
{
    (void)backend;
    if (!io->busy)
        return;
    io->busy = false;
    io->done(io, -ECANCELED);
}

static int none_set_offloads(struct net_backend *backend, net_offloads offloads)
{
    (void)backend;
    (void)offloads;
    return 0;
}

static int none_set_pairs(struct net_backend *backend, unsigned pairs)
{
    (void)backend;
    (void)pairs;
    return 0;
}

static void none_close(struct net_backend *backend)
{
    free(backend);
}

int none_open(unsigned pairs, struct net_backend **ret_backend)
{
    static const struct net_backend_ops ops = {
        .send = none_send,
        .receive = none_receive,
        .cancel = none_cancel,
        .set_offloads = none_set_offloads,
        .set_pairs = none_set_pairs,
        .close = none_close,
    };
    struct net_backend *backend = calloc(1, sizeof(*backend));
    if (!backend)
        return fail(-ENOMEM, "no memory for a network card");
    *backend = (struct net_backend){.ops = &ops,
                                    .pairs = pairs,
                                    .offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN |
                                                TUN_F_USO4 | TUN_F_USO6};
    *ret_backend = backend;
    return 0;
}
