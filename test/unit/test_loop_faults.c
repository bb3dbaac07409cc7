/* The loop on a ring that refuses: old kernels, and EBUSY and EAGAIN of io_uring_enter. The functions of
 * liburing that are here stand before the library's own. */
#include "loop/internal.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <string.h>
#include <sys/mman.h>

TestSuite(loop_faults, .timeout = 20);

static unsigned flags_unknown; /* to this "kernel" */
static unsigned set_ups;
static unsigned refusals; /* of io_uring_enter, still to come */
static int refusal;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
    set_ups++;
    if (params->flags & flags_unknown)
        return -EINVAL;
    return REAL(io_uring_queue_init_params)(entries, ring, params);
}

static bool refuses(void)
{
    if (refusals == 0)
        return false;
    refusals--;
    return true;
}

int io_uring_submit(struct io_uring *ring)
{
    return refuses() ? refusal : REAL(io_uring_submit)(ring);
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned count)
{
    return refuses() ? refusal : REAL(io_uring_submit_and_wait)(ring, count);
}

enum { OPS = 300 };

struct scene {
    struct loop *loop;
    struct loop_op ops[OPS];
    char bytes[OPS];
    unsigned done;
    bool starting;
};
static struct scene scene;

static void read_done(struct loop_op *op, int result, unsigned flags)
{
    (void)op, (void)flags;
    cr_assert_eq(result, 1, "a byte");
    cr_assert_not(scene.starting, "no done() runs while an op is started");
    if (++scene.done == OPS)
        loop_stop(scene.loop, 0);
}

/* Many reads through a ring of eight. Every `every`th start finds a kernel that refuses a few times. */
static void read_all(unsigned every)
{
    int fd = memfd_create("file", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(fd, OPS), 0, "a file");
    scene = (struct scene){0};
    cr_assert_eq(loop_new(8, &scene.loop), 0, "loop_new: %s", fail_text());
    for (unsigned i = 0; i < OPS; i++) {
        scene.ops[i].done = read_done;
        if (every && i % every == 0)
            refusals = 3;
        scene.starting = true;
        loop_read(scene.loop, &scene.ops[i], fd, &scene.bytes[i], 1, i);
        scene.starting = false;
    }
    if (every)
        refusals = 3;
    cr_assert_eq(loop_run(scene.loop), 0, "loop_run: %s", fail_text());
    cr_assert_eq(scene.done, OPS, "each completed once");
    close(fd);
    loop_free(scene.loop);
}

Test(loop_faults, a_kernel_that_wants_completions_taken_first)
{
    refusal = -EBUSY;
    read_all(20);
}

Test(loop_faults, a_kernel_that_has_no_memory_for_a_while)
{
    refusal = -EAGAIN;
    read_all(50);
}

Test(loop_faults, a_signal_during_a_wait)
{
    refusal = -EINTR;
    read_all(20);
}

Test(loop_faults, any_other_error_ends_the_run_with_words)
{
    scene = (struct scene){0};
    cr_assert_eq(loop_new(8, &scene.loop), 0, "loop_new: %s", fail_text());
    refusal = -EBADF;
    refusals = 1;
    cr_assert_eq(loop_run(scene.loop), -EBADF, "the error");
    cr_assert_not_null(strstr(fail_text(), "io_uring_enter"), "words: '%s'", fail_text());
    loop_free(scene.loop);
}

Test(loop_faults, a_kernel_without_deferred_task_work)
{
    flags_unknown = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN; /* 6.0, 6.1 */
    read_all(0);
    cr_assert_eq(set_ups, 2, "the second attempt is taken");
}

Test(loop_faults, a_kernel_of_5_10)
{
    flags_unknown = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN;
    read_all(0);
    cr_assert_eq(set_ups, 3, "the last attempt is taken");
}
