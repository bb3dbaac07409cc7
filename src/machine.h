/*
 * A machine: memory, vCPUs and devices put together from a configuration, and its life on a loop.
 *
 *   machine_new() ──► NOT_STARTED ── machine_start() ──► RUNNING ── machine_pause() ──► PAUSING ──► PAUSED
 * ▲    │ fails                     ▲                                        │                          └────┘
 * └─────────── machine_resume() ───────────┘
 *
 * From each of these machine_end(), a signal, or the guest itself lead to ENDING, and the loop stops. All
 * functions are for the loop's thread.
 */
#pragma once

#include "base/unix_listener.h"
#include "config.h"
#include "dev/virtio.h"
#include "loop/loop.h"
#include "snapshot.h"

/* How a machine ends, as the process's exit status (documented in --help and the manual). */
enum machine_status {
    MACHINE_ENDED = 0,       /* reboot, poweroff, or the user's request */
    MACHINE_BAD_CONFIG = 1,  /* a value, a kernel or a disk that cannot be used */
    MACHINE_HOST_FAILED = 2, /* KVM, io_uring, memory, threads */
    MACHINE_PANICKED = 3,    /* the guest's kernel says so on its console */
    MACHINE_CRASHED = 4,     /* triple fault that nobody asked for, or an instruction that KVM cannot do */
    MACHINE_SIGNAL = 128,    /* + the signal's number */
};

enum machine_state { MACHINE_NOT_STARTED, MACHINE_RUNNING, MACHINE_PAUSING, MACHINE_PAUSED, MACHINE_ENDING };

struct machine;

struct machine_observer {
    void (*changed)(void *context, enum machine_state state); /* after the change. Optional. */
    void (*signalled)(void *context, int number);             /* before the signal ends it. Optional. */
    void (*booted)(void *context); /* the guest says so (struct config, boot_timer). Optional. */
    void *context;
};

/* SQEs of one batch: two full virtqueues. */
#define MACHINE_LOOP_ENTRIES 256u

/*
 * A machine that is not started. From now on SIGTERM, SIGINT and SIGHUP end it. A process has one: it lives
 * as long as the vCPU threads, to the process's end.
 */
int machine_new(struct loop *loop, const struct machine_observer *observer, struct machine **ret_machine);

/*
 * Makes all that `config` asks for and runs it. `config` is lent until the machine ends. On failure the
 * message is fail_text(), *ret_blame says whose fault it is, and the machine is not started: it may be tried
 * again, unless the host failed once the VM was made (-ENOTRECOVERABLE from then on). With config->snapshot
 * it goes on where that was saved, or is PAUSED there if config->stay_paused.
 */
int machine_start(struct machine *machine, const struct config *config, enum machine_status *ret_blame);

enum machine_state machine_state(const struct machine *machine);

/* Parks the vCPUs and makes the devices quiet: PAUSING now, and PAUSED once that is so. Of a running machine
 * only. */
void machine_pause(struct machine *machine);

/* Of a paused machine only. */
void machine_resume(struct machine *machine);

/* A file of a snapshot. With a descriptor of an empty file it is written to that, and the path is for
 * messages; without one (-1) a file is made, and gets its name when all of it is on the disk. */
struct machine_snapshot_file {
    const char *path;
    int fd; /* lent for the call */
};

/* True if a machine that is being saved must not run until all of it is written. */
bool machine_snapshot_needs_pause(const struct machine *machine);

/*
 * Saves a paused machine into two files (snapshot.h). It may be resumed as soon as this returns, unless
 * machine_snapshot_needs_pause().
 * saved(context, result) is called later: 0, and all is written and that of files without a descriptor on the
 * disk, or a negative errno with a message.
 * Errors at once are those of the files, -EACCES if the sandbox is closed to them, -EBUSY while another
 * snapshot is being written; no file is left then, and saved() is not called.
 */
typedef void machine_saved(void *context, int result);
int machine_snapshot(struct machine *machine, const struct machine_snapshot_file *state,
                     const struct machine_snapshot_file *memory, machine_saved *saved, void *context);

/* ---- Copies that go on as VMs of their own (machine_fork.c) ---- */

/* What the machine of a copy is made of: the state and the memory, and what is open. */
struct machine_copy {
    struct snapshot snapshot; /* without memory of its own */
    struct guest_mem mem;
    int kvm_fd;
    struct unix_listener vsock; /* for the vsock device; fd of -1: there is none */
    struct disk *disks[CONFIG_DRIVES_MAX];
};

/* -EACCES, -ENOTSUP with a message: this machine can make no copies. */
int machine_may_copy(const struct machine *machine);

/* Disks that are written to: a copy has a file for each, which is given in the disks' order. */
unsigned machine_written_disks(const struct machine *machine);

/* Of a paused machine: writes what its disks have into `fds`, the empty files of one copy. As disk_copy(). */
int machine_copy_disks(const struct machine *machine, const int *fds);

/* Of a paused machine: what its copies begin with. Each is then made by fork(2), and begins with
 * machine_copy_begin() before the machine is resumed. Ends with machine_copy_free() in the parent; in a copy
 * it lives as long as the process. Negative errno with a message. */
int machine_copy_new(const struct machine *machine, struct machine_copy **ret_copy);
void machine_copy_free(struct machine_copy *copy);

/*
 * In the copy: closes all descriptors but `fds`, `disk_fds` (one for each disk that is written to) and what
 * `copy` has, and forgets the machine and its loop. The process has one thread, and all signals are as they
 * were before machine_new(). Then make a loop, machine_new(), and machine_start() with config->copy.
 */
void machine_copy_begin(struct machine *machine, struct machine_copy *copy, const int *fds, unsigned fd_count,
                        const int *disk_fds);

/* -EOPNOTSUPP with a message: the machine did not come from a snapshot, or writes to disks, which would not
 * go back with it. */
int machine_may_reset(const struct machine *machine);

/* Takes a paused machine back to the snapshot that it came from, with another VM generation ID; it stays
 * paused. One that may be reset. After a failure, with a message, it can only be ended. */
int machine_reset(struct machine *machine);

/* The first reason counts. `message` is said when the console's last output is out. */
void machine_end(struct machine *machine, enum machine_status status, const char *message);

/* Other rate limits for network card `index` of a started machine; they were checked. NULL leaves one as it
 * is. */
void machine_limit_net(struct machine *machine, unsigned index, const struct rate_limiter_config *rx,
                       const struct rate_limiter_config *tx);

/* Other rate limits for drive `index` of a started machine; they were checked. */
void machine_limit_drive(struct machine *machine, unsigned index, const struct rate_limiter_config *limits);

/*
 * Opens the file or block device `path` and puts it in the place of drive `index` of a started machine, which
 * may be paused. replaced(context, result) is called when that is done, never before this returns: 0, or a
 * negative errno with a message, and the drive is what it was. What config says of the path is the caller's
 * to change. Errors at once, with a message: -EOPNOTSUPP a kind of disk or of machine that cannot, -ENOMEM.
 */
typedef void machine_replaced(void *context, int result);
int machine_replace_drive(struct machine *machine, unsigned index, const char *path,
                          machine_replaced *replaced, void *context);

/* The balloon of a started machine (dev/virtio_balloon.h), or NULL. Lent. */
struct virtio_device *machine_balloon(const struct machine *machine);

/* Presses the power button. Of a started machine only. */
void machine_power_button(struct machine *machine);

/*
 * After the loop has stopped with `result` of loop_run(): what the guest wrote is kept, the console's last
 * output goes out, and why it ended is said on standard error. Returns the exit status. vCPU threads still
 * exist: the caller ends the process without running destructors that they might look at (_exit).
 */
int machine_finish(struct machine *machine, int result);

/* Why it ended; empty before. */
const char *machine_end_message(const struct machine *machine);

/* Nanoseconds of the monotonic clock since it was started; 0 before. */
uint64_t machine_age(const struct machine *machine);

/* ---- What it counts, for metrics ---- */

/* Device `index` of the machine, its drives first and in their order; NULL: there are no more. */
const struct virtio_device *machine_device(const struct machine *machine, unsigned index);

/* Of vCPU `index` of a machine that was started; false: there are no more. */
bool machine_count_vcpu(const struct machine *machine, unsigned index, struct vcpu_counts *ret_counts);

/* Characters of the console that no reader took in time. */
uint64_t machine_console_dropped(const struct machine *machine);
