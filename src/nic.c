#include "nic.h"

#include "base/log.h"
#include "net/tap.h"
#include "net/watch.h"

#include <stdio.h>
#include <string.h>

/* Ends with its device. */
struct nic {
    struct virtio_device *device;
    struct net_backend *backend; /* the device's */
    struct net_watch *watch;     /* NULL: nothing is known of the link */
};

static void carrier(void *context, bool up)
{
    const struct nic *nic = context;
    virtio_net_set_link(nic->device, up);
}

static void came_back(void *context, struct net_backend *backend)
{
    const struct nic *nic = context;
    tap_replace(nic->backend, backend);
    virtio_net_retry(nic->device);
}

static void lost(void *context)
{
    const struct nic *nic = context;
    if (nic->watch)
        net_watch_lost(nic->watch);
}

static void closed(void *context)
{
    struct nic *nic = context;
    if (nic->watch)
        net_watch_close(nic->watch);
    free(nic);
}

static int watch_link(struct loop *loop, struct nic *nic, const struct net_config *config,
                      const struct net_port *port)
{
    static const struct net_watch_ops ops = {.carrier = carrier, .came_back = came_back};
    if (!port->index)
        return 0;
    return net_watch_new(loop, config, port, &ops, nic, &nic->watch);
}

int nic_new(struct loop *loop, const struct net_config *config, unsigned index, const char *vm_name,
            struct virtio_device **ret_device)
{
    struct virtio_net_options options = {.rx = config->rx, .tx = config->tx};
    struct net_port port;
    char label[24];
    snprintf(label, sizeof(label), "net %u", index);
    if (config->has_mac)
        memcpy(options.mac, config->mac, sizeof(options.mac));
    else
        net_mac_derive(vm_name, index, options.mac);
    struct nic *nic = calloc(1, sizeof(*nic));
    if (!nic)
        return fail(-ENOMEM, "%s: no memory", label);
    int r = net_port_open(config, &port);
    if (r == 0) {
        r = virtio_net_new(loop, port.backend, &options, label, &nic->device);
        if (r < 0)
            port.backend->ops->close(port.backend);
    }
    if (r < 0) {
        free(nic);
        return r;
    }
    nic->backend = port.backend;
    if (config->kind == NET_KIND_NONE)
        virtio_net_set_link(nic->device, false);
    const struct virtio_net_observer observer = {.lost = lost, .closed = closed, .context = nic};
    virtio_net_observe(nic->device, &observer);
    r = watch_link(loop, nic, config, &port);
    if (r < 0) {
        virtio_close(nic->device, NULL, NULL);
        return r;
    }
    *ret_device = nic->device;
    return 0;
}
