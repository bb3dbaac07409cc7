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

/* Exit statuses of a shell for a command that it cannot start. */
#define EXIT_CANNOT_RUN 126
#define EXIT_NOT_FOUND  127

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

enum ending supervise(const struct boot_line *boot)
{
    const char *const *command = choose_command(boot);
    sigset_t all;
    /* The signals of a crash, SIGKILL and SIGSTOP stay as they are: signalfd and the mask ignore them. */
    sigfillset(&all);
    struct pollfd waits[] = {
        {.fd = signalfd(-1, &all, SFD_CLOEXEC), .events = POLLIN},
        {.fd = button_open(), .events = POLLIN}, /* -1 if there is none: poll() ignores it */
    };
    if (waits[0].fd < 0)
        give_up("cannot wait for signals: %s", strerror(errno));
    /* This process leads the session: when a leader ends, the kernel drops the output that the console
     * has not sent yet, and that would be the end of the command's output. */
    setsid();
    ioctl(STDIN_FILENO, TIOCSCTTY, 1); /* fails without a console: then there is no job control */
    pid_t main_pid = start(command);

    for (;;) {
        struct signalfd_siginfo sent;
        int status;
        if (poll(waits, ARRAY_SIZE(waits), -1) < 0)
            continue;
        enum signal_action action = SIGNAL_IGNORE;
        if (waits[0].revents != 0 && read(waits[0].fd, &sent, sizeof(sent)) == (ssize_t)sizeof(sent))
            action = signal_action((int)sent.ssi_signo);
        if (waits[1].revents != 0 && button_pressed(waits[1].fd))
            action = SIGNAL_POWER_OFF;

        if (action == SIGNAL_REAP && reap(main_pid, &status)) {
            say_status(command[0], status);
            end_processes(0);
            return ENDING_POWER_OFF;
        }
        if (action == SIGNAL_FORWARD)
            kill(-main_pid, (int)sent.ssi_signo);
        if (action == SIGNAL_POWER_OFF || action == SIGNAL_REBOOT) {
            end_processes(main_pid);
            return action == SIGNAL_REBOOT ? ENDING_REBOOT : ENDING_POWER_OFF;
        }
    }
}
