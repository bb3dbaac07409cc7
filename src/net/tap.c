#include "net/tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

/* Since Linux 6.2; Debian 12's headers are older. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20u
#define TUN_F_USO6 0x40u
#endif

#define OFFLOADS_OF_ALL (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)
#define OFFLOADS_USO    (TUN_F_USO4 | TUN_F_USO6)

/* linux/if_tun.h has a flexible array: room for what is asked for. A TAP compares the first few addresses and
 * hashes the rest. */
#define FILTER_MAX 64u

struct tap {
    struct net_backend backend; /* first */
    int fds[NET_PAIRS_MAX];
    unsigned attached; /* pairs that frames come to */
    net_offloads set;
};

static struct tap *tap_of(struct net_backend *backend)
{
    return container_of(backend, struct tap, backend);
}

int tap_fd(const struct net_backend *backend, unsigned pair)
{
    return ((const struct tap *)backend)->fds[pair];
}

/* --- frames --- */

static void io_done(struct loop_op *op, int result, unsigned flags)
{
    struct net_io *io = container_of(op, struct net_io, op);
    (void)flags;
    io->busy = false;
    io->done(io, result);
}

static void tap_send(struct net_backend *backend, unsigned pair, struct net_io *io, const struct iovec *iov,
                     unsigned count)
{
    io->busy = true;
    io->op.done = io_done;
    loop_writev(backend->loop, &io->op, tap_of(backend)->fds[pair], iov, count, UINT64_MAX);
}

static void tap_receive(struct net_backend *backend, unsigned pair, struct net_io *io,
                        const struct iovec *iov, unsigned count)
{
    io->busy = true;
    io->op.done = io_done;
    loop_readv(backend->loop, &io->op, tap_of(backend)->fds[pair], iov, count, UINT64_MAX);
}

static void tap_cancel(struct net_backend *backend, struct net_io *io)
{
    loop_cancel(backend->loop, &io->op);
}

/* --- settings --- */

static int tap_set_offloads(struct net_backend *backend, net_offloads offloads)
{
    struct tap *tap = tap_of(backend);
    if (ioctl(tap->fds[0], TUNSETOFFLOAD, offloads) < 0)
        return fail_errno(-errno, "TUNSETOFFLOAD 0x%x", offloads);
    tap->set = offloads;
    return 0;
}

static int tap_set_pairs(struct net_backend *backend, unsigned pairs)
{
    struct tap *tap = tap_of(backend);
    while (tap->attached != pairs) {
        bool more = tap->attached < pairs;
        struct ifreq request = {.ifr_flags = more ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};
        if (ioctl(tap->fds[more ? tap->attached : tap->attached - 1], TUNSETQUEUE, &request) < 0)
            return fail_errno(-errno, "TUNSETQUEUE");
        tap->attached = more ? tap->attached + 1 : tap->attached - 1;
    }
    return 0;
}

static void tap_set_filter(struct net_backend *backend, const struct net_filter *filter)
{
    struct {
        struct tun_filter head;
        uint8_t addresses[FILTER_MAX][ETH_ALEN];
    } wanted = {.head.flags = filter->all_multicast ? TUN_FLT_ALLMULTI : 0};
    static const uint8_t broadcast[ETH_ALEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    if (!filter->all && filter->count <= FILTER_MAX - 2) {
        memcpy(wanted.addresses[0], filter->own, ETH_ALEN);
        memcpy(wanted.addresses[1], broadcast, ETH_ALEN);
        if (filter->count)
            memcpy(wanted.addresses[2], filter->addresses, filter->count * sizeof(*filter->addresses));
        wanted.head.count = (uint16_t)(filter->count + 2);
    }
    /* A macvtap has none; its link filters. No address is no filter. */
    (void)ioctl(tap_of(backend)->fds[0], TUNSETTXFILTER, &wanted);
}

/* --- life --- */

static void tap_close(struct net_backend *backend)
{
    struct tap *tap = tap_of(backend);
    for (unsigned i = 0; i < backend->pairs; i++)
        cleanup_fd(&tap->fds[i]);
    free(tap);
}

void tap_replace(struct net_backend *backend, struct net_backend *from)
{
    struct tap *tap = tap_of(backend), *other = tap_of(from);
    CHECK(backend->pairs == from->pairs);
    unsigned attached = tap->attached;
    for (unsigned i = 0; i < backend->pairs; i++) {
        int fd = tap->fds[i];
        tap->fds[i] = other->fds[i];
        other->fds[i] = fd;
    }
    tap->attached = other->attached;
    /* What can fail here fails when the guest uses it: the link is gone again. */
    (void)tap_set_offloads(backend, tap->set);
    (void)tap_set_pairs(backend, attached);
    tap_close(from);
}

static unsigned mtu_of(const char *name)
{
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (fd < 0 || ioctl(fd, SIOCGIFMTU, &request) < 0 || request.ifr_mtu < 68 || request.ifr_mtu > 65535)
        return 0;
    return (unsigned)request.ifr_mtu;
}

/* Headers of 12 bytes before each frame, and which offloads there are. */
static int prepare_fd(int fd, net_offloads *ret_offloads)
{
    int size = NET_HEADER;
    if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0)
        return fail_errno(-errno, "TUNSETVNETHDRSZ");
    *ret_offloads = OFFLOADS_OF_ALL;
    if (ioctl(fd, TUNSETOFFLOAD, OFFLOADS_OF_ALL | OFFLOADS_USO) == 0)
        *ret_offloads |= OFFLOADS_USO;
    if (ioctl(fd, TUNSETOFFLOAD, 0) < 0)
        return fail_errno(-errno, "TUNSETOFFLOAD");
    return 0;
}

static int check_fd(int fd)
{
    struct ifreq request = {0};
    if (ioctl(fd, TUNGETIFF, &request) < 0)
        return fail(-EINVAL, "descriptor %d is no TAP (open /dev/net/tun and TUNSETIFF, or /dev/tapN)", fd);
    if (!(request.ifr_flags & IFF_TAP) || !(request.ifr_flags & IFF_NO_PI) ||
        !(request.ifr_flags & IFF_VNET_HDR))
        return fail(-EINVAL, "descriptor %d: the TAP is not made with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR",
                    fd);
    return 0;
}

int tap_adopt(const int *fds, unsigned count, struct net_backend **ret_backend)
{
    static const struct net_backend_ops ops = {
        .send = tap_send,
        .receive = tap_receive,
        .cancel = tap_cancel,
        .set_offloads = tap_set_offloads,
        .set_pairs = tap_set_pairs,
        .set_filter = tap_set_filter,
        .close = tap_close,
    };
    net_offloads offloads = 0;
    CHECK(count >= 1 && count <= NET_PAIRS_MAX);
    for (unsigned i = 0; i < count; i++) {
        int r = check_fd(fds[i]);
        if (r == 0)
            r = prepare_fd(fds[i], &offloads);
        if (r < 0)
            return r;
    }
    struct ifreq request = {0};
    (void)ioctl(fds[0], TUNGETIFF, &request);
    struct tap *tap = calloc(1, sizeof(*tap));
    if (!tap)
        return fail(-ENOMEM, "no memory for a network card");
    tap->backend = (struct net_backend){
        .ops = &ops, .pairs = count, .offloads = offloads, .mtu = mtu_of(request.ifr_name)};
    tap->attached = count;
    memcpy(tap->fds, fds, count * sizeof(*fds));
    *ret_backend = &tap->backend;
    return 0;
}

static int open_queue(const char *name, unsigned pairs, char ret_name[IF_NAMESIZE])
{
    CLEANUP_FD int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(-errno, "/dev/net/tun (is the tun module loaded?)");
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    if (pairs > 1)
        request.ifr_flags |= IFF_MULTI_QUEUE;
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        int error = -errno;
        if (error == -EPERM)
            return fail(
                error,
                "TAP %s: no right to it (CAP_NET_ADMIN, or a TAP that is yours: ip tuntap add mode tap "
                "user $USER; or hand a descriptor in: fd=N)",
                name);
        if (error == -EBUSY)
            return fail(error, "TAP %s: in use by another program", name);
        if (error == -EINVAL)
            return fail(error, "TAP %s: no TAP, or one made for %s (ip tuntap add ... multi_queue)", name,
                        pairs > 1 ? "one queue" : "several queues");
        return fail_errno(error, "TAP %s", name);
    }
    memcpy(ret_name, request.ifr_name, IF_NAMESIZE);
    return fd_steal(&fd);
}

int tap_open(const char *name, unsigned pairs, char ret_name[IF_NAMESIZE], struct net_backend **ret_backend)
{
    int fds[NET_PAIRS_MAX];
    char chosen[IF_NAMESIZE] = "";
    unsigned opened = 0;
    int r = 0;
    if (strlen(name) >= IF_NAMESIZE)
        return fail(-EINVAL, "TAP %s: a name of more than %u characters", name, IF_NAMESIZE - 1);
    while (r == 0 && opened < pairs) {
        int fd = open_queue(opened ? chosen : name, pairs, chosen);
        if (fd < 0)
            r = fd;
        else
            fds[opened++] = fd;
    }
    if (r == 0)
        r = tap_adopt(fds, pairs, ret_backend);
    if (r == 0)
        memcpy(ret_name, chosen, IF_NAMESIZE);
    for (unsigned i = 0; r < 0 && i < opened; i++)
        close(fds[i]);
    return r;
}
