#include "base/base.h"

#include <stdio.h>
#include <string.h>

static _Thread_local char last_message[512];

const char *fail_text(void)
{
    return last_message;
}

static void set_last_message(const char *message)
{
    snprintf(last_message, sizeof(last_message), "%s", message);
}

void fail_message(const char *format, ...)
{
    char message[sizeof(last_message)]; /* formatted aside: an argument may be fail_text() itself */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    set_last_message(message);
}

/* Which limit an error comes from, where its own text does not say. */
static const char *limit_of(int negative_errno)
{
    switch (negative_errno) {
    case -EMFILE: return " (ulimit -n raises the limit)";
    case -ENFILE: return " (sysctl fs.file-max raises the limit)";
    case -EFBIG: return " (for the file system, or ulimit -f)";
    default: return "";
    }
}

void fail_errno_message(int negative_errno, const char *format, ...)
{
    char message[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    fail_message("%s: %s%s", message, strerror(-negative_errno), limit_of(negative_errno));
}

void check_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, condition);
    abort();
}
