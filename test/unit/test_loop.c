/* The loop: ops of each kind, cancellation, timers, libev from the ring, and a queue fuller than the ring. */
#include "loop/internal.h"

#include <criterion/criterion.h>
#include <ev.h>
#include <fcntl.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
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
    enum { OPS = 2000 }; /* and than it has places for completions */
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

/* ---- Prepares ---- */

struct hook {
    struct loop_prepare prepare;
    struct loop *loop;
    struct hook *remove, *add;
    unsigned runs, order;
};
static unsigned hooks_run;

static void hook_run(struct loop_prepare *prepare)
{
    struct hook *hook = container_of(prepare, struct hook, prepare);
    hook->runs++;
    hook->order = ++hooks_run;
    if (hook->remove)
        loop_prepare_remove(hook->loop, &hook->remove->prepare);
    if (hook->add)
        loop_prepare_add(hook->loop, &hook->add->prepare);
    hook->add = NULL;
}

static void one_turn(struct loop *loop)
{
    struct timer_probe probe = {.timer.op.done = timer_done, .loop = loop};
    loop_timer_start(loop, &probe.timer, 1000);
    loop_run(loop);
}

Test(loop, a_prepare_may_add_and_remove_prepares)
{
    struct loop *loop = make();
    struct hook hooks[5];
    for (unsigned i = 0; i < 5; i++) {
        hooks[i] = (struct hook){.prepare.run = hook_run, .loop = loop};
        if (i < 4)
            loop_prepare_add(loop, &hooks[i].prepare);
    }
    hooks[0].remove = &hooks[0]; /* itself */
    hooks[1].remove = &hooks[2]; /* the next */
    hooks[3].remove = &hooks[1]; /* one before, and it is the last itself */
    hooks[3].add = &hooks[4];
    one_turn(loop);
    cr_assert(hooks[0].runs == 1 && hooks[1].runs == 1 && hooks[3].runs == 1, "those that stood there ran");
    cr_assert_eq(hooks[2].runs, 0, "one that was removed before its turn did not");
    cr_assert(hooks[4].runs == 1 && hooks[4].order == 4, "one that was added ran in the same turn, last");
    one_turn(loop);
    cr_assert(hooks[0].runs == 1 && hooks[1].runs == 1, "those removed ran no more");
    cr_assert(hooks[3].runs == 2 && hooks[4].runs == 2, "the others did");
    loop_prepare_remove(loop, &hooks[4].prepare);
    loop_prepare_remove(loop, &hooks[4].prepare); /* twice does nothing */
    loop_prepare_add(loop, &hooks[0].prepare);
    one_turn(loop);
    cr_assert(hooks[4].runs == 2 && hooks[0].runs == 2, "the end of the list is right after a removal");
    loop_free(loop);
}

/* ---- Stopping ---- */

Test(loop, a_stop_before_it_runs_is_kept)
{
    struct loop *loop = make();
    loop_stop(loop, 5);
    cr_assert_eq(loop_run(loop), 5, "ends at once");
    one_turn(loop); /* and only that run */
    loop_free(loop);
}

static void run_again(struct loop_op *op, int result, unsigned flags)
{
    struct probe *probe = container_of(op, struct probe, op);
    (void)result, (void)flags;
    loop_run(probe->loop);
}

Test(loop, is_not_run_from_inside_itself, .signal = SIGABRT)
{
    struct probe probe = probe_for(make(), 1);
    probe.op.done = run_again;
    loop_poll(probe.loop, &probe.op, -1, POLLIN);
    loop_run(probe.loop);
}

/* ---- Sockets ---- */

static int result_of(struct probe *probe)
{
    probe->count = 0;
    loop_run(probe->loop);
    return probe->result;
}

static struct sockaddr_un socket_at(const char *folder)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", folder);
    return address;
}

Test(loop, accepts_connects_sends_and_receives)
{
    char folder[] = "/tmp/loop-XXXXXX";
    cr_assert_not_null(mkdtemp(folder), "a folder");
    struct loop *loop = make();
    const struct sockaddr_un address = socket_at(folder);
    const struct sockaddr *at = (const struct sockaddr *)&address;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(bind(listener, at, sizeof(address)) == 0 && listen(listener, 1) == 0, "a listener");

    struct probe accepting = probe_for(loop, 1), probe = probe_for(loop, 1);
    loop_accept(loop, &accepting.op, listener);
    loop_connect(loop, &probe.op, client, at, sizeof(address));
    while (accepting.op.in_flight || probe.op.in_flight)
        loop_run(loop);
    cr_assert_eq(probe.result, 0, "connected");
    int server = accepting.result;
    cr_assert_geq(server, 0, "accepted");
    cr_assert_eq(fcntl(server, F_GETFD), FD_CLOEXEC, "not for programs that are started");

    char in[16] = "";
    loop_send(loop, &probe.op, client, "stardust", 8);
    cr_assert_eq(result_of(&probe), 8, "sent");
    loop_recv(loop, &probe.op, server, in, sizeof(in));
    cr_assert_eq(result_of(&probe), 8, "received");
    cr_assert_arr_eq(in, "stardust", 8, "the same bytes");

    char words[] = "vmm";
    struct iovec parts[2] = {{"volt-", 5}, {words, 3}}, whole = {in, sizeof(in)};
    struct msghdr out_message = {.msg_iov = parts, .msg_iovlen = 2};
    struct msghdr in_message = {.msg_iov = &whole, .msg_iovlen = 1};
    loop_sendmsg(loop, &probe.op, server, &out_message);
    cr_assert_eq(result_of(&probe), 8, "sent in parts");
    loop_recvmsg(loop, &probe.op, client, &in_message);
    cr_assert_eq(result_of(&probe), 8, "received");
    cr_assert_arr_eq(in, "volt-vmm", 8, "the same bytes");

    close(server);
    loop_send(loop, &probe.op, client, "x", 1);
    cr_assert_eq(result_of(&probe), -EPIPE, "a peer that is gone is an error, and no signal");
    loop_sendmsg(loop, &probe.op, client, &out_message);
    cr_assert_eq(result_of(&probe), -EPIPE, "for messages, too");
    close(client);
    close(listener);
    unlink(address.sun_path);
    rmdir(folder);
    loop_free(loop);
}

/* ---- Restrictions, old kernels, children ---- */

Test(loop, restricted_it_takes_its_own_ops_alone)
{
    struct loop *loop = make();
    struct probe probe = probe_for(loop, 1);
    cr_assert_eq(loop_restrict(loop), 0, "loop_restrict: %s", fail_text());

    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_openat(sqe, AT_FDCWD, "/", O_RDONLY, 0);
    probe.op.in_flight = true;
    io_uring_sqe_set_data64(sqe, user_data_of_op(&probe.op));
    cr_assert_eq(result_of(&probe), -EACCES, "to open a file is not among them");
    cr_assert_eq(io_uring_register_eventfd(&loop->ring, 0), -EACCES, "nor is a registration");

    /* Each op reaches its own system call, which has its own opinion of the descriptor. */
    struct msghdr message = {0};
    struct iovec part = {&message, 1};
    loop_read(loop, &probe.op, -1, NULL, 0, 0);
    cr_assert_eq(result_of(&probe), -EBADF, "read");
    loop_write(loop, &probe.op, -1, NULL, 0, 0);
    cr_assert_eq(result_of(&probe), -EBADF, "write");
    loop_readv(loop, &probe.op, -1, &part, 1, 0);
    cr_assert_eq(result_of(&probe), -EBADF, "readv");
    loop_writev(loop, &probe.op, -1, &part, 1, 0);
    cr_assert_eq(result_of(&probe), -EBADF, "writev");
    loop_fdatasync(loop, &probe.op, -1);
    cr_assert_eq(result_of(&probe), -EBADF, "fdatasync");
    loop_fallocate(loop, &probe.op, -1, 0, 0, 1);
    cr_assert_eq(result_of(&probe), -EBADF, "fallocate");
    loop_accept(loop, &probe.op, -1);
    cr_assert_eq(result_of(&probe), -EBADF, "accept");
    loop_connect(loop, &probe.op, -1, (const struct sockaddr *)&message, sizeof(struct sockaddr));
    cr_assert_eq(result_of(&probe), -EBADF, "connect");
    loop_recv(loop, &probe.op, -1, NULL, 0);
    cr_assert_eq(result_of(&probe), -EBADF, "recv");
    loop_send(loop, &probe.op, -1, NULL, 0);
    cr_assert_eq(result_of(&probe), -EBADF, "send");
    loop_recvmsg(loop, &probe.op, -1, &message);
    cr_assert_eq(result_of(&probe), -EBADF, "recvmsg");
    loop_sendmsg(loop, &probe.op, -1, &message);
    cr_assert_eq(result_of(&probe), -EBADF, "sendmsg");
    loop_poll(loop, &probe.op, -1, POLLIN);
    cr_assert_eq(result_of(&probe), -EBADF, "poll");
    loop_watch(loop, &probe.op, -1, POLLIN);
    cr_assert_eq(result_of(&probe), -EBADF, "watch");
    struct timer_probe timer = {.timer.op.done = timer_done, .loop = loop};
    loop_timer_start(loop, &timer.timer, 1000 * GIB);
    loop_cancel(loop, &timer.timer.op);
    loop_run(loop);
    cr_assert_eq(timer.result, -ECANCELED, "timer and cancel");
    loop_free(loop);
}

Test(loop, without_multishot_polls_a_watch_is_started_again)
{
    struct loop *loop = make();
    int fd = eventfd(0, EFD_CLOEXEC);
    uint64_t count = 1;
    struct probe probe = probe_for(loop, 1);
    loop->polls_multishot = false;
    for (unsigned i = 0; i < 3; i++) {
        loop_watch(loop, &probe.op, fd, POLLIN);
        cr_assert_eq(write(fd, &count, sizeof(count)), (ssize_t)sizeof(count), "kick %u", i);
        cr_assert_eq(result_of(&probe), POLLIN, "kick %u is seen", i);
        cr_assert(probe.flags == 0 && !probe.op.in_flight, "and is the watch's last");
        cr_assert_eq(read(fd, &count, sizeof(count)), (ssize_t)sizeof(count), "drained");
    }
    close(fd);
    loop_free(loop);
}

static int status_of(pid_t child)
{
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

Test(loop, a_child_cannot_disturb_the_parents_ring)
{
    struct loop *loop = make();
    int fd = eventfd(0, EFD_CLOEXEC);
    uint64_t one = 1;
    struct probe probe = probe_for(loop, 1), other = probe_for(loop, 1);
    loop_watch(loop, &probe.op, fd, POLLIN);
    one_turn(loop);

    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        loop_poll(loop, &other.op, fd, POLLIN);
        _exit(0);
    }
    int status = status_of(child);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "one that tries dies: status 0x%x", status);

    child = fork();
    if (child == 0) {
        loop_abandon(loop);
        loop = make();
        struct probe own = probe_for(loop, 1);
        loop_poll(loop, &own.op, fd, POLLOUT);
        bool works = loop_run(loop) == 7 && own.result == POLLOUT;
        loop_free(loop);
        _exit(works ? 0 : 1);
    }
    cr_assert_eq(status_of(child), 0, "one that abandons it has a loop of its own");
    cr_assert_eq(write(fd, &one, sizeof(one)), (ssize_t)sizeof(one), "a kick");
    cr_assert_eq(result_of(&probe), POLLIN, "the parent's ring goes on");
    close(fd);
    loop_free(loop);
}

/* ---- libev ---- */

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

struct control_scene {
    ev_io readable;
    struct loop *loop;
    struct hook hook, doomed;
    unsigned hook_runs_before;
};

static void handle_control(struct ev_loop *ev, ev_io *watcher, int events)
{
    struct control_scene *scene = watcher->data;
    (void)events;
    ev_io_stop(ev, watcher);
    scene->hook_runs_before = scene->hook.runs;
    loop_prepare_remove(scene->loop, &scene->doomed.prepare);
    memset(&scene->doomed, 0xff, sizeof(scene->doomed)); /* its memory is gone */
    loop_stop(scene->loop, 3);
}

Test(loop, prepares_run_after_control_work_which_may_remove_them)
{
    static struct control_scene scene;
    struct loop *loop = scene.loop = make();
    struct ev_loop *ev = NULL;
    scene.hook = (struct hook){.prepare.run = hook_run, .loop = loop};
    scene.doomed = (struct hook){.prepare.run = hook_run, .loop = loop};
    loop_prepare_add(loop, &scene.doomed.prepare);
    loop_prepare_add(loop, &scene.hook.prepare);
    cr_assert_eq(loop_libev(loop, &ev), 0, "loop_libev: %s", fail_text());
    int ends[2];
    cr_assert_eq(pipe(ends), 0, "pipe");
    ev_io_init(&scene.readable, handle_control, ends[0], EV_READ);
    scene.readable.data = &scene;
    ev_io_start(ev, &scene.readable);
    one_turn(loop);
    cr_assert_eq(write(ends[1], "x", 1), 1, "one byte");
    cr_assert_eq(loop_run(loop), 3, "the handler ran");
    cr_assert_eq(scene.hook.runs, scene.hook_runs_before + 1, "a prepare in the same turn, after it");
    close(ends[0]);
    close(ends[1]);
    loop_free(loop);
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
