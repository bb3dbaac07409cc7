/*
 * The loop: one io_uring, one thread, and everything that can wait is an op in it.
 *
 * An op is embedded in its owner and lives until its `done` has run for the last time (a multishot op: until
 * a completion without LOOP_MORE). done() runs on the loop thread, inside loop_run(). Every function here is
 * for the loop thread alone, except loop_post() in mailbox.h.
 *
 * Submission is lazy: an op started here reaches the kernel with the loop's next io_uring_enter, together
 * with all others started since, so a batch of guest requests is one system call.
 */
#pragma once

#include "base/base.h"
#include <sys/uio.h>

struct loop;
struct loop_op;

/* `result`: what the system call would have returned: >= 0, or a negative errno (-ECANCELED after
 * loop_cancel()). `flags`: LOOP_MORE while a multishot op stays armed. */
typedef void loop_done(struct loop_op *op, int result, unsigned flags);
#define LOOP_MORE 1u

struct loop_op {
    loop_done *done; /* set by the owner before the op is started */
    bool in_flight;  /* kept by the loop: between start and last completion */
};

/*
 * Makes a loop of its own ring. -EPERM and -ENOSYS come with a message that name the sysctl or the kernel
 * version. The thread that calls this is the loop thread. `entries`: SQEs that one batch may hold (a full
 * queue is submitted early, never an error).
 */
int loop_new(unsigned entries, struct loop **ret_loop);
void loop_free(struct loop *loop);

/* Runs until loop_stop() (and may be run again after that); returns the value given to it, or a negative
 * errno with a message if the ring itself fails. May be called again: at the end, devices wait so for what they
 * have in flight. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop, int value);

/* Called once per turn after completions were handled and before the loop sleeps, in the order of
 * registration. For work that gathers over a batch (raising an interrupt once for many requests). `prepare` is
 * owned by the caller and must live as long as the loop, or until loop_prepare_remove(). */
struct loop_prepare {
    void (*run)(struct loop_prepare *prepare);
    struct loop_prepare *next;
};
void loop_prepare_add(struct loop *loop, struct loop_prepare *prepare);

/* Not from inside a prepare. */
void loop_prepare_remove(struct loop *loop, struct loop_prepare *prepare);

/* Starting ops. `op->in_flight` must be false. Buffers, iovec arrays and descriptors stay the caller's and
 * must live until completion. Offsets and lengths in bytes; offset -1 is the file's own position (pipes,
 * terminals). */
void loop_read(struct loop *loop, struct loop_op *op, int fd, void *buffer, uint32_t length, uint64_t offset);
void loop_write(struct loop *loop, struct loop_op *op, int fd, const void *buffer, uint32_t length,
                uint64_t offset);
void loop_readv(struct loop *loop, struct loop_op *op, int fd, const struct iovec *iov, unsigned count,
                uint64_t offset);
void loop_writev(struct loop *loop, struct loop_op *op, int fd, const struct iovec *iov, unsigned count,
                 uint64_t offset);
void loop_fdatasync(struct loop *loop, struct loop_op *op, int fd);
void loop_fallocate(struct loop *loop, struct loop_op *op, int fd, int mode, uint64_t offset,
                    uint64_t length);

/* Readiness, `events` as in poll(2); the result is the mask. loop_watch() stays armed (LOOP_MORE) and is
 * edge-like: each wake-up of the file is a completion, the file's state need not be drained for the next one.
 * It must be started again when a completion comes without LOOP_MORE (kernels before 5.13 always). */
void loop_poll(struct loop *loop, struct loop_op *op, int fd, uint32_t events);
void loop_watch(struct loop *loop, struct loop_op *op, int fd, uint32_t events);

/* Completes with -ETIME after `nanoseconds`. The timer structure is the caller's and embeds the op. */
struct loop_timer {
    struct loop_op op;
    int64_t spec[2]; /* struct __kernel_timespec, which the kernel reads at submission */
};
void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t nanoseconds);

/* Hands what was started so far to the kernel now. True if it has taken all of it: descriptors that are used by
 * ops in flight may be closed then. */
bool loop_submit(struct loop *loop);

/* Asks for an op's end. It still completes, with its result or -ECANCELED, and only then may its memory
 * go. */
void loop_cancel(struct loop *loop, struct loop_op *op);

/* libev for the control plane, run from the ring: created at the first call, and until then costs nothing.
 * Ask for it each time before starting a watcher outside libev's own callbacks: that is how the loop knows.
 * Its timers are not run in time (libev does not say when the next is due): use loop_timer. */
struct ev_loop;
int loop_libev(struct loop *loop, struct ev_loop **ret_ev);
