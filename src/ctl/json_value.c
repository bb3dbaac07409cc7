/* JSON values as trees. */
#include "ctl/json_reader.h"

#include <string.h>

enum value_kind {
    VALUE_NULL,
    VALUE_FALSE,
    VALUE_TRUE,
    VALUE_NUMBER,
    VALUE_STRING,
    VALUE_ARRAY,
    VALUE_OBJECT
};

struct json_value {
    enum value_kind kind;
    struct text text;                /* a string's bytes, or a number as it is written */
    struct text key;                 /* in an object */
    struct json_value *first, *next; /* children; an object's in order of their keys' bytes */
};

static int read_any(struct json_reader *reader, struct json_value *value);

void json_value_free(struct json_value *value)
{
    if (!value)
        return;
    for (struct json_value *child = value->first, *next; child; child = next) {
        next = child->next;
        json_value_free(child); /* as deep as JSON_DEPTH */
    }
    text_free(&value->text);
    text_free(&value->key);
    free(value);
}

bool json_value_is_null(const struct json_value *value)
{
    return value->kind == VALUE_NULL;
}

static int compare_keys(const struct text *a, const struct text *b)
{
    int order = memcmp(a->at, b->at, MIN(a->length, b->length));
    return order ? order : (a->length > b->length) - (a->length < b->length);
}

/* Two lists in order, put together; of equal keys `later` comes after `earlier`. */
static struct json_value *merge_lists(struct json_value *earlier, struct json_value *later)
{
    struct json_value *merged = NULL, **end = &merged;
    while (earlier && later) {
        struct json_value **from = compare_keys(&earlier->key, &later->key) <= 0 ? &earlier : &later;
        *end = *from;
        *from = (*from)->next;
        end = &(*end)->next;
    }
    *end = earlier ? earlier : later;
    return merged;
}

static struct json_value *sort_members(struct json_value *list)
{
    if (!list || !list->next)
        return list;
    struct json_value *middle = list;
    for (const struct json_value *fast = list->next; fast && fast->next; fast = fast->next->next)
        middle = middle->next;
    struct json_value *second = middle->next;
    middle->next = NULL;
    return merge_lists(sort_members(list), sort_members(second)); /* as deep as the logarithm of the count */
}

/* Puts an object's members in order; of those with the same key the last counts. */
static void order_members(struct json_value *object)
{
    object->first = sort_members(object->first);
    struct json_value **at = &object->first;
    while (*at && (*at)->next) {
        struct json_value *member = *at;
        if (compare_keys(&member->key, &member->next->key) == 0) {
            *at = member->next;
            json_value_free(member);
        } else
            at = &member->next;
    }
}

static struct json_value *new_value(struct json_reader *reader)
{
    struct json_value *value = calloc(1, sizeof(*value));
    if (!value)
        json_fail(reader, "out of memory");
    return value;
}

static int read_elements(struct json_reader *reader, struct json_value *array)
{
    struct json_value **end = &array->first;
    bool first = true;
    for (;;) {
        bool more;
        int r = json_next_element(reader, &first, &more);
        if (r < 0 || !more)
            return r;
        *end = new_value(reader);
        r = *end ? read_any(reader, *end) : -EINVAL;
        if (r < 0)
            return r;
        end = &(*end)->next;
    }
}

static int read_members(struct json_reader *reader, struct json_value *object)
{
    struct json_value **end = &object->first;
    bool first = true;
    for (;;) {
        bool more;
        int r = json_next_key(reader, &first, &more);
        if (r < 0)
            return r;
        if (!more)
            break;
        struct json_value *value = new_value(reader);
        if (!value)
            return -EINVAL;
        *end = value;
        end = &value->next;
        reader->index++;
        r = json_take_string(reader);
        value->key = reader->string;
        reader->string = (struct text){0};
        if (r == 0)
            r = json_colon(reader);
        if (r == 0)
            r = read_any(reader, value);
        if (r < 0)
            return r;
    }
    order_members(object);
    return 0;
}

static int read_number(struct json_reader *reader, struct json_value *value)
{
    struct json_digits digits;
    int r = json_take_number(reader, &digits);
    if (r < 0)
        return r;
    value->kind = VALUE_NUMBER;
    if (digits.kind == JSON_FLOAT)
        text_json_double(&value->text, digits.real);
    else
        text_printf(&value->text, "%s%llu", digits.kind == JSON_SIGNED ? "-" : "",
                    (unsigned long long)digits.magnitude);
    return 0;
}

static int read_container(struct json_reader *reader, bool array, struct json_value *value)
{
    value->kind = array ? VALUE_ARRAY : VALUE_OBJECT;
    int r = json_enter(reader);
    if (r < 0)
        return r;
    r = array ? read_elements(reader, value) : read_members(reader, value);
    json_leave(reader);
    return array ? json_end_array(reader, r) : json_end_object(reader, r);
}

static int read_any(struct json_reader *reader, struct json_value *value)
{
    int byte = json_skip_space(reader), r;
    switch (byte) {
    case -1: return json_fail_peek(reader, "EOF while parsing a value");
    case 'n':
    case 't':
    case 'f':
        reader->index++;
        value->kind = byte == 'n' ? VALUE_NULL : byte == 't' ? VALUE_TRUE : VALUE_FALSE;
        return json_take_word(reader, byte == 'n' ? "ull" : byte == 't' ? "rue" : "alse");
    case '"':
        reader->index++;
        r = json_take_string(reader);
        value->kind = VALUE_STRING;
        value->text = reader->string;
        reader->string = (struct text){0};
        return r;
    case '[':
    case '{': return read_container(reader, byte == '[', value);
    default:
        if (byte == '-' || (byte >= '0' && byte <= '9'))
            return read_number(reader, value);
        return json_fail_peek(reader, "expected value");
    }
}

int json_value_read(const void *text, size_t length, struct json_value **ret_value, struct json_error *error)
{
    struct json_reader reader = {.text = text, .length = length, .depth = JSON_DEPTH, .error = error};
    text_clear(&error->message);
    struct json_value *value = new_value(&reader);
    int r = json_finish(&reader, value ? read_any(&reader, value) : -EINVAL);
    if (r < 0)
        json_value_free(value);
    else
        *ret_value = value;
    return r;
}

void json_value_write(struct text *text, const struct json_value *value)
{
    static const char *const words[] = {
        [VALUE_NULL] = "null", [VALUE_FALSE] = "false", [VALUE_TRUE] = "true"};
    switch (value->kind) {
    case VALUE_NULL:
    case VALUE_FALSE:
    case VALUE_TRUE: text_puts(text, words[value->kind]); return;
    case VALUE_NUMBER: text_add(text, value->text.at, value->text.length); return;
    case VALUE_STRING: text_json_string(text, value->text.at, value->text.length); return;
    default: break;
    }
    bool array = value->kind == VALUE_ARRAY;
    text_puts(text, array ? "[" : "{");
    for (const struct json_value *child = value->first; child; child = child->next) {
        if (child != value->first)
            text_puts(text, ",");
        if (!array) {
            text_json_string(text, child->key.at, child->key.length);
            text_puts(text, ":");
        }
        json_value_write(text, child);
    }
    text_puts(text, array ? "]" : "}");
}

/* Takes null members out of a new object, and of the objects in it: in a patch they say that something
 * goes. */
static void drop_nulls(struct json_value *value)
{
    if (value->kind != VALUE_OBJECT)
        return;
    struct json_value **at = &value->first;
    while (*at) {
        struct json_value *member = *at;
        if (member->kind == VALUE_NULL) {
            *at = member->next;
            json_value_free(member);
        } else {
            drop_nulls(member);
            at = &member->next;
        }
    }
}

/* One of the target's members and the patch's for the same key; takes both. NULL: nothing is left. */
static struct json_value *merge_member(struct json_value *old, struct json_value *change)
{
    if (change->kind == VALUE_NULL) {
        json_value_free(old);
        json_value_free(change);
        return NULL;
    }
    struct text key = old->key;
    old->key = (struct text){0};
    struct json_value *merged = json_value_merge(old, change);
    text_free(&merged->key);
    merged->key = key;
    return merged;
}

/* Takes the first value off a list. */
static struct json_value *take_first(struct json_value **list)
{
    struct json_value *value = *list;
    *list = value->next;
    value->next = NULL;
    return value;
}

struct json_value *json_value_merge(struct json_value *target, struct json_value *patch)
{
    if (patch->kind != VALUE_OBJECT || target->kind != VALUE_OBJECT) {
        json_value_free(target);
        drop_nulls(patch);
        return patch;
    }
    struct json_value *old = target->first, *change = patch->first, **end = &target->first;
    patch->first = NULL;
    while (old || change) {
        int order = !old ? 1 : !change ? -1 : compare_keys(&old->key, &change->key);
        struct json_value *kept;
        if (order < 0)
            kept = take_first(&old);
        else if (order == 0) {
            struct json_value *member = take_first(&old);
            kept = merge_member(member, take_first(&change));
        } else {
            kept = take_first(&change);
            drop_nulls(kept);
            if (kept->kind == VALUE_NULL) {
                json_value_free(kept);
                kept = NULL;
            }
        }
        if (kept) {
            *end = kept;
            end = &kept->next;
        }
    }
    *end = NULL;
    json_value_free(patch);
    return target;
}
