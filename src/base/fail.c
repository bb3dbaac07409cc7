#include "base/base.h"

#include <stdio.h>
#include <string.h>

static _Thread_local char last_words[512];

const char *fail_text(void)
{
    return last_words;
}

int fail(int negative_errno, const char *format, ...)
{
    char words[sizeof(last_words)]; /* formatted aside: an argument may be fail_text() itself */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof(words), format, arguments);
    va_end(arguments);
    memcpy(last_words, words, sizeof(words));
    return negative_errno;
}

int fail_errno(int negative_errno, const char *format, ...)
{
    char words[sizeof(last_words)];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof(words), format, arguments);
    va_end(arguments);
    return fail(negative_errno, "%.400s: %s", words, strerror(-negative_errno));
}

void check_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, condition);
    abort();
}
