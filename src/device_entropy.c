/* The entropy device. Every machine has one. */
#include "devices.h"

static unsigned count(const struct config *config)
{
    (void)config;
    return 1;
}

static int make(struct loop *loop, const struct config *config, unsigned index,
                struct virtio_device **ret_device)
{
    (void)config;
    (void)index;
    return virtio_rng_new(loop, ret_device);
}

const struct device_kind device_entropy = {.count = count, .make = make, .always = true};
