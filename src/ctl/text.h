/*
 * Text that grows: answers, lines of a log, JSON. A failed allocation is remembered and everything after it
 * is nothing, so a caller asks once, at the end.
 */
#pragma once

#include "base/base.h"

struct text {
    char *at; /* NUL-terminated once anything was added; NULL before */
    size_t length, capacity;
    bool failed; /* out of memory: what is there is not all of it */
};

#define CLEANUP_TEXT __attribute__((cleanup(text_free)))

void text_free(struct text *text);

/* Empties it and keeps the memory. */
void text_clear(struct text *text);

void text_add(struct text *text, const void *bytes, size_t length);
void text_puts(struct text *text, const char *string);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `string` as a JSON string with its quotes, escaped as serde_json does it: bytes from 0x20 on go through. */
void text_json_string(struct text *text, const char *string, size_t length);

/* A double as serde_json prints it: the fewest digits that read back as the same, and always a point or an
 * exponent. */
void text_json_double(struct text *text, double value);
