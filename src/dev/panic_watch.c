#include "dev/panic_watch.h"

#include <string.h>

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* Behind a time as printk writes it, "[   12.345678] ", and what else it has in brackets; NULL if there is
 * none. */
static const char *after_time(const char *text)
{
    size_t digits = strspn(text + 1, " 0123456789.");
    if (text[0] != '[' || digits < 3 || !memchr(text, '.', digits) || text[1 + digits] != ']')
        return NULL;
    text += 2 + digits;
    if (text[0] == '[') /* CONFIG_PRINTK_CALLER: "[    T1]" */
        text = strchr(text, ']') ? strchr(text, ']') + 1 : text;
    return text[0] == ' ' ? text + 1 : NULL;
}

/* What the kernel says in `line`: behind a time, wherever that is (a prompt may stand before it), or all of
 * it. */
static const char *kernel_message(const char *line, bool *ret_with_time)
{
    *ret_with_time = false;
    for (const char *at = strchr(line, '['); at; at = strchr(at + 1, '[')) {
        const char *message = after_time(at);
        if (message) {
            *ret_with_time = true;
            return message;
        }
    }
    return line;
}

static void look_at_line(struct panic_watch *watch)
{
    bool with_time;
    const char *message = kernel_message(watch->line, &with_time);
    if (starts_with(message, "Kernel panic - not syncing")) {
        watch->panicked = true;
        watch->with_time = with_time;
    } else if (starts_with(message, "reboot: ") ||
               (watch->with_time && !with_time && watch->line[0] != '\0')) {
        watch->panicked = false;
    }
}

void panic_watch_byte(struct panic_watch *watch, uint8_t byte)
{
    if (byte == '\n') {
        watch->line[MIN(watch->length, PANIC_LINE_MAX - 1)] = '\0';
        watch->length = 0;
        look_at_line(watch);
    } else if (byte != '\r' && byte != '\0' && watch->length < PANIC_LINE_MAX - 1) {
        watch->line[watch->length++] = (char)byte;
    }
}

bool panic_watch_panicked(const struct panic_watch *watch)
{
    bool prompt = watch->with_time && watch->length > 0 && watch->line[0] != '[';
    return watch->panicked && !prompt;
}
