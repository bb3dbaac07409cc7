/* The command line of the control socket: Firecracker's options, beside those of config_args.c. */
#pragma once

#include "ctl/ctl.h"

#include <argp.h>

struct ctl_options {
    struct ctl_config config;
    bool no_api;
    /* Under the name firecracker. */
    bool boot_timer, snapshot_version;
    const char *describe_snapshot, *seccomp_filter;
    bool named; /* --id was given */
};

/* As before any option. `firecracker`: the program was started under that name. */
void ctl_options_init(struct ctl_options *options, bool firecracker);

/* For config_from_args(); its input is a struct ctl_options. */
extern const struct argp_child ctl_options_child;

/* After the last option: what one option makes of another. */
void ctl_options_finish(struct ctl_options *options);

/* True if there is something for ctl_new() to do. */
bool ctl_options_wanted(const struct ctl_options *options);

/* What cannot be although each option by itself is right. -EINVAL with a message. */
int ctl_options_check(const struct ctl_options *options);
