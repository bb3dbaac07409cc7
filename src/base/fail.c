#include "base/base.h"

#include <stdio.h>
#include <string.h>

static _Thread_local char last_words[512];

const char *fail_text(void)
{
    return last_words;
}

static void set_last_words(const char *words)
{
    snprintf(last_words, sizeof(last_words), "%s", words);
}

void fail_words(const char *format, ...)
{
    char words[sizeof(last_words)]; /* formatted aside: an argument may be fail_text() itself */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof(words), format, arguments);
    va_end(arguments);
    set_last_words(words);
}

void fail_errno_words(int negative_errno, const char *format, ...)
{
    char words[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof(words), format, arguments);
    va_end(arguments);
    fail_words("%s: %s", words, strerror(-negative_errno));
}

void check_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, condition);
    abort();
}
