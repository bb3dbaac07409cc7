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
#include <sys/epoll.h>
#include <sys/eventfd.h>

struct loop_libev {
    struct loop *loop;
    struct ev_loop *ev;
    int epoll_fd; /* libev's own; lent */
    struct loop_op ready;
    struct loop_prepare prepare;
    bool stale; /* watchers may have been started that epoll has not heard of */
};

static void watch_backend(struct loop_libev *libev)
{
    loop_watch(libev->loop, &libev->ready, libev->epoll_fd, POLLIN);
}

/* libev's way to run callbacks, asked for only to know that there were some. */
static void note_and_invoke(struct ev_loop *ev)
{
    struct loop_libev *libev = ev_userdata(ev);
    if (ev_pending_count(ev) > 0)
        libev->stale = true;
    ev_invoke_pending(ev);
}

static void backend_ready(struct loop_op *op, int result, unsigned flags)
{
    struct loop_libev *libev = container_of(op, struct loop_libev, ready);
    if (result == -ECANCELED)
        return;
    libev->stale = true;
    if (!(flags & LOOP_MORE))
        watch_backend(libev);
}

/* libev tells epoll of new watchers only when it runs, and runs callbacks, which may start more, after that.
 * So it runs until it had nothing to do; a turn of the loop that does not concern it costs nothing. */
static void run_libev(struct loop_prepare *prepare)
{
    struct loop_libev *libev = container_of(prepare, struct loop_libev, prepare);
    while (libev->stale) {
        libev->stale = false;
        ev_run(libev->ev, EVRUN_NOWAIT);
    }
}

/*
 * Makes libev's loop and finds its epoll descriptor, which its API does not give out: it is the first one
 * that ev_loop_new() opens, so it has the lowest free number. No other thread may open descriptors meanwhile
 * (start-up, loop thread).
 */
static int make_ev(struct loop_libev *libev)
{
    int lowest = eventfd(0, EFD_CLOEXEC);
    if (lowest < 0)
        return fail_errno(-errno, "eventfd");
    close(lowest);
    /* Its own io_uring backend is not used: its author calls it too buggy for general use. */
    /* Signals come by signalfd: libev's own pipe is written only while it waits itself, which it never does
     * here. */
    libev->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV | EVFLAG_NOTIMERFD | EVFLAG_SIGNALFD);
    if (!libev->ev)
        return fail(-ENOMEM, "libev has no epoll here");
    /* Only an epoll descriptor answers with ENOENT for a descriptor that is not in it. */
    libev->epoll_fd = lowest;
    CLEANUP_FD int stranger = eventfd(0, EFD_CLOEXEC);
    if (epoll_ctl(lowest, EPOLL_CTL_DEL, stranger, NULL) == 0 || errno != ENOENT) {
        ev_loop_destroy(libev->ev);
        return fail(-ENOTSUP,
                    "libev did not open its epoll descriptor first (is this libev older than 4.33?)");
    }
    return 0;
}

int loop_libev_new(struct loop *loop, struct loop_libev **ret_libev)
{
    struct loop_libev *libev = calloc(1, sizeof(*libev));
    if (!libev)
        return fail(-ENOMEM, "no memory for libev");
    libev->loop = loop;
    int r = make_ev(libev);
    if (r < 0) {
        free(libev);
        return r;
    }
    ev_set_userdata(libev->ev, libev);
    ev_set_invoke_pending_cb(libev->ev, note_and_invoke);
    libev->ready.done = backend_ready;
    libev->prepare.run = run_libev;
    watch_backend(libev);
    loop_prepare_add(loop, &libev->prepare);
    *ret_libev = libev;
    return 0;
}

struct ev_loop *loop_libev_ev(struct loop_libev *libev)
{
    libev->stale = true; /* whoever asks for it means to start a watcher */
    return libev->ev;
}

void loop_libev_free(struct loop_libev *libev)
{
    if (!libev)
        return;
    ev_loop_destroy(libev->ev);
    free(libev);
}
