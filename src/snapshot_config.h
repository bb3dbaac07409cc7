/* What a machine was made of, as state: a snapshot carries it, so that the same machine can be made again. */
#pragma once

#include "base/state.h"
#include "config.h"
#include "snapshot.h"

/* Saves what of `config` is the guest's: memory, CPUs, disks, network cards, balloon, vsock, and how it was
 * booted. Negative errno with a message. */
int snapshot_save_config(const struct config *config, struct state_writer *to);

/*
 * Loads it into `config`, which config_init() has filled and config_free() ends, also after a failure.
 * Descriptors that were handed in are not there: their cards have fds of -1. -EBADMSG, -ENOTSUP, -ENOMEM with
 * a message.
 */
int snapshot_load_config(struct config *config, struct state_reader from);

/*
 * Makes the configuration by which machine_start() goes on from `snapshot`, which is lent to it, to its end.
 * What `given` names takes the place of what the snapshot had: disks and network cards in their order, the
 * root file system by itself, the vsock device's socket and address, the console, how memory is backed, the
 * sandbox. -EINVAL: `given` says what only the snapshot can; else as snapshot_load_config(). The caller ends
 * it with config_free() in any case.
 */
int snapshot_make_config(struct snapshot *snapshot, const struct config *given, struct config *ret_config);

/* What must be named and was not. -EINVAL with a message. */
int snapshot_check_config(const struct config *config);
