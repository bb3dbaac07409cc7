/* The ring: making it, submitting, and one turn of the loop after the other. */
#include "loop/internal.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

_Static_assert(sizeof(((struct loop_timer *)0)->spec) == sizeof(struct __kernel_timespec), "timer spec");

/* Places for completions, for each SQE of a batch. Ops in flight may be many more than a batch: every disk
 * has its own. What finds no place waits in the kernel (IORING_FEAT_NODROP), for an allocation each. */
#define CQ_ENTRIES_PER_SQE 16u

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

/* Best first; each falls back to what older kernels know. */
static int make_ring(struct loop *loop, unsigned entries)
{
    /* Deferred task work (6.1) runs completions only when the loop asks for them; SINGLE_ISSUER is its
     * condition. COOP_TASKRUN (5.19) at least spares the interrupts. */
    static const unsigned flag_sets[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        IORING_SETUP_COOP_TASKRUN,
        0,
    };
    struct io_uring_params params;
    int r = -EINVAL;
    for (unsigned i = 0; i < ARRAY_SIZE(flag_sets) && r == -EINVAL; i++) {
        params = (struct io_uring_params){
            .flags = flag_sets[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED,
            .cq_entries = entries * CQ_ENTRIES_PER_SQE,
        };
        r = io_uring_queue_init_params(entries, &loop->ring, &params);
    }
    if (r < 0)
        return ring_refused(r);
    /* Both came with Linux 5.13. An older kernel answers a multishot poll with EINVAL. */
    loop->polls_multishot = params.features & IORING_FEAT_RSRC_TAGS;
    return 0;
}

int loop_new(unsigned entries, struct loop **ret_loop)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    if (!loop)
        return fail(-ENOMEM, "no memory for the loop");
    loop->prepares_end = &loop->prepares;
    int r = make_ring(loop, entries);
    if (r < 0) {
        free(loop);
        return r;
    }
    /* A child of fork(2) that touched the ring would move the parent's places in it. */
    r = io_uring_ring_dontfork(&loop->ring);
    if (r < 0) {
        loop_free(loop);
        return fail_errno(r, "keeping the ring from child processes");
    }
    /* Saves a file look-up on each io_uring_enter (5.18); elsewhere the descriptor does. */
    (void)io_uring_register_ring_fd(&loop->ring);
    *ret_loop = loop;
    return 0;
}

static void free_all_but_ring(struct loop *loop)
{
    if (loop->control)
        loop->control->free(loop->control);
    free(loop->early);
    free(loop);
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    io_uring_queue_exit(&loop->ring);
    free_all_but_ring(loop);
}

void loop_abandon(struct loop *loop)
{
    close(loop->ring.ring_fd);
    free_all_but_ring(loop);
}

/* The system call itself: Debian 12's shared liburing does not export what wraps these two. */
static int ring_register(struct loop *loop, unsigned what, const void *argument, unsigned count)
{
    long r = syscall(SYS_io_uring_register, loop->ring.ring_fd, what, argument, count);
    return r < 0 ? -errno : 0;
}

static int enable(struct loop *loop)
{
    if (loop->enabled)
        return 0;
    int r = ring_register(loop, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    loop->enabled = r == 0;
    return r;
}

int loop_restrict(struct loop *loop)
{
    static const uint8_t ops[] = {
        IORING_OP_READ,    IORING_OP_WRITE,     IORING_OP_READV,    IORING_OP_WRITEV,  IORING_OP_FSYNC,
        IORING_OP_ACCEPT,  IORING_OP_FALLOCATE, IORING_OP_CONNECT,  IORING_OP_RECV,    IORING_OP_SEND,
        IORING_OP_RECVMSG, IORING_OP_SENDMSG,   IORING_OP_POLL_ADD, IORING_OP_TIMEOUT, IORING_OP_ASYNC_CANCEL,
    };
    struct io_uring_restriction list[ARRAY_SIZE(ops) + 1] = {
        [ARRAY_SIZE(ops)] = {.opcode = IORING_RESTRICTION_REGISTER_OP,
                             .register_op = IORING_UNREGISTER_RING_FDS}, /* for loop_free() */
    };
    for (unsigned i = 0; i < ARRAY_SIZE(ops); i++)
        list[i] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = ops[i]};
    CHECK(!loop->enabled);
    int r = ring_register(loop, IORING_REGISTER_RESTRICTIONS, list, ARRAY_SIZE(list));
    if (r == 0)
        r = enable(loop);
    return r < 0 ? fail_errno(r, "restricting the ring") : 0;
}

/* ---- Submitting ---- */

/* Takes the completions that there are out of the ring, so that the kernel has room for more. Their ops do
 * not hear of it: whoever starts an op does not expect to be called back. */
static bool take_early(struct loop *loop)
{
    struct io_uring_cqe *cqes[64];
    unsigned taken, before = (unsigned)loop->early_count;
    (void)io_uring_get_events(&loop->ring); /* brings in what found no place before */
    while ((taken = io_uring_peek_batch_cqe(&loop->ring, cqes, ARRAY_SIZE(cqes))) > 0) {
        CHECK(array_reserve(&loop->early, loop->early_count + taken, &loop->early_capacity) == 0);
        for (unsigned i = 0; i < taken; i++)
            loop->early[loop->early_count++] = *cqes[i];
        io_uring_cq_advance(&loop->ring, taken);
    }
    return loop->early_count > before;
}

struct io_uring_sqe *loop_next_sqe(struct loop *loop)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);
    while (!sqe) {
        int r = enable(loop);
        if (r == 0)
            r = io_uring_submit(&loop->ring);
        CHECK(r >= 0 || r == -EINTR || r == -EAGAIN || r == -EBUSY);
        /* EBUSY: the kernel wants completions taken before it takes more. EAGAIN: it has no memory now. */
        if ((r == -EBUSY || r == -EAGAIN) && !take_early(loop))
            poll(NULL, 0, 1);
        sqe = io_uring_get_sqe(&loop->ring);
    }
    return sqe;
}

bool loop_submit(struct loop *loop)
{
    return enable(loop) == 0 && io_uring_submit(&loop->ring) >= 0 && io_uring_sq_ready(&loop->ring) == 0;
}

static int submit_and_wait(struct loop *loop)
{
    int r = enable(loop);
    if (r == 0)
        r = io_uring_submit_and_wait(&loop->ring, loop->early_count ? 0 : 1);
    if ((r == -EAGAIN || r == -EBUSY) && !take_early(loop))
        poll(NULL, 0, 1);
    /* EINTR: a signal's handler ran. */
    if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
        return fail_errno(r, "io_uring_enter");
    return 0;
}

/* ---- A turn ---- */

void loop_prepare_add(struct loop *loop, struct loop_prepare *prepare)
{
    prepare->next = NULL;
    *loop->prepares_end = prepare;
    loop->prepares_end = &prepare->next;
    if (loop->preparing && !loop->next_prepare)
        loop->next_prepare = prepare;
}

void loop_prepare_remove(struct loop *loop, struct loop_prepare *prepare)
{
    struct loop_prepare **at = &loop->prepares;
    while (*at && *at != prepare)
        at = &(*at)->next;
    if (!*at)
        return;
    if (loop->next_prepare == prepare)
        loop->next_prepare = prepare->next;
    *at = prepare->next;
    if (!*at)
        loop->prepares_end = at;
}

static void run_prepares(struct loop *loop)
{
    struct loop_prepare *prepare;
    loop->preparing = true;
    loop->next_prepare = loop->prepares;
    while ((prepare = loop->next_prepare)) {
        loop->next_prepare = prepare->next;
        prepare->run(prepare);
    }
    loop->preparing = false;
}

/* Control work first: what its handlers did is gathered up by the prepares, in the same turn. */
static void prepare_to_wait(struct loop *loop)
{
    do {
        if (loop->control && loop->control->due)
            loop->control->run(loop->control);
        run_prepares(loop);
    } while (loop->control && loop->control->due);
}

/* The oldest completion that was not handled yet; false if there is none. */
static bool next_completion(struct loop *loop, struct io_uring_cqe *ret_cqe)
{
    struct io_uring_cq *cq = &loop->ring.cq;
    if (loop->early_taken < loop->early_count) {
        *ret_cqe = loop->early[loop->early_taken++];
        return true;
    }
    loop->early_count = loop->early_taken = 0;
    unsigned head = *cq->khead;
    if (head == io_uring_smp_load_acquire(cq->ktail))
        return false;
    const struct io_uring_cqe *cqe = &cq->cqes[head & cq->ring_mask];
    *ret_cqe = (struct io_uring_cqe){.user_data = cqe->user_data, .res = cqe->res, .flags = cqe->flags};
    io_uring_smp_store_release(cq->khead, head + 1);
    return true;
}

static void handle_completions(struct loop *loop)
{
    struct io_uring_cqe cqe;
    while (!loop->stopped && next_completion(loop, &cqe)) {
        struct loop_op *op = op_of_user_data(cqe.user_data);
        bool more = cqe.flags & IORING_CQE_F_MORE;
        if (!op)
            continue;
        loop->counts.completions++;
        op->in_flight = more;
        op->done(op, cqe.res, more ? LOOP_MORE : 0);
    }
}

void loop_stop(struct loop *loop, int value)
{
    loop->stopped = true;
    loop->stop_value = value;
}

struct loop_counts loop_counts(const struct loop *loop)
{
    return loop->counts;
}

int loop_run(struct loop *loop)
{
    int r = 0;
    CHECK(!loop->running);
    loop->running = true;
    while (!loop->stopped && r == 0) {
        prepare_to_wait(loop);
        loop->counts.turns++;
        if (!loop->stopped)
            r = submit_and_wait(loop);
        if (r == 0)
            handle_completions(loop);
    }
    loop->running = false;
    loop->stopped = false;
    return r < 0 ? r : loop->stop_value;
}
