/*
 * The control socket of a VM: an HTTP API with Firecracker's paths, bodies and messages, and some of its own.
 * It makes the machine when it is told to, and follows its life.
 *
 * All of it is for the loop thread.
 */
#pragma once

#include "loop/loop.h"
#include "machine.h"
#include "sec/sandbox.h"

struct ctl;

/* What a copy of the process begins with. */
struct ctl_copy {
    struct machine_copy *machine;
    const char *id;
    const struct sandbox_config *sandbox; /* by which this process is confined */
    int listen_fd;                        /* its control socket, which listens */
    bool run;                             /* or it stays paused */
    uint64_t forked_us;                   /* the monotonic clock before fork(2) */
};

struct ctl_config {
    const char *socket_path;   /* NULL: no socket, only the configuration file */
    const char *config_file;   /* Firecracker's keys; NULL: wait for requests */
    const char *metadata_file; /* JSON for the metadata store; NULL: none */
    const char *id;            /* of the VM: 1 to 64 letters, digits and hyphens */
    bool firecracker;          /* behave as the program of that name where users would tell them apart */
    size_t payload_max;        /* bytes of a request's body */
    size_t metadata_max;       /* bytes of the metadata store */
    /* The logger from the start, as PUT /logger sets it. Optional. */
    const char *log_path, *log_level, *log_module;
    bool log_show_level, log_show_origin;
    const char *metrics_path;
    /* In a copy of the process that is to be a VM of its own: never returns. `config` is that of the other
     * VM. */
    void (*copied)(const struct ctl_config *config, const struct ctl_copy *copy);
    const struct ctl_copy *copy; /* this process is one; NULL: it is none */
    /* Of the name firecracker alone. */
    bool pci_wanted;
    uint64_t start_us, start_cpu_us, parent_cpu_us; /* when the jailer started us; 0: not told */
};

#define CTL_PAYLOAD_MAX 51200u /* Firecracker's default */

/* Firecracker's version that the API is that of. */
#define CTL_FIRECRACKER_VERSION "1.17.0"

/* An id that can be used. -EINVAL with a message. */
int ctl_check_id(const char *id);

/*
 * Makes the machine and the socket, and reads the files that `config` names. `base` is what the command line
 * says: all that requests do not set comes from it, and with a kernel in it there is a whole configuration.
 * Both are lent for the process's life. Errors come with a message; *ret_blame says whose fault it is.
 */
int ctl_new(struct loop *loop, const struct ctl_config *config, const struct config *base,
            struct ctl **ret_ctl, enum machine_status *ret_blame);

/* Starts the machine if a configuration is complete (of the command line or a file); otherwise requests
 * will. */
int ctl_start(struct ctl *ctl, enum machine_status *ret_blame);

struct machine *ctl_machine(const struct ctl *ctl);

/* A line of the log, for who has the socket's log but is none of its requests. */
void ctl_log(struct ctl *ctl, bool is_error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* At the end, when the machine has its exit status: tells listeners and removes the socket. */
void ctl_free(struct ctl *ctl, int status);
