/* A command of the agent's: its streams, its user, its start. */
#include "agent.h"
#include "init.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

/* ---- In the child ---- */

static _Noreturn void cannot(const char *what)
{
    int error = errno;
    say("%s: %s", what, strerror(error));
    _exit(error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}

static void become_user(const struct agent_request *request)
{
    if (!(request->flags & AGENT_WITH_USER))
        return;
    if (setgroups(0, NULL) != 0 || setgid(request->gid) != 0 || setuid(request->uid) != 0) {
        say("user %u: %s", request->uid, strerror(errno));
        _exit(EXIT_CANNOT_RUN);
    }
    if (request->uid == 0)
        return;
    setenv("HOME", "/", 1); /* root's own are no use to others */
    unsetenv("USER");
    unsetenv("LOGNAME");
    (void)!chdir("/");
}

static _Noreturn void become(const struct agent_request *request, const int streams[3])
{
    sigset_t none;
    setsid();
    if (request->flags & AGENT_WITH_TTY)
        ioctl(streams[0], TIOCSCTTY, 0);
    for (int i = 0; i < 3; i++)
        dup2(streams[i], i);
    become_user(request);
    for (size_t i = 0; i < request->variable_count; i++)
        putenv((char *)request->variables[i]);
    if (request->directory[0] && chdir(request->directory) != 0) {
        say("%s: %s", request->directory, strerror(errno));
        _exit(EXIT_CANNOT_RUN);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(request->arguments[0], (char *const *)request->arguments);
    cannot(request->arguments[0]);
}

/* ---- Streams ---- */

static int set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ? -errno : 0;
}

/* ours[] are the ends that stay here, theirs[] those of the command. */
static int open_pipes(int ours[3], int theirs[3])
{
    for (int i = 0; i < 3; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0)
            return fail_errno(-errno, "a pipe");
        ours[i] = ends[i == 0];
        theirs[i] = ends[i != 0];
        int r = set_nonblocking(ours[i]);
        if (r < 0)
            return fail_errno(r, "a pipe");
    }
    return 0;
}

static int open_terminal(const struct agent_request *request, int ours[3], int theirs[3])
{
    char name[32];
    const struct winsize size = {.ws_row = request->rows, .ws_col = request->columns};
    ours[0] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (ours[0] < 0 || unlockpt(ours[0]) != 0 || ptsname_r(ours[0], name, sizeof(name)) != 0)
        return fail_errno(-errno, "a terminal (is /dev/pts mounted?)");
    theirs[0] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (theirs[0] < 0)
        return fail_errno(-errno, "%s", name);
    if (size.ws_row && size.ws_col)
        ioctl(ours[0], TIOCSWINSZ, &size);
    if (request->flags & AGENT_WITH_USER)
        (void)!fchown(theirs[0], request->uid, (gid_t)-1);
    ours[1] = fcntl(ours[0], F_DUPFD_CLOEXEC, 3);
    theirs[1] = fcntl(theirs[0], F_DUPFD_CLOEXEC, 3);
    theirs[2] = fcntl(theirs[0], F_DUPFD_CLOEXEC, 3);
    return ours[1] < 0 || theirs[1] < 0 || theirs[2] < 0 ? fail_errno(-errno, "a terminal") : 0;
}

int agent_command_start(const struct agent_request *request, struct agent_command *ret_command)
{
    int ours[3] = {-1, -1, -1}, theirs[3] = {-1, -1, -1};
    pid_t pid = -1;
    int r = request->flags & AGENT_WITH_TTY ? open_terminal(request, ours, theirs) : open_pipes(ours, theirs);
    if (r == 0) {
        pid = fork();
        if (pid == 0)
            become(request, theirs);
        if (pid < 0)
            r = fail_errno(-errno, "a process");
    }
    for (int i = 0; i < 3; i++) {
        cleanup_fd(&theirs[i]);
        if (r < 0)
            cleanup_fd(&ours[i]);
    }
    if (r < 0)
        return r;
    *ret_command = (struct agent_command){.pid = pid, .input = ours[0], .output = {ours[1], ours[2]}};
    return 0;
}
