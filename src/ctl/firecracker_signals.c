/* Signals and exit statuses under the name `firecracker`. */
#include "ctl/firecracker.h"

#include "loop/loop.h"
#include "machine.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>

static const struct {
    int number, status;
} statuses[] = {
    {SIGSYS, FIRECRACKER_BAD_SYSCALL},
    {SIGBUS, 149},
    {SIGSEGV, 150},
    {SIGXFSZ, 151},
    {SIGXCPU, 154},
    {SIGPIPE, 155},
    {SIGHUP, 156},
    {SIGILL, 157},
};

static int status_of_signal(int number)
{
    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
        if (statuses[i].number == number)
            return statuses[i].status;
    return 0;
}

int firecracker_status(int status)
{
    if (status > MACHINE_SIGNAL) {
        int own = status_of_signal(status - MACHINE_SIGNAL);
        return own ? own : status;
    }
    /* A panic and a crash are the guest's own affair there. */
    if (status == MACHINE_PANICKED)
        return 0;
    return status == MACHINE_CRASHED || status == MACHINE_HOST_FAILED ? FIRECRACKER_GENERIC_ERROR : status;
}

void firecracker_die(int status)
{
    int number = status - MACHINE_SIGNAL;
    if (number != SIGTERM && number != SIGINT)
        return;
    signal(number, SIG_DFL);
    raise(number);
}

static struct {
    int pipe[2];
    struct loop_op op;
    struct loop *loop;
    unsigned char number;
    void (*sent)(void *context, int number);
    void *context;
} watch = {.pipe = {-1, -1}};

/* Adds `text` to a line of at most 99 bytes; for where printf() is not allowed. */
static void add(char line[100], const char *text)
{
    size_t length = strlen(line);
    while (*text && length < 99)
        line[length++] = *text++;
    line[length] = '\0';
}

static void add_number(char line[100], int number)
{
    char digits[] = {(char)('0' + number / 10 % 10), (char)('0' + number % 10), '\0'};
    add(line, number < 10 ? digits + 1 : digits);
}

/* Any thread, at any instruction: only what a handler may do. */
static void caught(int number, siginfo_t *info, void *context)
{
    (void)context;
    int error = errno;
    if (info->si_code > 0 && info->si_code != SI_KERNEL) { /* a fault of this program, which cannot go on */
        char line[100] = "Shutting down VM after intercepting signal ";
        add_number(line, number);
        add(line, ", code ");
        add_number(line, info->si_code);
        add(line, ".\n");
        ssize_t written = write(STDOUT_FILENO, line, strlen(line));
        (void)written;
        _exit(status_of_signal(number));
    }
    unsigned char byte = (unsigned char)number;
    ssize_t written = write(watch.pipe[1], &byte, 1);
    (void)written; /* a full pipe: there are signals enough to tell of */
    errno = error;
}

static void told(struct loop_op *op, int result, unsigned flags)
{
    (void)flags;
    if (result != 1)
        return;
    watch.sent(watch.context, watch.number);
    loop_read(watch.loop, op, watch.pipe[0], &watch.number, 1, (uint64_t)-1);
}

int firecracker_watch_signals(struct loop *loop, void (*sent)(void *context, int number), void *context)
{
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_RESTART};
    if (pipe2(watch.pipe, O_CLOEXEC) < 0)
        return fail_errno(-errno, "a pipe for signals");
    /* The end that a handler writes to never blocks; the loop waits at the other. */
    if (fcntl(watch.pipe[1], F_SETFL, O_NONBLOCK) < 0)
        return fail_errno(-errno, "a pipe for signals");
    watch.loop = loop;
    watch.sent = sent;
    watch.context = context;
    watch.op.done = told;
    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) /* the machine watches SIGHUP itself */
        if (statuses[i].number != SIGHUP && sigaction(statuses[i].number, &action, NULL) < 0)
            return fail_errno(-errno, "sigaction");
    loop_read(loop, &watch.op, watch.pipe[0], &watch.number, 1, (uint64_t)-1);
    return 0;
}
