#include "loop/loop.h"
#include "loop/internal.h"

#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

struct loop {
    struct io_uring ring;
    struct loop_prepare *prepares, **prepares_end;
    bool stopped;
    int stop_value;
    struct loop_libev *libev;
};

_Static_assert(sizeof(((struct loop_timer *)0)->spec) == sizeof(struct __kernel_timespec), "timer spec");

/* User data of the ring is made and taken apart by this pair alone. 0 is nobody's: the answer to a cancel
 * request. */
static void op_to_sqe(struct io_uring_sqe *sqe, struct loop_op *op)
{
    CHECK(!op->in_flight);
    op->in_flight = true;
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)op);
}
static struct loop_op *op_of_cqe(const struct io_uring_cqe *cqe)
{
    return (struct loop_op *)(uintptr_t)cqe->user_data;
}

static int ring_refused(int error)
{
    char value[16] = "";
    FILE *sysctl = fopen("/proc/sys/kernel/io_uring_disabled", "re");
    if (sysctl) {
        if (!fgets(value, sizeof(value), sysctl))
            value[0] = '\0';
        fclose(sysctl);
    }
    if (error == -EPERM && value[0] && value[0] != '0')
        return fail(error,
                    "io_uring is forbidden on this host: kernel.io_uring_disabled is %.1s "
                    "(allow it: sysctl kernel.io_uring_disabled=0)",
                    value);
    if (error == -EPERM)
        return fail(
            error,
            "io_uring is forbidden here, by a seccomp filter most likely (a container's default profile "
            "does that: allow io_uring_setup, io_uring_enter and io_uring_register)");
    if (error == -ENOSYS)
        return fail(error,
                    "this kernel has no io_uring (Linux 5.10 or newer with CONFIG_IO_URING is needed)");
    if (error == -ENOMEM)
        return fail(error,
                    "no memory for the ring (before Linux 5.12 it counts against ulimit -l: raise it)");
    return fail_errno(error, "io_uring_setup");
}

int loop_new(unsigned entries, struct loop **ret_loop)
{
    /* Best first; each falls back to what older kernels know. Deferred task work (6.1) runs completions only
     * when the loop asks for them; SINGLE_ISSUER is its condition. COOP_TASKRUN (5.19) at least spares the
     * interrupts. */
    static const unsigned flag_sets[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        IORING_SETUP_COOP_TASKRUN,
        0,
    };
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return fail(-ENOMEM, "no memory for the loop");
    loop->prepares_end = &loop->prepares;

    int r = -EINVAL;
    for (unsigned i = 0; i < ARRAY_SIZE(flag_sets) && r == -EINVAL; i++) {
        /* Room for every op that can be in flight twice over, so that the overflow list stays unused. */
        struct io_uring_params params = {.flags = flag_sets[i] | IORING_SETUP_CQSIZE,
                                         .cq_entries = entries * 4};
        r = io_uring_queue_init_params(entries, &loop->ring, &params);
    }
    if (r < 0) {
        free(loop);
        return ring_refused(r);
    }
    /* Saves a file look-up on each io_uring_enter (5.18); elsewhere the descriptor does. */
    (void)io_uring_register_ring_fd(&loop->ring);
    *ret_loop = loop;
    return 0;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    loop_libev_free(loop->libev);
    io_uring_queue_exit(&loop->ring);
    free(loop);
}

/* The next free SQE; a full queue is submitted first. */
static struct io_uring_sqe *next_sqe(struct loop *loop)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);
    while (!sqe) {
        int r = io_uring_submit(&loop->ring);
        CHECK(r >= 0 || r == -EINTR || r == -EAGAIN || r == -EBUSY);
        sqe = io_uring_get_sqe(&loop->ring);
    }
    return sqe;
}

void loop_read(struct loop *loop, struct loop_op *op, int fd, void *buffer, uint32_t length, uint64_t offset)
{
    struct io_uring_sqe *sqe = next_sqe(loop);
    io_uring_prep_read(sqe, fd, buffer, length, offset);
    op_to_sqe(sqe, op);
}

void loop_write(struct loop *loop, struct loop_op *op, int fd, const void *buffer, uint32_t length,
                uint64_t offset)
{
    struct io_uring_sqe *sqe = next_sqe(loop);
    io_uring_prep_write(sqe, fd, buffer, length, offset);
    op_to_sqe(sqe, op);
}

void loop_readv(struct loop *loop, struct loop_op *op, int fd, const struct iovec *iov, unsigned count,
                uint64_t offset)
{
    struct io_uring_sqe *sqe = next_sqe(loop);
    io_uring_prep_readv(sqe, fd, iov, count, offset);
    op_to_sqe(sqe, op);
}

void loop_writev(struct loop *loop, struct loop_op *op, int fd, const struct iovec *iov, unsigned count,
                 uint64_t offset)
{
    struct io_uring_sqe *sqe = next_sqe(loop);
    io_uring_prep_writev(sqe, fd, iov, count, offset);
    op_to_sqe(sqe, op);
}

void loop_fdatasync(struct loop *loop, struct loop_op *op, int fd)
{
    struct io_uring_sqe *sqe = next_sqe(loop);
    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    op_to_sqe(sqe, op);
}

void loop_fallocate(struct loop *loop, struct loop_op *op, int fd, int mode, uint64_t offset, uint64_t length)
{
    struct io_uring_sqe *sqe = next_sqe(loop);
    io_uring_prep_fallocate(sqe, fd, mode, (off_t)offset, (off_t)length);
    op_to_sqe(sqe, op);
}

void loop_poll(struct loop *loop, struct loop_op *op, int fd, uint32_t events)
{
    struct io_uring_sqe *sqe = next_sqe(loop);
    io_uring_prep_poll_add(sqe, fd, events);
    op_to_sqe(sqe, op);
}

void loop_watch(struct loop *loop, struct loop_op *op, int fd, uint32_t events)
{
    struct io_uring_sqe *sqe = next_sqe(loop);
    io_uring_prep_poll_multishot(sqe, fd, events);
    op_to_sqe(sqe, op);
}

void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t nanoseconds)
{
    timer->spec[0] = (int64_t)(nanoseconds / 1000000000u);
    timer->spec[1] = (int64_t)(nanoseconds % 1000000000u);
    struct io_uring_sqe *sqe = next_sqe(loop);
    io_uring_prep_timeout(sqe, (struct __kernel_timespec *)timer->spec, 0, 0);
    op_to_sqe(sqe, &timer->op);
}

bool loop_submit(struct loop *loop)
{
    return io_uring_submit(&loop->ring) >= 0 && io_uring_sq_ready(&loop->ring) == 0;
}

void loop_cancel(struct loop *loop, struct loop_op *op)
{
    if (!op->in_flight)
        return;
    struct io_uring_sqe *sqe = next_sqe(loop);
    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)op, 0);
    io_uring_sqe_set_data64(sqe, 0);
}

void loop_prepare_add(struct loop *loop, struct loop_prepare *prepare)
{
    prepare->next = NULL;
    *loop->prepares_end = prepare;
    loop->prepares_end = &prepare->next;
}

void loop_prepare_remove(struct loop *loop, struct loop_prepare *prepare)
{
    struct loop_prepare **at = &loop->prepares;
    while (*at && *at != prepare)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = prepare->next;
    if (!*at)
        loop->prepares_end = at;
}

void loop_stop(struct loop *loop, int value)
{
    loop->stopped = true;
    loop->stop_value = value;
}

static void handle_completions(struct loop *loop)
{
    struct io_uring_cq *cq = &loop->ring.cq;
    while (!loop->stopped && *cq->khead != io_uring_smp_load_acquire(cq->ktail)) {
        unsigned head = *cq->khead;
        const struct io_uring_cqe *cqe = &cq->cqes[head & cq->ring_mask];
        struct loop_op *op = op_of_cqe(cqe);
        int result = cqe->res;
        bool more = cqe->flags & IORING_CQE_F_MORE;
        io_uring_smp_store_release(cq->khead, head + 1);
        if (!op)
            continue;
        op->in_flight = more;
        op->done(op, result, more ? LOOP_MORE : 0);
    }
}

int loop_run(struct loop *loop)
{
    loop->stopped = false;
    while (!loop->stopped) {
        for (struct loop_prepare *prepare = loop->prepares; prepare; prepare = prepare->next)
            prepare->run(prepare);
        if (loop->stopped)
            break;
        int r = io_uring_submit_and_wait(&loop->ring, 1);
        /* EINTR: a signal's handler ran. EAGAIN and EBUSY: the kernel wants completions taken before it takes
         * more. */
        if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
            return fail_errno(r, "io_uring_enter");
        handle_completions(loop);
    }
    loop->stopped = false;
    return loop->stop_value;
}

int loop_libev(struct loop *loop, struct ev_loop **ret_ev)
{
    if (!loop->libev) {
        int r = loop_libev_new(loop, &loop->libev);
        if (r < 0)
            return r;
    }
    *ret_ev = loop_libev_ev(loop->libev);
    return 0;
}
