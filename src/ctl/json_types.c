/* What is said of a value that has the wrong type. */
#include "ctl/json_reader.h"

int json_wrong_number(struct json_reader *reader, const char *what, const struct json_digits *digits,
                      const char *expected)
{
    CLEANUP_TEXT struct text shown = {0};
    if (digits->kind == JSON_FLOAT) {
        text_puts(&shown, "floating point `");
        text_json_double(&shown, digits->real);
        text_puts(&shown, "`");
    } else
        text_printf(&shown, "integer `%s%llu`", digits->kind == JSON_SIGNED ? "-" : "",
                    (unsigned long long)digits->magnitude);
    return json_fail_value(reader, "invalid %s: %s, expected %s", what, shown.at ? shown.at : "", expected);
}

/* The string as Rust shows one to programmers. */
static void add_quoted(struct text *text, const struct text *string)
{
    text_puts(text, "string \"");
    for (size_t i = 0; i < string->length; i++) {
        uint8_t byte = (uint8_t)string->at[i];
        switch (byte) {
        case '"': text_puts(text, "\\\""); break;
        case '\\': text_puts(text, "\\\\"); break;
        case '\n': text_puts(text, "\\n"); break;
        case '\r': text_puts(text, "\\r"); break;
        case '\t': text_puts(text, "\\t"); break;
        case '\0': text_puts(text, "\\0"); break;
        default:
            if (byte < 0x20 || byte == 0x7f)
                text_printf(text, "\\u{%x}", byte);
            else
                text_add(text, &string->at[i], 1);
        }
    }
    text_puts(text, "\"");
}

static int wrong(struct json_reader *reader, const char *what, const char *expected)
{
    json_fail_value(reader, "invalid type: %s, expected %s", what, expected);
    return json_place(reader);
}

int json_wrong_type(struct json_reader *reader, const char *expected)
{
    int byte = json_peek(reader), r;
    switch (byte) {
    case 'n':
    case 't':
    case 'f':
        reader->index++;
        r = json_take_word(reader, byte == 'n' ? "ull" : byte == 't' ? "rue" : "alse");
        if (r < 0)
            return r;
        return wrong(reader,
                     byte == 'n'   ? "null"
                     : byte == 't' ? "boolean `true`"
                                   : "boolean `false`",
                     expected);
    case '"': {
        reader->index++;
        r = json_take_string(reader);
        if (r < 0)
            return r;
        CLEANUP_TEXT struct text shown = {0};
        add_quoted(&shown, &reader->string);
        return wrong(reader, shown.at ? shown.at : "", expected);
    }
    case '[': return wrong(reader, "sequence", expected);
    case '{': return wrong(reader, "map", expected);
    default:
        if (byte != '-' && !(byte >= '0' && byte <= '9'))
            return json_fail_peek(reader, "expected value");
    }
    struct json_digits digits;
    r = json_take_number(reader, &digits);
    if (r < 0)
        return r;
    json_wrong_number(reader, "type", &digits, expected);
    return json_place(reader);
}
