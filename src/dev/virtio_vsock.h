/*
 * virtio-vsock (virtio 1.2, 5.10): stream sockets between the guest and programs of the host, without a
 * network. The host's side is Firecracker's convention, by Unix sockets:
 *
 *   a host program ──connect──► PATH      it says "CONNECT 1234\n"; when somebody in the guest listens on
 *                                         port 1234, the answer is "OK N\n", else the socket is closed
 *   the guest ──connect(CID 2, 1234)──► PATH_1234, on which a host program listens
 *
 * What waits is an op of the ring: the accept, a watch of each connection's socket, a poll for room. What
 * does not is done at once on the loop thread: sockets are non-blocking, and one read or write moves bytes
 * between a socket and the guest's own buffers. That is the one copy that an op of the ring makes, too, but
 * without another turn of the loop; and no guest buffer is ever held by something in flight.
 *
 * Memory for what a slow host program has not read yet is bounded by the credit that the guest gets: a
 * connection's buffer is as large as that, and there only while it is needed. For the other way there is
 * none: bytes stay in the Unix socket until the guest has room for them.
 */
#pragma once

#include "base/unix_listener.h"
#include "dev/virtio.h"

/* Of the guest and of host programs together. The last of them are the host's: a guest cannot take all. */
#define VSOCK_CONNECTIONS_MAX 4096u
#define VSOCK_HOST_RESERVE    256u

struct virtio_vsock_options {
    uint64_t guest_cid;
    struct unix_listener *listener; /* PATH; taken over when the device is made */
    const char *path;               /* as the user wrote it; copied */
};

/* A device not yet attached. -ENOMEM with a message. */
int virtio_vsock_new(struct loop *loop, const struct virtio_vsock_options *options,
                     struct virtio_device **ret_device);
