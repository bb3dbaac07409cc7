#include "store/cmd/cmd.h"

#include <stdio.h>
#include <string.h>

/* Bytes of the UTF-8 character at `text`; 0 if there is none. Neither overlong forms nor surrogates are
 * characters. */
static unsigned utf8_length(const unsigned char *text)
{
    unsigned length = text[0] < 0x80 ? 1 : text[0] < 0xc2 ? 0 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : 4;
    if (text[0] > 0xf4)
        return 0;
    for (unsigned i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
        (text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f))
        return 0;
    return length;
}

json_t *json_bytes(const char *text)
{
    CLEANUP_FREE char *escaped = malloc(4 * strlen(text) + 1);
    if (!escaped)
        return NULL;
    char *to = escaped;
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        unsigned length = utf8_length(at);
        if (length == 0) {
            to += sprintf(to, "\\x%02x", *at++);
            continue;
        }
        memcpy(to, at, length);
        to += length;
        at += length;
    }
    *to = '\0';
    return json_string(escaped);
}
