#include "init.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* The longest line is a path and a message of fail(). */
#define SAY_MAX 768

static void say_list(const char *format, va_list arguments)
{
    static const char prefix[] = "volt-init: ";
    char line[SAY_MAX];
    size_t length = sizeof(prefix) - 1;
    memcpy(line, prefix, length);
    int formatted = vsnprintf(line + length, sizeof(line) - length - 1, format, arguments);
    if (formatted < 0)
        return;
    length += MIN((size_t)formatted, sizeof(line) - length - 2);
    line[length++] = '\n';
    (void)write_full(STDERR_FILENO, line, length); /* fails without a console */
}

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say_list(format, arguments);
    va_end(arguments);
}

void give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say_list(format, arguments);
    va_end(arguments);
    say("cannot go on, rebooting");
    sync();
    end_machine(ENDING_REBOOT);
}

static void crashed(int number)
{
    give_up("crashed with signal %d", number);
}

void say_crashes(sigset_t *blocked)
{
    const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    for (size_t i = 0; i < ARRAY_SIZE(crashes); i++) {
        sigdelset(blocked, crashes[i]);
        sigaction(crashes[i], &(struct sigaction){.sa_handler = crashed, .sa_flags = SA_RESETHAND}, NULL);
    }
}
