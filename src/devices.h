/*
 * The kinds of virtio devices that a machine can have: one row each. A row has all that the rest must know of
 * its kind: the options and their help text, the section of a configuration file, how many a configuration
 * asks for, and how one is made. Saving and loading are the device's own (struct virtio_ops, parts).
 *
 * A new kind is a file device_NAME.c and its line in devices.c.
 */
#pragma once

#include "config_keys.h"
#include "dev/virtio.h"

#include <argp.h>

struct device_kind {
    struct config_key section; /* of a configuration file; no name: there is none */

    const struct argp *argp; /* options; its input is the struct config. Optional. */

    /* How many of them `config` has. */
    unsigned (*count)(const struct config *config);

    /* Makes number `index` of them and opens what it needs; there is no VM yet. Loop thread. Negative errno
     * with a message. */
    int (*make)(struct loop *loop, const struct config *config, unsigned index,
                struct virtio_device **ret_device);

    bool always; /* asked for by nobody: the host is to blame if it cannot be made */
};

/* In the order of their slots, which a guest sees in its names: add at the end. Ends with NULL. */
extern const struct device_kind *const device_kinds[];

#define DEVICE_KINDS_MAX 16u

/* One for each file. */
extern const struct device_kind device_drive, device_entropy, device_net, device_balloon, device_vsock;
