#include "signals.h"

#include <signal.h>
#include <string.h>

enum signal_action signal_action(int number)
{
    switch (number) {
    case SIGCHLD: return SIGNAL_REAP;
    case SIGUSR1: /* busybox halt: a halted VM would only keep its memory */
    case SIGUSR2: /* busybox poweroff */
    case SIGPWR:  /* the power fails, or lxc-stop and the like ask */
    case SIGNAL_POWER_BUTTON: return SIGNAL_POWER_OFF;
    case SIGTERM: /* busybox reboot */
    case SIGINT: /* Ctrl-Alt-Del, with LINUX_REBOOT_CMD_CAD_OFF */ return SIGNAL_REBOOT;
    case SIGHUP:
    case SIGQUIT:
    case SIGALRM:
    case SIGCONT:
    case SIGWINCH: return SIGNAL_FORWARD;
    default: return SIGNAL_IGNORE;
    }
}

int signal_of_client(const char *program)
{
    const char *slash = strrchr(program, '/');
    const char *name = slash == NULL ? program : slash + 1;
    if (strcmp(name, "poweroff") == 0 || strcmp(name, "halt") == 0)
        return SIGUSR2;
    if (strcmp(name, "reboot") == 0)
        return SIGTERM;
    return 0;
}
