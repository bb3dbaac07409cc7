/* Reading a structure by its table, in the order and with the messages of code that serde derives. */
#include "ctl/json_reader.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

static int read_struct(struct json_reader *reader, const struct json_struct *of, void *object);

static void *member(void *object, const struct json_field *field)
{
    return (char *)object + field->offset;
}

/* ---- Values ---- */

static int read_bool(struct json_reader *reader, int byte, struct json_number *ret_number)
{
    if (byte != 't' && byte != 'f')
        return json_wrong_type(reader, "a boolean");
    reader->index++;
    int r = json_take_word(reader, byte == 't' ? "rue" : "alse");
    if (r == 0)
        *ret_number = (struct json_number){byte == 't', true};
    return r;
}

static int read_integer(struct json_reader *reader, int byte, enum json_kind kind,
                        struct json_number *ret_number)
{
    static const struct {
        const char *name;
        uint64_t most;
    } types[] = {
        [JSON_U8] = {"u8", UINT8_MAX},        [JSON_U16] = {"u16", UINT16_MAX},
        [JSON_U32] = {"u32", UINT32_MAX},     [JSON_U64] = {"u64", UINT64_MAX},
        [JSON_USIZE] = {"usize", UINT64_MAX},
    };
    if (byte != '-' && (byte < '0' || byte > '9'))
        return json_wrong_type(reader, types[kind].name);
    struct json_digits digits;
    int r = json_take_number(reader, &digits);
    if (r < 0)
        return r;
    if (digits.kind == JSON_UNSIGNED && digits.magnitude <= types[kind].most) {
        *ret_number = (struct json_number){digits.magnitude, true};
        return 0;
    }
    json_wrong_number(reader, digits.kind == JSON_FLOAT ? "type" : "value", &digits, types[kind].name);
    return json_place(reader);
}

/* Name `index` of the `count` fields or variants that were expected. */
static void add_name(struct text *text, const char *name, size_t index, size_t count)
{
    const char *before = index == 0   ? (count > 2 ? "expected one of " : "expected ")
                         : count == 2 ? " or "
                                      : ", ";
    text_printf(text, "%s`%s`", before, name);
}

static int read_variant(struct json_reader *reader, const char *const *variants,
                        struct json_number *ret_number)
{
    reader->index++; /* the quote */
    int r = json_take_string(reader);
    if (r < 0)
        return r;
    size_t count = 0;
    for (; variants[count]; count++)
        if (strlen(variants[count]) == reader->string.length &&
            strcmp(variants[count], reader->string.at) == 0) {
            *ret_number = (struct json_number){count, true};
            return 0;
        }
    CLEANUP_TEXT struct text names = {0};
    for (size_t i = 0; i < count; i++)
        add_name(&names, variants[i], i, count);
    json_fail_value(reader, "unknown variant `%s`, %s", reader->string.at, names.at ? names.at : "");
    return json_place(reader);
}

/* A variant is its name, or {"name": null}. */
static int read_enum(struct json_reader *reader, int byte, const char *const *variants,
                     struct json_number *ret_number)
{
    if (byte == '"')
        return read_variant(reader, variants, ret_number);
    if (byte != '{')
        return json_fail_peek(reader, "expected value");
    int r = json_enter(reader);
    if (r < 0)
        return r;
    struct json_number number;
    int next = json_skip_space(reader);
    if (next < 0)
        return json_fail_peek(reader, "EOF while parsing an object");
    if (next != '"')
        return json_fail_peek(reader, next == '}' ? "expected value" : "key must be a string");
    r = read_variant(reader, variants, &number);
    if (r == 0)
        r = json_colon(reader);
    if (r < 0)
        return r;
    next = json_skip_space(reader);
    if (next < 0)
        return json_fail_peek(reader, "EOF while parsing a value");
    if (next != 'n')
        return json_wrong_type(reader, "unit");
    reader->index++;
    r = json_take_word(reader, "ull");
    if (r < 0)
        return r;
    json_leave(reader);
    next = json_skip_space(reader);
    if (next != '}')
        return json_fail(reader, next < 0 ? "EOF while parsing an object" : "expected value");
    reader->index++;
    *ret_number = number;
    return 0;
}

/* A copy of the string that was read, without the bytes after a NUL: no path or name has one. */
static int copy_string(struct json_reader *reader, char **ret_string)
{
    char *copy = strdup(reader->string.at);
    if (!copy)
        return json_fail(reader, "out of memory");
    free(*ret_string);
    *ret_string = copy;
    return 0;
}

static int read_string(struct json_reader *reader, int byte, const struct json_field *field,
                       char **ret_string)
{
    const char *expected = field->kind == JSON_PATH   ? "path string"
                           : field->kind == JSON_IPV4 ? "IPv4 address"
                                                      : "a string";
    if (byte != '"')
        return json_wrong_type(reader, expected);
    reader->index++;
    int r = json_take_string(reader);
    if (r < 0)
        return r;
    struct in_addr address;
    if (strlen(reader->string.at) != reader->string.length) {
        json_fail_value(reader, "invalid value: a string with a NUL, expected %s", expected);
        return json_place(reader);
    }
    if (field->kind == JSON_IPV4 && inet_pton(AF_INET, reader->string.at, &address) != 1) {
        json_fail_value(reader, "invalid IPv4 address syntax");
        return json_place(reader);
    }
    CLEANUP_FREE char *complaint = field->check ? field->check(reader->string.at) : NULL;
    if (complaint)
        return json_fail_value(reader, "%s", complaint);
    return copy_string(reader, ret_string);
}

/* ---- Lists and maps ---- */

static size_t item_size(const struct json_field *field)
{
    return field->kind == JSON_STRUCTS ? field->of->size
           : field->kind == JSON_MAP   ? sizeof(struct json_pair)
                                       : sizeof(char *);
}

/* A zeroed item at the list's end. */
static void *add_item(struct json_reader *reader, struct json_list *list, size_t size)
{
    if ((list->count & (list->count - 1)) == 0) { /* room for a power of two is full */
        void *grown = reallocarray(list->items, list->count ? list->count * 2 : 1, size);
        if (!grown) {
            json_fail(reader, "out of memory");
            return NULL;
        }
        list->items = grown;
    }
    void *item = (char *)list->items + list->count++ * size;
    memset(item, 0, size);
    return item;
}

static int read_item(struct json_reader *reader, const struct json_field *field, void *item)
{
    int byte = json_skip_space(reader);
    if (byte < 0)
        return json_fail_peek(reader, "EOF while parsing a value");
    if (field->kind == JSON_STRUCTS)
        return read_struct(reader, field->of, item);
    return read_string(reader, byte, field, item);
}

static int read_items(struct json_reader *reader, const struct json_field *field, struct json_list *list)
{
    bool first = true;
    for (;;) {
        bool more;
        int r = json_next_element(reader, &first, &more);
        if (r < 0 || !more)
            return r;
        void *item = add_item(reader, list, item_size(field));
        r = item ? read_item(reader, field, item) : -EINVAL;
        if (r < 0)
            return r;
    }
}

static int read_pairs(struct json_reader *reader, const struct json_field *field, struct json_list *list)
{
    static const struct json_field text = {.kind = JSON_STRING};
    bool first = true;
    for (;;) {
        bool more;
        int r = json_next_key(reader, &first, &more);
        if (r < 0 || !more)
            return r;
        struct json_pair *pair = add_item(reader, list, item_size(field));
        if (!pair)
            return -EINVAL;
        r = read_string(reader, '"', &text, &pair->key);
        if (r == 0)
            r = json_colon(reader);
        if (r < 0)
            return r;
        int byte = json_skip_space(reader);
        if (byte < 0)
            return json_fail_peek(reader, "EOF while parsing a value");
        r = read_string(reader, byte, &text, &pair->value);
        if (r < 0)
            return r;
    }
}

static int read_list(struct json_reader *reader, int byte, const struct json_field *field,
                     struct json_list *list)
{
    bool map = field->kind == JSON_MAP;
    if (byte != (map ? '{' : '['))
        return json_wrong_type(reader, map ? "a map" : "a sequence");
    int r = json_enter(reader);
    if (r < 0)
        return r;
    r = map ? read_pairs(reader, field, list) : read_items(reader, field, list);
    json_leave(reader);
    return map ? json_end_object(reader, r) : json_end_array(reader, r);
}

/* ---- Structures ---- */

static int read_value(struct json_reader *reader, const struct json_field *field, void *to)
{
    int byte = json_skip_space(reader);
    if (byte == 'n' && (field->presence == JSON_OPTIONAL || field->presence == JSON_HIDDEN)) {
        reader->index++;
        return json_take_word(reader, "ull");
    }
    if (byte < 0)
        return json_fail_peek(reader, "EOF while parsing a value");
    switch (field->kind) {
    case JSON_BOOL: return read_bool(reader, byte, to);
    case JSON_U8:
    case JSON_U16:
    case JSON_U32:
    case JSON_U64:
    case JSON_USIZE: return read_integer(reader, byte, field->kind, to);
    case JSON_ENUM: return read_enum(reader, byte, field->variants, to);
    case JSON_STRING:
    case JSON_PATH:
    case JSON_IPV4: return read_string(reader, byte, field, to);
    case JSON_STRINGS:
    case JSON_STRUCTS:
    case JSON_MAP: return read_list(reader, byte, field, to);
    case JSON_STRUCT: break;
    }
    void *object = calloc(1, field->of->size);
    if (!object)
        return json_fail(reader, "out of memory");
    *(void **)to = object;
    return read_struct(reader, field->of, object);
}

static int unknown_field(struct json_reader *reader, const struct json_struct *of)
{
    CLEANUP_TEXT struct text names = {0};
    for (size_t i = 0; i < of->count; i++)
        add_name(&names, of->fields[i].name, i, of->count);
    return json_fail_value(reader, "unknown field `%s`, %s", reader->string.at, names.at ? names.at : "");
}

/* At a key's quote: the key and its value. `seen` has a bit for each field. */
static int read_key(struct json_reader *reader, const struct json_struct *of, void *object, uint64_t *seen)
{
    reader->index++;
    int r = json_take_string(reader);
    if (r < 0)
        return r;
    size_t i = 0;
    while (i < of->count && strcmp(of->fields[i].name, reader->string.at) != 0)
        i++;
    if (i == of->count && !of->others)
        return unknown_field(reader, of);
    if (i < of->count && (*seen & UINT64_C(1) << i))
        return json_fail_value(reader, "duplicate field `%s`", of->fields[i].name);
    r = json_colon(reader);
    if (r < 0)
        return r;
    if (i == of->count)
        return json_ignore(reader);
    *seen |= UINT64_C(1) << i;
    return read_value(reader, &of->fields[i], member(object, &of->fields[i]));
}

/* A field that was not there. */
static void set_fallback(const struct json_field *field, void *object)
{
    if (field->presence == JSON_DEFAULTED && field->kind <= JSON_ENUM)
        *(struct json_number *)member(object, field) = (struct json_number){field->fallback, true};
}

static int read_keys(struct json_reader *reader, const struct json_struct *of, void *object)
{
    uint64_t seen = 0;
    bool first = true, more;
    do {
        int r = json_next_key(reader, &first, &more);
        if (r == 0 && more)
            r = read_key(reader, of, object, &seen);
        if (r < 0)
            return r;
    } while (more);
    for (size_t i = 0; i < of->count; i++) {
        if (seen & UINT64_C(1) << i)
            continue;
        if (of->fields[i].presence == JSON_REQUIRED)
            return json_fail_value(reader, "missing field `%s`", of->fields[i].name);
        set_fallback(&of->fields[i], object);
    }
    return 0;
}

/* serde takes an array for a structure: its fields in their order. */
static int read_positional(struct json_reader *reader, const struct json_struct *of, void *object)
{
    bool first = true;
    for (size_t i = 0; i < of->count; i++) {
        const struct json_field *field = &of->fields[i];
        bool more;
        int r = json_next_element(reader, &first, &more);
        if (r == 0 && more)
            r = read_value(reader, field, member(object, field));
        if (r < 0)
            return r;
        if (more)
            continue;
        if (field->presence != JSON_DEFAULTED && field->presence != JSON_HIDDEN)
            return json_fail_value(reader, "invalid length %zu, expected struct %s with %zu element%s", i,
                                   of->name, of->count, of->count == 1 ? "" : "s");
        set_fallback(field, object);
    }
    return 0;
}

static int read_struct(struct json_reader *reader, const struct json_struct *of, void *object)
{
    int byte = json_skip_space(reader);
    if (byte < 0)
        return json_fail_peek(reader, "EOF while parsing a value");
    if (byte != '{' && byte != '[') {
        char expected[80];
        snprintf(expected, sizeof(expected), "struct %s", of->name);
        return json_wrong_type(reader, expected);
    }
    int r = json_enter(reader);
    if (r < 0)
        return r;
    r = byte == '{' ? read_keys(reader, of, object) : read_positional(reader, of, object);
    json_leave(reader);
    return byte == '{' ? json_end_object(reader, r) : json_end_array(reader, r);
}

int json_read(const void *text, size_t length, const struct json_struct *of, void *object,
              struct json_error *error)
{
    struct json_reader reader = {.text = text, .length = length, .depth = JSON_DEPTH, .error = error};
    memset(object, 0, of->size);
    text_clear(&error->message);
    int r = json_finish(&reader, read_struct(&reader, of, object));
    if (r < 0)
        json_free(of, object);
    return r;
}
