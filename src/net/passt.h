/* passt(1): a network without rights. It speaks for the guest by ordinary sockets of its own, and its side of
 * the card is a stream (stream.h). */
#pragma once

#include "net/config.h"

/* The backend of a card of NET_KIND_PASST. Connects to the passt that listens on the configuration's socket,
 * or starts one, which ends when the card does or this process, however that ends. Waits for it to be ready:
 * for the start. Negative errno with a message. */
int passt_open(const struct net_config *config, struct net_backend **ret_backend);
