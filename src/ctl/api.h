/*
 * Inside the control socket's API, for api*.c: what is kept, what a request becomes, and how it is answered.
 *
 * A request is a row of a table (api.c) and a function. The function gets its body as a structure that was
 * read by its table of keys, and returns 0 (204, or 200 with what it put into call->body), or an error with
 * the words for fault_message set by api_fault().
 */
#pragma once

#include "base/unix_listener.h"
#include "ctl/ctl.h"
#include "ctl/events.h"
#include "ctl/http.h"
#include "ctl/keys.h"
#include "ctl/logger.h"
#include "ctl/metrics.h"
#include "snapshot.h"

struct ctl {
    struct ctl_config config; /* strings are the caller's */
    struct loop *loop;
    const struct config *base; /* what the command line says */
    struct machine *machine;
    struct unix_listener socket;
    struct http_server *http;

    struct keys_config keys; /* the configuration so far, of the machine once it runs */
    bool boot_path;          /* something that a snapshot would bring along was configured */
    struct keys_serial serial;
    struct keys_metrics metrics_keys;
    uint64_t start_cpu_us; /* CPU time when the machine was started */
    struct config built;   /* what the machine was made of */

    struct json_value *metadata; /* MMDS; NULL: none was put yet */

    struct logger logger;
    struct metrics metrics;
    struct events events;
    struct loop_timer metrics_timer;  /* JSON lines, once a minute */
    struct loop_timer shutdown_timer; /* the deadline of PUT /vm/shutdown */
    struct api_pause *pausing;        /* requests that wait for the end of a pause */
    struct api_saving *saving;        /* the snapshot that is being written, or NULL */
    struct api_resetting *resetting;  /* a reset that waits for a pause, or NULL */
    struct api_forking *forking;      /* copies that wait for a pause, or NULL */
    struct api_replacing *replacing;  /* disks that are being opened in the place of others */
    struct snapshot snapshot;         /* that the machine came from */
    uint64_t saving_begin_us;         /* when it, or the one before, was asked for */
    unsigned unlisted_nets;           /* cards of the machine before those of the keys */
};

struct api_call {
    struct ctl *ctl;
    struct http_request *request;
    const char *id;   /* of the path, or NULL */
    struct text body; /* a 200's; empty: 204 */
    struct text fault;
    const char *type; /* of the body; NULL: JSON */
    bool deprecated;
    bool later; /* the function answers itself */
};

/* Sets the words of fault_message. Returns its first argument: -EINVAL is 400, -E2BIG 413. */
int api_fault(struct api_call *call, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Ends a request, with call->fault or with call->body. For api.c, and for who was told to answer later. */
void api_answer_fault(struct api_call *call, int status);
void api_answer_success(struct api_call *call);

/* Ends a request that waited, as an error, with these words for fault_message. */
void api_answer_late_fault(struct ctl *ctl, struct http_request *request, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Who speaks in the log. */
const char *api_log_name(const struct ctl *ctl);

/* "No such file or directory (os error 2)": an errno as Rust shows it. The text is valid until the next
 * call. */
const char *api_os_error(int error);

/* Firecracker's words for a request at the wrong time. */
int api_not_after_start(struct api_call *call);
int api_not_before_start(struct api_call *call);

/* Whether the machine is being saved, reset or forked: one at a time. */
bool api_is_busy(const struct ctl *ctl);

/* A request that waits until the machine is paused. */
struct api_pause {
    struct http_request *request;
    struct api_pause *next;
    uint64_t begin_us;
    bool resume; /* once it is paused */
};

/* Puts a copy of `from` into *to, whose old text is freed; NULL changes nothing. -ENOMEM with a message. */
int api_set_text(char **to, const char *from);

/* Microseconds of the monotonic clock. */
uint64_t api_now_us(void);

/* The functions of the table, by subject. `object` is the body's structure, which they may take members
 * from. */
typedef int api_function(struct api_call *call, void *object);

/* api_info.c */
api_function api_get_instance, api_get_version, api_get_config, api_get_machine_config;

/* api_sandbox.c */
api_function api_get_sandbox;

/* api_machine.c */
api_function api_put_machine_config, api_patch_machine_config, api_put_boot_source, api_put_cpu_config,
    api_put_action, api_patch_vm, api_put_power_button, api_put_shutdown;

/* api_snapshot.c */
api_function api_put_snapshot_create, api_put_snapshot_load, api_put_snapshot_other, api_put_reset;

/* Goes on from the snapshot that the command line names. As api_start(). */
int api_restore_base(struct api_call *call);

/* The machine is paused: a snapshot that waited for it is begun. True if the machine is to go on. */
bool api_saving_paused(struct ctl *ctl);

/* It goes on: tells the log for how long it stood still. */
void api_saving_resumed(struct ctl *ctl);

/* The machine is paused: a reset that waited for it is done, and the machine goes on. True if one did. */
bool api_reset_paused(struct ctl *ctl);

/* The machine ends: a snapshot, or a reset, that waited for a pause will not be. */
void api_saving_ended(struct ctl *ctl);
void api_reset_ended(struct ctl *ctl);

/* In a copy: goes on as a VM of its own. As api_start(). */
int api_start_copy(struct api_call *call);

/* api_fork.c; the other two as for a reset. */
api_function api_put_fork;
bool api_fork_paused(struct ctl *ctl);
void api_fork_ended(struct ctl *ctl);

/* keys_from_config.c: adds to `keys` what `config` has of machine, boot, disks and vsock; of cards; of a
 * balloon. -ENOMEM with a message. */
int api_take_config(const struct config *config, struct keys_config *keys);
int api_take_nets(const struct config *config, struct keys_config *keys);
int api_take_balloon(const struct config *config, struct keys_config *keys);

/* api_drives.c */
api_function api_put_drive, api_patch_drive;

/* The machine ends: who waits for another disk is told. */
void api_drives_ended(struct ctl *ctl);

/* api_devices.c */
api_function api_put_entropy, api_put_serial, api_put_pmem, api_put_memory_hotplug, api_unplug;

/* api_balloon.c, and what api_start() makes of it. */
api_function api_put_balloon, api_get_balloon, api_patch_balloon, api_patch_balloon_stats,
    api_patch_balloon_hinting;
void api_build_balloon(const struct ctl *ctl, struct config *built);

/* api_vsock.c, and what api_start() and a restore make of it: 0, or -ENOMEM, -ENODEV with a message. */
api_function api_put_vsock;
int api_build_vsock(const struct ctl *ctl, struct config *built);
int api_override_vsock(const struct keys_vsock_override *wanted, struct config *built);

/* api_net.c, and what api_start() makes of them. */
api_function api_put_net, api_patch_net;
int api_build_nets(const struct ctl *ctl, struct config *built);

/* Sets the buckets that `limiter` (NULL: none) has; the others stay. */
void api_take_limits(const struct keys_rate_limiter *limiter, struct rate_limiter_config *limits);

/* True if the limiter limits something: a bucket without a size or a time to refill does not. */
bool api_limits(const struct keys_token_bucket *bucket);
bool api_is_limited(const struct keys_rate_limiter *limiter);

/* api_mmds.c */
api_function api_get_mmds, api_put_mmds, api_patch_mmds, api_put_mmds_config;

/* api_watch.c */
api_function api_put_logger, api_put_metrics, api_get_metrics, api_get_events;

/* Tells the metrics the names of the table's rows. */
void api_name_rows(struct metrics *metrics);

/* Every request of the HTTP server; `context` is the struct ctl. */
void api_handle(void *context, struct http_request *request);

/* The machine's state has changed. */
void api_state_changed(struct ctl *ctl, enum machine_state state);

/* Under the name firecracker: a process has sent a signal. */
void api_signalled(void *context, int number);

/* Starts the machine with what was configured; on failure the words are in call->fault, as Firecracker has
 * them. */
int api_start(struct api_call *call);

/* A machine runs, or is paused where it was saved: metrics are written from now on. */
void api_started(struct ctl *ctl);

/* Makes the timers of a new struct ctl ready. */
void api_init_timers(struct ctl *ctl);

/* A JSON line of metrics, if there is a file for them. -errno. */
int api_write_metrics(struct ctl *ctl);
