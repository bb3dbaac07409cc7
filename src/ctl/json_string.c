/* Strings of JSON, and passing over values that nothing asks for. */
#include "ctl/json_reader.h"

#include <string.h>

/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates. */
static bool is_utf8(const uint8_t *bytes, size_t length)
{
    size_t more;
    for (size_t i = 0; i < length; i += more + 1) {
        uint8_t lead = bytes[i];
        more = lead < 0x80 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
        if ((more > 0 && (lead < 0xc2 || lead > 0xf4)) || length - i <= more)
            return false;
        uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
        for (size_t k = 1; k <= more; k++) {
            if (bytes[i + k] < low || bytes[i + k] > high)
                return false;
            low = 0x80;
            high = 0xbf;
        }
    }
    return true;
}

static void add_utf8(struct text *text, uint32_t point)
{
    uint8_t bytes[4];
    size_t length = 0;
    if (point < 0x80)
        bytes[length++] = (uint8_t)point;
    else if (point < 0x800)
        bytes[length++] = (uint8_t)(0xc0 | point >> 6);
    else if (point < 0x10000) {
        bytes[length++] = (uint8_t)(0xe0 | point >> 12);
        bytes[length++] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
    } else {
        bytes[length++] = (uint8_t)(0xf0 | point >> 18);
        bytes[length++] = (uint8_t)(0x80 | (point >> 12 & 0x3f));
        bytes[length++] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
    }
    if (point >= 0x80)
        bytes[length++] = (uint8_t)(0x80 | (point & 0x3f));
    text_add(text, bytes, length);
}

static int hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'f')
        return (byte | 0x20) - 'a' + 10;
    return -1;
}

static int take_four_digits(struct json_reader *reader, uint32_t *ret_value)
{
    if (reader->length - reader->index < 4) {
        reader->index = reader->length;
        return json_fail(reader, "EOF while parsing a string");
    }
    uint32_t value = 0;
    bool good = true;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(reader->text[reader->index + (size_t)i]);
        good = good && digit >= 0;
        value = value << 4 | ((uint32_t)digit & 0xf);
    }
    reader->index += 4;
    if (!good)
        return json_fail(reader, "invalid escape");
    *ret_value = value;
    return 0;
}

static int expect_in_escape(struct json_reader *reader, int wanted)
{
    int byte = json_peek(reader);
    if (byte < 0)
        return json_fail(reader, "EOF while parsing a string");
    reader->index++;
    return byte == wanted ? 0 : json_fail(reader, "unexpected end of hex escape");
}

/* After "\u": one code point, perhaps of two escapes. */
static int take_code_point(struct json_reader *reader)
{
    uint32_t high = 0, low = 0;
    int r = take_four_digits(reader, &high);
    if (r < 0)
        return r;
    if (high < 0xd800 || high > 0xdfff) {
        add_utf8(&reader->string, high);
        return 0;
    }
    if (high >= 0xdc00)
        return json_fail(reader, "lone leading surrogate in hex escape");
    r = expect_in_escape(reader, '\\');
    if (r == 0)
        r = expect_in_escape(reader, 'u');
    if (r == 0)
        r = take_four_digits(reader, &low);
    if (r < 0)
        return r;
    if (low < 0xdc00 || low > 0xdfff)
        return json_fail(reader, "lone leading surrogate in hex escape");
    add_utf8(&reader->string, ((high - 0xd800) << 10 | (low - 0xdc00)) + 0x10000);
    return 0;
}

static int take_escape(struct json_reader *reader)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    int byte = json_peek(reader);
    if (byte < 0)
        return json_fail(reader, "EOF while parsing a string");
    reader->index++;
    if (byte == 'u')
        return take_code_point(reader);
    const char *at = byte ? strchr(from, byte) : NULL;
    if (!at)
        return json_fail(reader, "invalid escape");
    text_add(&reader->string, &to[at - from], 1);
    return 0;
}

int json_take_string(struct json_reader *reader)
{
    static const char control[] = "control character (\\u0000-\\u001F) found while parsing a string";
    text_clear(&reader->string);
    text_add(&reader->string, "", 0); /* a string of no bytes is one, too */
    for (;;) {
        size_t start = reader->index;
        int byte = json_peek(reader);
        while (byte >= 0x20 && byte != '"' && byte != '\\') {
            reader->index++;
            byte = json_peek(reader);
        }
        text_add(&reader->string, reader->text + start, reader->index - start);
        if (byte < 0)
            return json_fail(reader, "EOF while parsing a string");
        reader->index++;
        if (byte < 0x20)
            return json_fail(reader, control);
        if (byte == '"')
            break;
        int r = take_escape(reader);
        if (r < 0)
            return r;
    }
    if (reader->string.failed)
        return json_fail(reader, "out of memory");
    if (!is_utf8((const uint8_t *)reader->string.at, reader->string.length))
        return json_fail(reader, "invalid unicode code point");
    return 0;
}

/* ---- Passing over ---- */

static int ignore_string(struct json_reader *reader)
{
    for (;;) {
        int byte = json_peek(reader);
        if (byte < 0)
            return json_fail(reader, "EOF while parsing a string");
        if (byte < 0x20)
            return json_fail(reader, "control character (\\u0000-\\u001F) found while parsing a string");
        reader->index++;
        if (byte == '"')
            return 0;
        if (byte != '\\')
            continue;
        byte = json_peek(reader);
        if (byte < 0)
            return json_fail(reader, "EOF while parsing a string");
        reader->index++;
        uint32_t digits;
        if (byte == 'u') {
            int r = take_four_digits(reader, &digits);
            if (r < 0)
                return r;
        } else if (!byte || !strchr("\"\\/bfnrt", byte))
            return json_fail(reader, "invalid escape");
    }
}

static bool ignore_digits(struct json_reader *reader)
{
    size_t start = reader->index;
    while (json_peek(reader) >= '0' && json_peek(reader) <= '9')
        reader->index++;
    return reader->index > start;
}

static int ignore_number(struct json_reader *reader)
{
    if (json_peek(reader) == '-')
        reader->index++;
    if (json_peek(reader) == '0') {
        reader->index++;
        if (json_peek(reader) >= '0' && json_peek(reader) <= '9')
            return json_fail_peek(reader, "invalid number");
    } else if (!ignore_digits(reader)) {
        reader->index += json_peek(reader) >= 0;
        return json_fail(reader, "invalid number");
    }
    if (json_peek(reader) == '.') {
        reader->index++;
        if (!ignore_digits(reader))
            return json_fail_peek(reader, "invalid number");
    }
    if (json_peek(reader) == 'e' || json_peek(reader) == 'E') {
        reader->index++;
        if (json_peek(reader) == '+' || json_peek(reader) == '-')
            reader->index++;
        if (!ignore_digits(reader)) {
            reader->index += json_peek(reader) >= 0;
            return json_fail(reader, "invalid number");
        }
    }
    return 0;
}

/* One value that is no array or object. */
static int ignore_scalar(struct json_reader *reader, int byte)
{
    switch (byte) {
    case 'n':
    case 't':
    case 'f':
        reader->index++;
        return json_take_word(reader, byte == 'n' ? "ull" : byte == 't' ? "rue" : "alse");
    case '"': reader->index++; return ignore_string(reader);
    default:
        if (byte == '-' || (byte >= '0' && byte <= '9'))
            return ignore_number(reader);
        return json_fail_peek(reader, "expected value");
    }
}

static int ignore_key(struct json_reader *reader)
{
    int byte = json_skip_space(reader);
    if (byte < 0)
        return json_fail_peek(reader, "EOF while parsing an object");
    if (byte != '"')
        return json_fail_peek(reader, "key must be a string");
    reader->index++;
    int r = ignore_string(reader);
    return r < 0 ? r : json_colon(reader);
}

/* From the end of a value, or the beginning of a list, to where the next value begins. *ret_more is false
 * when the outermost one has ended. */
static int ignore_to_next(struct json_reader *reader, struct text *open, bool after_value, bool *ret_more)
{
    *ret_more = open->length > 0;
    while (open->length > 0) {
        bool list = open->at[open->length - 1] == '[';
        int byte = json_skip_space(reader);
        if (byte == (list ? ']' : '}')) {
            reader->index++;
            open->length--;
            after_value = true;
            *ret_more = open->length > 0;
            continue;
        }
        if (byte < 0)
            return json_fail_peek(reader, list ? "EOF while parsing a list" : "EOF while parsing an object");
        if (after_value && byte != ',')
            return json_fail_peek(reader, list ? "expected `,` or `]`" : "expected `,` or `}`");
        if (after_value)
            reader->index++;
        return list ? 0 : ignore_key(reader);
    }
    return 0;
}

int json_ignore(struct json_reader *reader)
{
    CLEANUP_TEXT struct text open = {0}; /* the brackets that are */
    bool more = true;
    while (more) {
        int byte = json_skip_space(reader), r = 0;
        if (byte < 0)
            return json_fail_peek(reader, "EOF while parsing a value");
        bool container = byte == '[' || byte == '{';
        if (container) {
            char bracket = (char)byte;
            text_add(&open, &bracket, 1);
            reader->index++;
        } else
            r = ignore_scalar(reader, byte);
        if (open.failed)
            return json_fail(reader, "out of memory");
        if (r == 0)
            r = ignore_to_next(reader, &open, !container, &more);
        if (r < 0)
            return r;
    }
    return 0;
}
