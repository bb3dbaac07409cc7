/*
 * JSON as the control socket's clients know it: read from tables of keys into plain structures, with the
 * messages and the positions ("missing field `vcpu_count` at line 1 column 21") that Firecracker's reader,
 * Rust's serde_json, gives. Clients match them to the column. No JSON library in C reports a position for a
 * value that has the wrong type or is missing, which is why this one exists.
 *
 * A structure is described once, by a table of json_field. Out of that table it is read, freed and written.
 */
#pragma once

#include "ctl/text.h"

/* A bool, an integer or the index of an enum's variant. */
struct json_number {
    uint64_t value;
    bool present;
};

/* Elements as the table has them: structures, or char * for strings. */
struct json_list {
    void *items;
    size_t count;
};

struct json_pair {
    char *key, *value;
};

enum json_kind {
    JSON_BOOL, /* struct json_number */
    JSON_U8,   /* struct json_number, as the others up to JSON_ENUM */
    JSON_U16,
    JSON_U32,
    JSON_U64,
    JSON_USIZE,
    JSON_ENUM,
    JSON_STRING,  /* char * */
    JSON_PATH,    /* char * */
    JSON_IPV4,    /* char *, checked */
    JSON_STRUCT,  /* a pointer to one; NULL: absent */
    JSON_STRINGS, /* struct json_list of char * */
    JSON_STRUCTS, /* struct json_list */
    JSON_MAP,     /* struct json_list of struct json_pair */
};

enum json_presence {
    JSON_REQUIRED,
    JSON_OPTIONAL,  /* null means absent */
    JSON_DEFAULTED, /* may be left out, and is then `fallback`; null is a wrong type */
    JSON_HIDDEN,    /* as JSON_OPTIONAL, but not written when absent */
};

struct json_field {
    const char *name;
    enum json_kind kind;
    enum json_presence presence;
    size_t offset;
    uint64_t fallback;            /* JSON_DEFAULTED numbers */
    const char *const *variants;  /* JSON_ENUM: in order of declaration, NULL at the end */
    const struct json_struct *of; /* JSON_STRUCT, JSON_STRUCTS */
    /* JSON_STRING: NULL if `text` will do, else what to say; allocated. Optional. */
    char *(*check)(const char *text);
};

struct json_struct {
    const char *name; /* as the message has it: "MachineConfig" */
    const struct json_field *fields;
    size_t count, size;
    bool others; /* keys that are not in the table are passed over */
};

/* Where and why reading failed; `message` is empty after a success. */
struct json_error {
    struct text message;
    size_t line, column;
};

/*
 * Reads `text`, which must be one value of the structure `of` and nothing else, into `object` (of->size
 * bytes, zeroed here). -EINVAL or -ENOMEM with `error->message` set, position included, and `object` empty.
 */
int json_read(const void *text, size_t length, const struct json_struct *of, void *object,
              struct json_error *error);

/* Frees what json_read() allocated inside `object` and zeroes it. */
void json_free(const struct json_struct *of, void *object);

/* Writes `object` as its table orders it; what is absent is null, or left out (JSON_HIDDEN). */
void json_write(struct text *text, const struct json_struct *of, const void *object);

/* Any JSON value: a tree, for the metadata store, which is given what was put in. */
struct json_value;

/* Reads one value. As json_read(); `*ret_value` is the caller's. */
int json_value_read(const void *text, size_t length, struct json_value **ret_value, struct json_error *error);
void json_value_free(struct json_value *value);

/* Writes `value`, the keys of its objects in order of their bytes. */
void json_value_write(struct text *text, const struct json_value *value);
bool json_value_is_null(const struct json_value *value);

/* Applies `patch` as RFC 7396 has it. Takes both and returns the result. */
struct json_value *json_value_merge(struct json_value *target, struct json_value *patch);
