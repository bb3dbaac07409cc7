#include "ctl/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void text_free(struct text *text)
{
    free(text->at);
    *text = (struct text){0};
}

void text_clear(struct text *text)
{
    text->length = 0;
    if (text->at)
        text->at[0] = '\0';
}

/* Room for `more` bytes and a final NUL; false if there is none. */
static bool reserve(struct text *text, size_t more)
{
    uint64_t wanted;
    if (text->failed || add_overflows(text->length, more, &wanted) || add_overflows(wanted, 1, &wanted)) {
        text->failed = true;
        return false;
    }
    if (wanted <= text->capacity)
        return true;
    size_t capacity = MAX(wanted, MAX(text->capacity * 2, 64));
    char *grown = realloc(text->at, capacity);
    if (!grown) {
        text->failed = true;
        return false;
    }
    text->at = grown;
    text->capacity = capacity;
    return true;
}

void text_add(struct text *text, const void *bytes, size_t length)
{
    if (!reserve(text, length))
        return;
    if (length > 0)
        memcpy(text->at + text->length, bytes, length);
    text->length += length;
    text->at[text->length] = '\0';
}

void text_puts(struct text *text, const char *string)
{
    text_add(text, string, strlen(string));
}

void text_printf(struct text *text, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0)
        text->failed = true;
    else if (reserve(text, (size_t)length)) {
        vsnprintf(text->at + text->length, (size_t)length + 1, format, again);
        text->length += (size_t)length;
    }
    va_end(again);
}

void text_json_string(struct text *text, const char *string, size_t length)
{
    text_add(text, "\"", 1);
    size_t plain = 0; /* where the run of bytes that need no escape began */
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = (uint8_t)string[i];
        if (byte >= 0x20 && byte != '"' && byte != '\\')
            continue;
        text_add(text, string + plain, i - plain);
        plain = i + 1;
        switch (byte) {
        case '"': text_puts(text, "\\\""); break;
        case '\\': text_puts(text, "\\\\"); break;
        case '\b': text_puts(text, "\\b"); break;
        case '\f': text_puts(text, "\\f"); break;
        case '\n': text_puts(text, "\\n"); break;
        case '\r': text_puts(text, "\\r"); break;
        case '\t': text_puts(text, "\\t"); break;
        default: text_printf(text, "\\u%04x", byte); break;
        }
    }
    text_add(text, string + plain, length - plain);
    text_add(text, "\"", 1);
}

/* The digits of a positive finite `value`, as few as tell it from its neighbours, and the power of ten of the
 * last. */
static int shortest_digits(double value, char digits[32], int *ret_exponent)
{
    char printed[40];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(printed, sizeof(printed), "%.*e", precision, value);
        if (strtod(printed, NULL) == value)
            break;
    }
    int count = 0;
    const char *at = printed;
    for (; *at != 'e'; at++)
        if (*at != '.')
            digits[count++] = *at;
    int exponent = (int)strtol(at + 1, NULL, 10) - (count - 1);
    while (count > 1 && digits[count - 1] == '0') {
        count--;
        exponent++;
    }
    digits[count] = '\0';
    *ret_exponent = exponent;
    return count;
}

void text_json_double(struct text *text, double value)
{
    if (signbit(value))
        text_puts(text, "-");
    value = fabs(value);
    if (value == 0) {
        text_puts(text, "0.0");
        return;
    }
    char digits[32];
    int exponent, count = shortest_digits(value, digits, &exponent);
    int point = count + exponent; /* digits before the decimal point */
    if (exponent >= 0 && point <= 16)
        text_printf(text, "%s%.*s.0", digits, exponent, "0000000000000000");
    else if (point > 0 && point <= 16)
        text_printf(text, "%.*s.%s", point, digits, digits + point);
    else if (point > -5 && point <= 0)
        text_printf(text, "0.%.*s%s", -point, "0000", digits);
    else if (count == 1)
        text_printf(text, "%se%+d", digits, point - 1);
    else
        text_printf(text, "%.1s.%se%+d", digits, digits + 1, point - 1);
}
