#include "terminal.h"

#include <signal.h>
#include <termios.h>

#define CTRL_A 1

const char terminal_help[] = "\r\n"
                             "Ctrl-A x  end the VM now\r\n"
                             "Ctrl-A p  press its power button\r\n"
                             "Ctrl-A h  this help\r\n"
                             "Ctrl-A a  send Ctrl-A to the guest (Ctrl-A twice, too)\r\n";

static struct termios saved_mode;
static volatile sig_atomic_t is_raw;

void terminal_restore(void)
{
    if (!is_raw)
        return;
    is_raw = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &saved_mode); /* async-signal-safe, as POSIX has it */
}

void terminal_forget(void)
{
    is_raw = 0;
}

static void restore_and_die(int number)
{
    terminal_restore();
    signal(number, SIG_DFL);
    raise(number);
}

bool terminal_raw(void)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGQUIT, SIGXCPU, SIGXFSZ};
    if (tcgetattr(STDIN_FILENO, &saved_mode) < 0 || tcgetpgrp(STDIN_FILENO) != getpgrp())
        return false;

    struct termios raw = saved_mode;
    /* Output processing stays: our own lines want it, and the guest's \r\n loses nothing. */
    raw.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INLCR | IGNCR | INPCK | ISTRIP | IXON);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
        signal(fatal[i], restore_and_die);
    atexit(terminal_restore);
    is_raw = 1;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0)
        is_raw = 0;
    return is_raw;
}

size_t terminal_filter(uint8_t *bytes, size_t length, enum terminal_command *ret_command)
{
    static bool after_ctrl_a;
    size_t kept = 0;
    *ret_command = TERMINAL_NOTHING;
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = bytes[i];
        if (!after_ctrl_a) {
            if (byte == CTRL_A)
                after_ctrl_a = true;
            else
                bytes[kept++] = byte;
            continue;
        }
        after_ctrl_a = false;
        switch (byte) {
        case 'x': *ret_command = TERMINAL_END; break;
        case 'p': *ret_command = TERMINAL_POWER_BUTTON; break;
        case 'a':
        case CTRL_A: bytes[kept++] = CTRL_A; break;
        default: *ret_command = TERMINAL_HELP; break;
        }
    }
    return kept;
}
