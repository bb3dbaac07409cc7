/* The loop: ops of each kind, cancellation, timers, libev from the ring, and a queue fuller than the ring. */
#include "loop/loop.h"

#include <criterion/criterion.h>
#include <ev.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

TestSuite(loop, .timeout = 20);

struct probe {
    struct loop_op op;
    struct loop *loop;
    int result;
    unsigned flags, count, stop_after;
};

static void probe_done(struct loop_op *op, int result, unsigned flags)
{
    struct probe *probe = container_of(op, struct probe, op);
    probe->result = result;
    probe->flags = flags;
    if (++probe->count == probe->stop_after)
        loop_stop(probe->loop, 7);
}

static struct probe probe_for(struct loop *loop, unsigned stop_after)
{
    return (struct probe){.op.done = probe_done, .loop = loop, .stop_after = stop_after};
}

static struct loop *make(void)
{
    struct loop *loop = NULL;
    int r = loop_new(8, &loop);
    cr_assert_eq(r, 0, "loop_new: %s", fail_text());
    return loop;
}

Test(loop, reads_and_writes_a_file)
{
    struct loop *loop = make();
    int fd = memfd_create("file", MFD_CLOEXEC);
    char out[] = "stardust", in[sizeof(out)] = "";
    struct probe probe = probe_for(loop, 1);
    loop_write(loop, &probe.op, fd, out, sizeof(out), 4096);
    cr_assert(probe.op.in_flight, "an op is in flight from its start");
    cr_assert_eq(loop_run(loop), 7, "the value given to loop_stop()");
    cr_assert_eq(probe.result, (int)sizeof(out), "all bytes written");
    cr_assert_not(probe.op.in_flight, "and over after its completion");

    probe.count = 0;
    struct iovec parts[2] = {{in, 4}, {in + 4, sizeof(in) - 4}};
    loop_readv(loop, &probe.op, fd, parts, 2, 4096);
    loop_run(loop);
    cr_assert_eq(probe.result, (int)sizeof(out), "all bytes read");
    cr_assert_str_eq(in, out, "the same bytes");

    probe.count = 0;
    loop_fdatasync(loop, &probe.op, fd);
    loop_run(loop);
    cr_assert_eq(probe.result, 0, "fdatasync");
    close(fd);
    loop_free(loop);
}

Test(loop, errors_come_as_results)
{
    struct loop *loop = make();
    struct probe probe = probe_for(loop, 1);
    char byte;
    loop_read(loop, &probe.op, -1, &byte, 1, 0);
    loop_run(loop);
    cr_assert_eq(probe.result, -EBADF, "a descriptor that is none");
    loop_free(loop);
}

Test(loop, more_ops_than_the_ring_has_entries)
{
    enum { OPS = 100 };
    struct loop *loop = make();
    int fd = memfd_create("file", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(fd, OPS), 0, "file of %d bytes", OPS);
    struct probe *probes = calloc(OPS, sizeof(*probes));
    struct probe *last = &probes[OPS - 1];
    char bytes[OPS];
    unsigned total = 0;
    for (unsigned i = 0; i < OPS; i++) {
        probes[i] = probe_for(loop, 1);
        loop_read(loop, &probes[i].op, fd, bytes + i, 1, i);
    }
    while (last->op.in_flight)
        loop_run(loop);
    for (unsigned i = 0; i < OPS; i++)
        while (probes[i].op.in_flight)
            loop_run(loop);
    for (unsigned i = 0; i < OPS; i++)
        total += probes[i].count;
    cr_assert_eq(total, OPS, "each completed once");
    free(probes);
    close(fd);
    loop_free(loop);
}

Test(loop, a_watch_reports_every_wake_up_without_draining)
{
    struct loop *loop = make();
    int fd = eventfd(0, EFD_CLOEXEC);
    uint64_t one = 1;
    struct probe probe = probe_for(loop, 1);
    loop_watch(loop, &probe.op, fd, POLLIN);
    for (unsigned i = 0; i < 3; i++) {
        probe.count = 0;
        cr_assert_eq(write(fd, &one, sizeof(one)), (ssize_t)sizeof(one), "kick %u", i);
        loop_run(loop);
        cr_assert_eq(probe.result & POLLIN, POLLIN, "kick %u is seen", i);
        if (!(probe.flags & LOOP_MORE))
            cr_skip_test("this kernel has no multishot poll");
    }
    loop_cancel(loop, &probe.op);
    probe.count = 0;
    loop_run(loop);
    cr_assert_eq(probe.result, -ECANCELED, "the watch's own end");
    cr_assert_not(probe.op.in_flight, "and then it is over");
    close(fd);
    loop_free(loop);
}

Test(loop, cancel_ends_a_read_that_would_wait_for_ever)
{
    struct loop *loop = make();
    int ends[2];
    cr_assert_eq(pipe(ends), 0, "pipe");
    struct probe probe = probe_for(loop, 1);
    char byte;
    loop_read(loop, &probe.op, ends[0], &byte, 1, UINT64_MAX);
    loop_cancel(loop, &probe.op);
    loop_run(loop);
    cr_assert(probe.result == -ECANCELED || probe.result == -EINTR, "cancelled, not %d", probe.result);
    loop_cancel(loop, &probe.op); /* nothing in flight: nothing happens */
    close(ends[0]);
    close(ends[1]);
    loop_free(loop);
}

struct timer_probe {
    struct loop_timer timer;
    struct loop *loop;
    int result;
};

static void timer_done(struct loop_op *op, int result, unsigned flags)
{
    struct timer_probe *probe = container_of(op, struct timer_probe, timer.op);
    (void)flags;
    probe->result = result;
    loop_stop(probe->loop, 0);
}

Test(loop, a_timer_comes_after_its_time)
{
    struct loop *loop = make();
    struct timer_probe probe = {.timer.op.done = timer_done, .loop = loop};
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    loop_timer_start(loop, &probe.timer, 20 * 1000 * 1000);
    loop_run(loop);
    clock_gettime(CLOCK_MONOTONIC, &after);
    int64_t elapsed = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    cr_assert_eq(probe.result, -ETIME, "a timer's result");
    cr_assert_geq(elapsed, 20 * 1000 * 1000, "not before its time: %lld ns", (long long)elapsed);
    loop_free(loop);
}

static void on_readable(struct ev_loop *ev, ev_io *watcher, int events)
{
    (void)ev, (void)events;
    char byte;
    cr_expect_eq(read(watcher->fd, &byte, 1), 1, "libev says readable");
    loop_stop(watcher->data, 11);
}

static void on_signal(struct ev_loop *ev, ev_signal *watcher, int events)
{
    (void)ev, (void)events;
    loop_stop(watcher->data, 12);
}

Test(loop, libev_runs_from_the_ring)
{
    struct loop *loop = make();
    struct ev_loop *ev = NULL;
    cr_assert_eq(loop_libev(loop, &ev), 0, "loop_libev: %s", fail_text());
    int ends[2];
    cr_assert_eq(pipe(ends), 0, "pipe");
    ev_io readable;
    ev_io_init(&readable, on_readable, ends[0], EV_READ);
    readable.data = loop;
    ev_io_start(ev, &readable);
    cr_assert_eq(write(ends[1], "x", 1), 1, "one byte");
    cr_assert_eq(loop_run(loop), 11, "a descriptor's watcher ran");

    ev_signal signalled;
    ev_signal_init(&signalled, on_signal, SIGUSR1);
    signalled.data = loop;
    cr_assert_eq(loop_libev(loop, &ev), 0, "asked for again");
    ev_signal_start(ev, &signalled);
    kill(getpid(), SIGUSR1);
    cr_assert_eq(loop_run(loop), 12, "a signal's watcher ran");
    loop_free(loop);
    close(ends[0]);
    close(ends[1]);
}

/* What loop_new() says when the kernel answers io_uring_setup with `error`; in a child, since a filter
 * stays. */
static void words_when_refused(int error, char *message, size_t size)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0, "pipe");
    pid_t child = fork();
    cr_assert_geq(child, 0, "fork");
    if (child == 0) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
        struct loop *loop = NULL;
        bool filtered =
            seccomp_rule_add(filter, SCMP_ACT_ERRNO((unsigned)error), SCMP_SYS(io_uring_setup), 0) == 0 &&
            seccomp_load(filter) == 0;
        int r = filtered ? loop_new(8, &loop) : 0;
        (void)write_full(ends[1], fail_text(), strlen(fail_text()));
        _exit(r == -error ? 0 : 1);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], message, size - 1);
    message[n > 0 ? n : 0] = '\0';
    close(ends[0]);
    int status = 1;
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0, "loop_new() fails with the kernel's errno: '%s'", message);
}

Test(loop, a_host_that_forbids_io_uring_is_told_what_to_change)
{
    char message[512];
    words_when_refused(EPERM, message, sizeof(message));
    cr_assert_not_null(strstr(message, "forbidden"), "EPERM: '%s'", message);
    cr_assert(strstr(message, "kernel.io_uring_disabled") || strstr(message, "seccomp"),
              "and the remedy: '%s'", message);
    words_when_refused(ENOSYS, message, sizeof(message));
    cr_assert_not_null(strstr(message, "no io_uring"), "ENOSYS: '%s'", message);
    words_when_refused(ENOMEM, message, sizeof(message));
    cr_assert_not_null(strstr(message, "ulimit -l"), "ENOMEM: '%s'", message);
}
