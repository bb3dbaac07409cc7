/*
 * libev inside the ring: its epoll descriptor is one watched op, and it is run without waiting when that is
 * ready. The ring stays the one place that blocks; a ring with deferred task work cannot be slept on from
 * outside.
 *
 * libev does not tell when its next timer is due, so its timers are off limits: loop_timer is there for that.
 */
#include "loop/internal.h"

#include <ev.h>
#include <poll.h>

struct loop_libev {
    struct loop_control control; /* due: watchers may have been started that epoll has not heard of */
    struct loop *loop;
    struct ev_loop *ev;
    int epoll_fd; /* libev's own; lent */
    struct loop_op ready;
};

/* One shot at a time: each looks first whether there is something. A multishot poll of an epoll descriptor
 * was seen to stop telling (Linux 6.18) while that had events, after a fork(2) of the process. */
static void watch_backend(struct loop_libev *libev)
{
    loop_poll(libev->loop, &libev->ready, libev->epoll_fd, POLLIN);
}

/* libev's way to run callbacks, asked for only to know that there were some. */
static void note_and_invoke(struct ev_loop *ev)
{
    struct loop_libev *libev = ev_userdata(ev);
    if (ev_pending_count(ev) > 0)
        libev->control.due = true;
    ev_invoke_pending(ev);
}

static void backend_ready(struct loop_op *op, int result, unsigned flags)
{
    struct loop_libev *libev = container_of(op, struct loop_libev, ready);
    if (result == -ECANCELED)
        return;
    (void)flags;
    libev->control.due = true;
    watch_backend(libev);
}

/* libev tells epoll of new watchers only when it runs, and runs callbacks, which may start more, after that.
 * So it runs until it had nothing to do; a turn of the loop that does not concern it costs nothing. */
static void run_libev(struct loop_control *control)
{
    struct loop_libev *libev = container_of(control, struct loop_libev, control);
    while (control->due) {
        control->due = false;
        ev_run(libev->ev, EVRUN_NOWAIT);
    }
}

static void nothing(struct ev_loop *ev, ev_embed *watcher, int events)
{
    (void)ev, (void)watcher, (void)events;
}

/* libev's epoll descriptor, which its API does not give out. A loop that embeds another watches it. */
static int find_backend(struct loop_libev *libev)
{
    struct ev_loop *outer = ev_loop_new(EVBACKEND_SELECT | EVFLAG_NOENV);
    if (!outer)
        return fail(-ENOMEM, "no memory for libev");
    ev_embed probe;
    ev_embed_init(&probe, nothing, libev->ev);
    ev_embed_start(outer, &probe);
    libev->epoll_fd = probe.io.fd;
    ev_embed_stop(outer, &probe);
    ev_loop_destroy(outer);
    return 0;
}

static void libev_free(struct loop_control *control)
{
    struct loop_libev *libev = container_of(control, struct loop_libev, control);
    if (libev->ev)
        ev_loop_destroy(libev->ev);
    free(libev);
}

static int libev_new(struct loop *loop)
{
    struct loop_libev *libev = calloc(1, sizeof(*libev));
    if (!libev)
        return fail(-ENOMEM, "no memory for libev");
    *libev = (struct loop_libev){
        .control = {.run = run_libev, .free = libev_free}, .loop = loop, .ready.done = backend_ready};
    /* Its own io_uring backend is not used: its author calls it too buggy for general use. Signals come by
     * signalfd: libev's own pipe is written only while it waits itself, which it never does here. */
    libev->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV | EVFLAG_NOTIMERFD | EVFLAG_SIGNALFD);
    int r = libev->ev ? find_backend(libev) : fail(-ENOMEM, "libev has no epoll here");
    if (r < 0) {
        libev_free(&libev->control);
        return r;
    }
    ev_set_userdata(libev->ev, libev);
    ev_set_invoke_pending_cb(libev->ev, note_and_invoke);
    watch_backend(libev);
    loop->control = &libev->control;
    return 0;
}

int loop_libev(struct loop *loop, struct ev_loop **ret_ev)
{
    int r = loop->control ? 0 : libev_new(loop);
    if (r < 0)
        return r;
    loop->control->due = true; /* whoever asks for it means to start a watcher */
    *ret_ev = container_of(loop->control, struct loop_libev, control)->ev;
    return 0;
}
