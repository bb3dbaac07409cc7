#include "ctl/json_reader.h"

#include <stdio.h>
#include <string.h>

int json_peek(const struct json_reader *reader)
{
    return reader->index < reader->length ? reader->text[reader->index] : -1;
}

int json_skip_space(struct json_reader *reader)
{
    int byte = json_peek(reader);
    while (byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r') {
        reader->index++;
        byte = json_peek(reader);
    }
    return byte;
}

/* ---- Failing ---- */

static void place_at(struct json_reader *reader, size_t index)
{
    size_t line = 1, start = 0;
    for (size_t i = 0; i < index; i++)
        if (reader->text[i] == '\n') {
            line++;
            start = i + 1;
        }
    reader->error->line = line;
    reader->error->column = index - start;
}

int json_fail(struct json_reader *reader, const char *message)
{
    text_clear(&reader->error->message);
    text_puts(&reader->error->message, message);
    place_at(reader, MIN(reader->index, reader->length));
    return -EINVAL;
}

int json_fail_peek(struct json_reader *reader, const char *message)
{
    int r = json_fail(reader, message);
    place_at(reader, MIN(reader->index + 1, reader->length));
    return r;
}

int json_fail_value(struct json_reader *reader, const char *format, ...)
{
    char *message = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&message, format, arguments);
    va_end(arguments);
    text_clear(&reader->error->message);
    text_puts(&reader->error->message, length < 0 ? "out of memory" : message);
    if (length >= 0)
        free(message);
    reader->error->line = 0;
    return -EINVAL;
}

int json_place(struct json_reader *reader)
{
    if (reader->error->line == 0)
        place_at(reader, MIN(reader->index, reader->length));
    return -EINVAL;
}

int json_finish(struct json_reader *reader, int result)
{
    if (result == 0 && json_skip_space(reader) >= 0)
        result = json_fail_peek(reader, "trailing characters");
    struct json_error *error = reader->error;
    if (result < 0 && error->line > 0)
        text_printf(&error->message, " at line %zu column %zu", error->line, error->column);
    text_free(&reader->string);
    return result;
}

/* ---- Words and numbers ---- */

int json_take_word(struct json_reader *reader, const char *rest)
{
    for (; *rest; rest++) {
        int byte = json_peek(reader);
        if (byte < 0)
            return json_fail(reader, "EOF while parsing a value");
        reader->index++;
        if (byte != *rest)
            return json_fail(reader, "expected ident");
    }
    return 0;
}

static bool is_digit(int byte)
{
    return byte >= '0' && byte <= '9';
}

static double power_of_ten(int exponent)
{
    char text[16];
    snprintf(text, sizeof(text), "1e%d", exponent);
    return strtod(text, NULL);
}

/* significand * 10^exponent, rounded twice as serde_json does it when it is in a hurry. */
static int make_real(struct json_reader *reader, uint64_t significand, int64_t exponent, double *ret_real)
{
    double real = (double)significand;
    while (exponent < -308 && real != 0) {
        real /= 1e308;
        exponent += 308;
    }
    if (real == 0)
        exponent = 0;
    if (exponent > 308)
        return json_fail(reader, "number out of range");
    real = exponent >= 0 ? real * power_of_ten((int)exponent) : real / power_of_ten((int)-exponent);
    if (__builtin_isinf(real))
        return json_fail(reader, "number out of range");
    *ret_real = real;
    return 0;
}

/* From the 'e' on. */
static int take_exponent(struct json_reader *reader, uint64_t significand, int64_t exponent, double *ret_real)
{
    reader->index++;
    bool negative = json_peek(reader) == '-';
    if (negative || json_peek(reader) == '+')
        reader->index++;
    int byte = json_peek(reader);
    if (byte < 0)
        return json_fail(reader, "EOF while parsing a value");
    reader->index++;
    if (!is_digit(byte))
        return json_fail(reader, "invalid number");
    int64_t value = byte - '0';
    for (; is_digit(json_peek(reader)); reader->index++) {
        value = value * 10 + (json_peek(reader) - '0');
        if (value <= INT32_MAX)
            continue;
        reader->index++;
        if (significand != 0 && !negative)
            return json_fail(reader, "number out of range");
        while (is_digit(json_peek(reader)))
            reader->index++;
        *ret_real = 0;
        return 0;
    }
    exponent += negative ? -value : value;
    return make_real(reader, significand, MAX(MIN(exponent, INT32_MAX), INT32_MIN), ret_real);
}

static bool add_digit(uint64_t *significand, int byte)
{
    uint64_t grown;
    if (mul_overflows(*significand, 10, &grown) || add_overflows(grown, (uint64_t)(byte - '0'), &grown))
        return false;
    *significand = grown;
    return true;
}

/* From the '.' on. */
static int take_decimal(struct json_reader *reader, uint64_t significand, int64_t exponent, double *ret_real)
{
    reader->index++;
    bool any = false, full = false;
    for (; is_digit(json_peek(reader)); reader->index++) {
        full = full || !add_digit(&significand, json_peek(reader));
        any = true;
        if (!full)
            exponent--;
    }
    if (!any)
        return json_fail_peek(reader, json_peek(reader) < 0 ? "EOF while parsing a value" : "invalid number");
    if (json_peek(reader) == 'e' || json_peek(reader) == 'E')
        return take_exponent(reader, significand, exponent, ret_real);
    return make_real(reader, significand, exponent, ret_real);
}

/* The digits before a point or an exponent. *ret_exponent: how many were dropped because they do not fit. */
static int take_integer(struct json_reader *reader, uint64_t *ret_significand, int64_t *ret_exponent)
{
    int byte = json_peek(reader);
    if (byte < 0)
        return json_fail(reader, "EOF while parsing a value");
    reader->index++;
    if (!is_digit(byte))
        return json_fail(reader, "invalid number");
    if (byte == '0' && is_digit(json_peek(reader)))
        return json_fail_peek(reader, "invalid number");
    uint64_t significand = (uint64_t)(byte - '0');
    int64_t dropped = 0;
    for (; is_digit(json_peek(reader)); reader->index++)
        if (dropped > 0 || !add_digit(&significand, json_peek(reader)))
            dropped++;
    *ret_significand = significand;
    *ret_exponent = dropped;
    return 0;
}

int json_take_number(struct json_reader *reader, struct json_digits *ret_digits)
{
    bool negative = json_peek(reader) == '-';
    if (negative)
        reader->index++;
    uint64_t significand = 0;
    int64_t dropped = 0;
    double real = 0;
    int r = take_integer(reader, &significand, &dropped);
    if (r < 0)
        return r;
    int next = json_peek(reader);
    bool is_real = true;
    if (next == '.')
        r = take_decimal(reader, significand, dropped, &real);
    else if (next == 'e' || next == 'E')
        r = take_exponent(reader, significand, dropped, &real);
    else if (dropped > 0)
        r = make_real(reader, significand, dropped, &real);
    else if (negative && (significand == 0 || significand > (uint64_t)INT64_MAX + 1))
        real = (double)significand; /* -0, or less than any int64_t */
    else
        is_real = false;
    if (r < 0)
        return r;
    *ret_digits = (struct json_digits){
        .kind = is_real    ? JSON_FLOAT
                : negative ? JSON_SIGNED
                           : JSON_UNSIGNED,
        .magnitude = significand,
        .real = negative ? -real : real,
    };
    return 0;
}

/* ---- Objects and arrays ---- */

int json_enter(struct json_reader *reader)
{
    if (--reader->depth == 0)
        return json_fail_peek(reader, "recursion limit exceeded");
    reader->index++;
    return 0;
}

void json_leave(struct json_reader *reader)
{
    reader->depth++;
}

int json_next_key(struct json_reader *reader, bool *first, bool *ret_more)
{
    int byte = json_skip_space(reader);
    *ret_more = false;
    if (byte < 0)
        return json_fail_peek(reader, "EOF while parsing an object");
    if (byte == '}')
        return 0;
    if (!*first) {
        if (byte != ',')
            return json_fail_peek(reader, "expected `,` or `}`");
        reader->index++;
        byte = json_skip_space(reader);
        if (byte < 0)
            return json_fail_peek(reader, "EOF while parsing a value");
        if (byte == '}')
            return json_fail_peek(reader, "trailing comma");
    }
    if (byte != '"')
        return json_fail_peek(reader, "key must be a string");
    *first = false;
    *ret_more = true;
    return 0;
}

int json_next_element(struct json_reader *reader, bool *first, bool *ret_more)
{
    int byte = json_skip_space(reader);
    *ret_more = false;
    if (byte < 0)
        return json_fail_peek(reader, "EOF while parsing a list");
    if (byte == ']')
        return 0;
    if (!*first) {
        if (byte != ',')
            return json_fail_peek(reader, "expected `,` or `]`");
        reader->index++;
        byte = json_skip_space(reader);
        if (byte < 0)
            return json_fail_peek(reader, "EOF while parsing a value");
        if (byte == ']')
            return json_fail_peek(reader, "trailing comma");
    }
    *first = false;
    *ret_more = true;
    return 0;
}

int json_colon(struct json_reader *reader)
{
    int byte = json_skip_space(reader);
    if (byte < 0)
        return json_fail_peek(reader, "EOF while parsing an object");
    if (byte != ':')
        return json_fail_peek(reader, "expected `:`");
    reader->index++;
    return 0;
}

/* An error from inside counts before one of the end; but the end is looked for in any case, and what it
 * passes over moves the position of an error that has none yet. */
int json_end_object(struct json_reader *reader, int inside)
{
    int byte = json_skip_space(reader);
    if (byte == '}')
        reader->index++;
    else if (inside == 0)
        return json_fail_peek(reader, byte < 0      ? "EOF while parsing an object"
                                      : byte == ',' ? "trailing comma"
                                                    : "trailing characters");
    return inside < 0 ? json_place(reader) : 0;
}

int json_end_array(struct json_reader *reader, int inside)
{
    int byte = json_skip_space(reader);
    const char *message = byte < 0 ? "EOF while parsing a list" : "trailing characters";
    if (byte == ',') {
        reader->index++;
        if (json_skip_space(reader) == ']')
            message = "trailing comma";
    } else if (byte == ']') {
        reader->index++;
        message = NULL;
    }
    if (inside < 0)
        return json_place(reader);
    return message ? json_fail_peek(reader, message) : 0;
}
