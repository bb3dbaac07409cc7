/*
 * The loop: one io_uring, one thread, and everything that can wait is an op in it.
 *
 * An op is embedded in its owner and lives until its `done` has run for the last time (a multishot op: until
 * a completion without LOOP_MORE). done() runs on the loop thread, inside loop_run(). Every function here is
 * for the loop thread alone. Other threads have the mailbox (mailbox.h).
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
 * Makes a loop with a ring of its own. -EPERM and -ENOSYS come with a message that names the sysctl or the
 * kernel version. The thread that runs the loop or restricts it first is the loop thread. `entries`: SQEs
 * that one batch may hold (a full queue is submitted early, never an error).
 */
int loop_new(unsigned entries, struct loop **ret_loop);

/* Nothing may be in flight that would outlive its owner: ops are dropped, and no done() runs. */
void loop_free(struct loop *loop);

/* In a child of fork(2), in place of loop_free(): the ring is the parent's and is left as it is. A child that
 * uses the loop in any other way dies of it (SIGSEGV). */
void loop_abandon(struct loop *loop);

/* From now on the kernel takes no op but those of this header (others: -EACCES) and no registration. Before
 * loop_run(), and before more ops were started than a batch holds. Cannot be undone. Negative errno with a
 * message. */
int loop_restrict(struct loop *loop);

/* Runs until loop_stop(), and may be run again after that; returns the value given to it, or a negative errno
 * with a message if the ring itself fails. Not from inside a done(), a prepare or a callback of libev. */
int loop_run(struct loop *loop);

/* Turns of loop_run(), each of which has waited for the kernel, and completions of ops so far. Loop
 * thread. */
struct loop_counts {
    uint64_t turns, completions;
};
struct loop_counts loop_counts(const struct loop *loop);

/* Ends loop_run() after the handler that calls this. Completions that are left are handled by the next
 * loop_run(). Called while the loop does not run, it ends the next one at once. */
void loop_stop(struct loop *loop, int value);

/* Called once per turn, after completions and control work were handled and before the loop waits, in the
 * order of registration. For work that gathers over a batch (raising an interrupt once for many requests).
 * `prepare` is owned by the caller and must live until loop_prepare_remove(), or as long as the loop. Both
 * may be called at any time, also by a prepare for itself or another; one that is added meanwhile runs in
 * the same turn. */
struct loop_prepare {
    void (*run)(struct loop_prepare *prepare);
    struct loop_prepare *next;
};
void loop_prepare_add(struct loop *loop, struct loop_prepare *prepare);
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

/* Sockets. The result of loop_accept() is a descriptor with close-on-exec set. A peer that is gone is
 * -EPIPE, and no signal. Closing a socket does not end its ops: cancel them first. */
struct sockaddr;
struct msghdr;
void loop_accept(struct loop *loop, struct loop_op *op, int fd);
void loop_connect(struct loop *loop, struct loop_op *op, int fd, const struct sockaddr *address,
                  uint32_t length);
void loop_recv(struct loop *loop, struct loop_op *op, int fd, void *buffer, uint32_t length);
void loop_send(struct loop *loop, struct loop_op *op, int fd, const void *buffer, uint32_t length);
void loop_recvmsg(struct loop *loop, struct loop_op *op, int fd, struct msghdr *message);
void loop_sendmsg(struct loop *loop, struct loop_op *op, int fd, const struct msghdr *message);

/* Readiness, `events` as in poll(2); the result is the mask. loop_watch() stays armed (LOOP_MORE): each
 * wake-up of the file is a completion, and nothing need be read for the next one. A completion without
 * LOOP_MORE is its last: the owner reads what there is, and starts it again. Before Linux 5.13 each is its
 * last. */
void loop_poll(struct loop *loop, struct loop_op *op, int fd, uint32_t events);
void loop_watch(struct loop *loop, struct loop_op *op, int fd, uint32_t events);

/* Completes with -ETIME after `nanoseconds`. The timer structure is the caller's and embeds the op. */
struct loop_timer {
    struct loop_op op;
    int64_t spec[2]; /* struct __kernel_timespec, which the kernel reads at submission */
};
void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t nanoseconds);

/* Hands what was started so far to the kernel now. True if it has taken all of it: descriptors that are
 * used by ops in flight may be closed then. */
bool loop_submit(struct loop *loop);

/* Asks for an op's end. It still completes, with its result or -ECANCELED, and only then may its memory go.
 * Does nothing if the op is not in flight. */
void loop_cancel(struct loop *loop, struct loop_op *op);

/* libev for the control plane, run from the ring between completions and prepares. It is made at the first
 * call. Call this each time before starting a watcher outside libev's own callbacks: that is how the loop
 * knows. Its timers are not run in time (libev does not say when the next is due): use loop_timer. */
struct ev_loop;
int loop_libev(struct loop *loop, struct ev_loop **ret_ev);
