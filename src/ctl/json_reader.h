/* The reader's own parts, for json_*.c alone: bytes, positions, and the values that every structure is made
 * of. */
#pragma once

#include "ctl/json.h"

/* Objects and arrays inside each other, as serde_json has it. */
#define JSON_DEPTH 128

struct json_reader {
    const uint8_t *text;
    size_t length, index;
    unsigned depth;           /* levels left */
    struct text string;       /* the last string read */
    struct json_error *error; /* error->line is 0 while the message has no position yet */
};

/* What a number was: serde tells three kinds apart. */
struct json_digits {
    enum { JSON_UNSIGNED, JSON_SIGNED, JSON_FLOAT } kind;
    uint64_t magnitude; /* JSON_UNSIGNED, and of a JSON_SIGNED without its sign */
    double real;
};

/* The byte at the index, or -1 at the end. */
int json_peek(const struct json_reader *reader);
/* Passes over white space; then as json_peek(). */
int json_skip_space(struct json_reader *reader);

/*
 * Ways to fail; all return -EINVAL. json_fail() places the message after the last byte taken,
 * json_fail_peek() after the next one, json_fail_value() nowhere yet: the structure or value around it does,
 * by json_place(), when it has ended.
 */
int json_fail(struct json_reader *reader, const char *message);
int json_fail_peek(struct json_reader *reader, const char *message);
int json_fail_value(struct json_reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
int json_place(struct json_reader *reader);

int json_take_word(struct json_reader *reader, const char *rest);
/* After the opening quote; the string is reader->string. */
int json_take_string(struct json_reader *reader);
/* At a digit or '-'. */
int json_take_number(struct json_reader *reader, struct json_digits *ret_digits);
/* Passes over a value of any kind. */
int json_ignore(struct json_reader *reader);

/* Says "invalid type: ..., expected `expected`" of the value that is next. */
int json_wrong_type(struct json_reader *reader, const char *expected);
/* The same of a number that was read. */
int json_wrong_number(struct json_reader *reader, const char *what, const struct json_digits *digits,
                      const char *expected);

/* The ways into, through and out of objects and arrays. *ret_more: there is another key (at its quote) or
 * element. */
int json_enter(struct json_reader *reader);
void json_leave(struct json_reader *reader);
int json_next_key(struct json_reader *reader, bool *first, bool *ret_more);
int json_next_element(struct json_reader *reader, bool *first, bool *ret_more);
int json_colon(struct json_reader *reader);
/* Ends one whose inside ended with `inside` (0 or an error that is kept), and places what has no position. */
int json_end_object(struct json_reader *reader, int inside);
int json_end_array(struct json_reader *reader, int inside);

/* Nothing but white space may follow; finishes the message with its position after a failure. */
int json_finish(struct json_reader *reader, int result);
