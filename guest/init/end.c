#include "init.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/io.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>

/* The sleep control register of the machine's ACPI (FADT, SLEEP_CONTROL_REG) and what powers off: SLP_EN, and
 * S5's SLP_TYP of 5 from the third bit on (ACPI 6.5 section 4.8.3.7). */
#define SLEEP_CONTROL_PORT 0x600
#define SLEEP_TO_S5        (0x20 | 5 << 2)

/* The keyboard controller's command register, and its command to pulse the reset line. */
#define I8042_COMMAND_PORT 0x64
#define I8042_RESET        0xfe

/* Reaps until there is no child left or the time is over. */
static bool children_end_within(int seconds)
{
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    time_t last = now.tv_sec + seconds;
    for (;;) {
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
            continue;
        if (pid < 0)
            return true;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec >= last)
            return false;
        /* SIGCHLD is blocked, so one that came meanwhile is pending and ends the wait at once. */
        sigtimedwait(&child, NULL, &(struct timespec){.tv_sec = 1});
    }
}

void end_processes(pid_t main_pid)
{
    /* A console stopped with Ctrl-S would hold up the messages that follow, and the end. */
    tcflow(STDERR_FILENO, TCOON);
    if (kill(-1, SIGTERM) != 0)
        return; /* there are no processes */
    /* An interactive shell ignores SIGTERM and ends when its terminal hangs up. */
    if (main_pid > 0)
        kill(-main_pid, SIGHUP);
    kill(-1, SIGCONT);
    if (children_end_within(END_PATIENCE_SECONDS))
        return;
    say("some processes do not end, killing them");
    kill(-1, SIGKILL);
    children_end_within(1);
}

static void write_port(unsigned short port, uint8_t value)
{
    if (ioperm(port, 1, 1) == 0) {
        outb(value, port);
        return;
    }
    /* A kernel may have ioperm() and not /dev/port, or the other way round. */
    CLEANUP_FD int fd = open("/dev/port", O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        (void)write_full_at(fd, &value, 1, port);
}

void end_machine(enum ending ending)
{
    tcdrain(STDERR_FILENO);
    if (ending == ENDING_POWER_OFF) {
        /* A kernel without ACPI halts instead of powering off, and the machine would stay for ever. */
        if (access("/sys/firmware/acpi", F_OK) == 0)
            reboot(RB_POWER_OFF);
        write_port(SLEEP_CONTROL_PORT, SLEEP_TO_S5);
        say("this kernel cannot power off, rebooting instead");
    }
    reboot(RB_AUTOBOOT);
    write_port(I8042_COMMAND_PORT, I8042_RESET);
    for (;;)
        pause();
}
