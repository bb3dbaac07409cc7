#include "agent.h"
#include "init.h"
#include "signals.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#define RUN_FILE "/etc/volt/run"

/* The main command: the words behind "--", else volt.run=, else RUN_FILE, else a login shell. */
static const char *const *choose_command(const struct boot_line *boot)
{
    static const char *command[4];
    if (boot->command[0] != NULL)
        return boot->command;
    if (boot->run != NULL) {
        command[0] = "/bin/sh";
        command[1] = "-c";
        command[2] = boot->run;
    } else if (access(RUN_FILE, X_OK) == 0) {
        command[0] = RUN_FILE;
    } else {
        command[0] = "/bin/sh";
        command[1] = "-l";
    }
    return command;
}

static _Noreturn void become(const char *const *command)
{
    setpgid(0, 0);
    tcsetpgrp(STDIN_FILENO, getpid()); /* allowed from the background as long as SIGTTOU is blocked */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(command[0], (char *const *)command);
    int error = errno;
    say("%s: %s", command[0], strerror(error));
    _exit(error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}

static pid_t start(const char *const *command)
{
    pid_t pid = fork();
    if (pid < 0)
        give_up("%s: cannot start it: %s", command[0], strerror(errno));
    if (pid == 0)
        become(command);
    return pid;
}

/* Reaps every child that has ended. True if the main command was among them; *ret_status is then its
 * status. */
static bool reap(pid_t main_pid, int *ret_status)
{
    int status;
    pid_t pid;
    bool main_ended = false;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == main_pid) {
            *ret_status = status;
            main_ended = true;
        }
        agent_child_ended(pid, status);
    }
    return main_ended;
}

/* Tells the host how the main command ended. README.md promises the form of this line. */
static void say_status(const char *name, int status)
{
    if (WIFSIGNALED(status))
        say("%s: exit status %d (killed by signal %d)", name, 128 + WTERMSIG(status), WTERMSIG(status));
    else
        say("%s: exit status %d", name, WEXITSTATUS(status));
}

/* The descriptors that the loop waits for, the agent's behind its own. */
enum { WAIT_SIGNAL, WAIT_BUTTON, WAIT_AGENT };

/* Waits, and serves the agent. *ret_signal is 0 if none came. */
static enum signal_action wait_for_action(struct pollfd *waits, int *ret_signal)
{
    struct signalfd_siginfo sent;
    enum signal_action action = SIGNAL_IGNORE;
    int timeout_ms;
    nfds_t count = WAIT_AGENT + agent_waits(waits + WAIT_AGENT, &timeout_ms);
    *ret_signal = 0;
    if (poll(waits, count, timeout_ms) < 0)
        return SIGNAL_IGNORE;
    if (waits[WAIT_SIGNAL].revents != 0 &&
        read(waits[WAIT_SIGNAL].fd, &sent, sizeof(sent)) == (ssize_t)sizeof(sent)) {
        *ret_signal = (int)sent.ssi_signo;
        action = signal_action(*ret_signal);
    }
    if (waits[WAIT_BUTTON].revents != 0 && button_pressed(waits[WAIT_BUTTON].fd))
        action = SIGNAL_POWER_OFF;
    return action;
}

enum ending supervise(const struct boot_line *boot)
{
    static struct pollfd waits[WAIT_AGENT + AGENT_POLLS];
    const char *const *command = choose_command(boot);
    sigset_t all;
    /* The signals of a crash, SIGKILL and SIGSTOP stay as they are: signalfd and the mask ignore them. */
    sigfillset(&all);
    waits[WAIT_SIGNAL] = (struct pollfd){.fd = signalfd(-1, &all, SFD_CLOEXEC), .events = POLLIN};
    /* -1 if there is none: poll() ignores it */
    waits[WAIT_BUTTON] = (struct pollfd){.fd = button_open(), .events = POLLIN};
    if (waits[WAIT_SIGNAL].fd < 0)
        give_up("cannot wait for signals: %s", strerror(errno));
    agent_start();
    /* This process leads the session: when a leader ends, the kernel drops the output that the console
     * has not sent yet, and that would be the end of the command's output. */
    setsid();
    ioctl(STDIN_FILENO, TIOCSCTTY, 1); /* fails without a console: then there is no job control */
    pid_t main_pid = start(command);

    for (;;) {
        int status, number;
        enum signal_action action = wait_for_action(waits, &number);
        if (action == SIGNAL_REAP && reap(main_pid, &status)) {
            say_status(command[0], status);
            end_processes(0);
            return ENDING_POWER_OFF;
        }
        if (action == SIGNAL_FORWARD)
            kill(-main_pid, number);
        if (agent_serve(waits + WAIT_AGENT) && action != SIGNAL_REBOOT)
            action = SIGNAL_POWER_OFF;
        if (action == SIGNAL_POWER_OFF || action == SIGNAL_REBOOT) {
            end_processes(main_pid);
            return action == SIGNAL_REBOOT ? ENDING_REBOOT : ENDING_POWER_OFF;
        }
    }
}
