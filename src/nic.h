/* A network card of a machine: the device (dev/virtio_net.h), its end on the host (net/config.h), and what
 * joins the two. Loop thread. */
#pragma once

#include "dev/virtio_net.h"
#include "net/config.h"

/*
 * Makes card `index` as `config` says, which is lent as long as the card lives; `vm_name` (NULL: none) is for
 * its address. The device is not yet attached. On failure nothing is left, on the host neither; message.
 */
int nic_new(struct loop *loop, const struct net_config *config, unsigned index, const char *vm_name,
            struct virtio_device **ret_device);
