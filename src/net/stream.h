/*
 * Frames over a connected stream socket, as passt and QEMU's -netdev stream have them: each behind its length
 * in 32 bits, most significant byte first. There is nobody to leave a checksum or segments to: no offloads.
 *
 * Each peer is hostile. One that sends a length that no frame has is cut off: its socket is closed, a
 * receive ends with -EBADMSG once and then, as everything else, with -EPIPE. One that does not read stops the
 * guest's queue, and nothing is kept for it but the rest of one frame.
 */
#pragma once

#include "net/backend.h"

/* Takes over a connected stream socket that blocks. -ENOMEM with a message; then it stays the caller's. */
int stream_adopt(int fd, struct net_backend **ret_backend);
