/* Structures by their tables again: freeing and writing them. */
#include "ctl/json.h"

#include <string.h>

static const void *member_of(const void *object, const struct json_field *field)
{
    return (const char *)object + field->offset;
}

static void free_list(const struct json_field *field, struct json_list *list)
{
    char *item = list->items;
    for (size_t i = 0; i < list->count; i++)
        switch (field->kind) {
        case JSON_STRUCTS: json_free(field->of, item + i * field->of->size); break;
        case JSON_MAP:
            free(((struct json_pair *)list->items)[i].key);
            free(((struct json_pair *)list->items)[i].value);
            break;
        default: free(((char **)list->items)[i]); break;
        }
    free(list->items);
}

void json_free(const struct json_struct *of, void *object)
{
    for (size_t i = 0; i < of->count; i++) {
        const struct json_field *field = &of->fields[i];
        void *at = (char *)object + field->offset;
        switch (field->kind) {
        case JSON_STRING:
        case JSON_PATH:
        case JSON_IPV4: free(*(char **)at); break;
        case JSON_STRUCT:
            if (*(void **)at)
                json_free(field->of, *(void **)at);
            free(*(void **)at);
            break;
        case JSON_STRINGS:
        case JSON_STRUCTS:
        case JSON_MAP: free_list(field, at); break;
        default: break;
        }
    }
    memset(object, 0, of->size);
}

static void write_string(struct text *text, const char *string)
{
    text_json_string(text, string, strlen(string));
}

static void write_list(struct text *text, const struct json_field *field, const struct json_list *list)
{
    bool map = field->kind == JSON_MAP;
    text_puts(text, map ? "{" : "[");
    for (size_t i = 0; i < list->count; i++) {
        if (i > 0)
            text_puts(text, ",");
        if (field->kind == JSON_STRUCTS)
            json_write(text, field->of, (const char *)list->items + i * field->of->size);
        else if (map) {
            const struct json_pair *pair = (const struct json_pair *)list->items + i;
            write_string(text, pair->key);
            text_puts(text, ":");
            write_string(text, pair->value);
        } else
            write_string(text, ((char *const *)list->items)[i]);
    }
    text_puts(text, map ? "}" : "]");
}

static bool is_absent(const struct json_field *field, const void *at)
{
    if (field->kind <= JSON_ENUM)
        return !((const struct json_number *)at)->present;
    return field->kind <= JSON_STRUCT && !*(void *const *)at;
}

static void write_value(struct text *text, const struct json_field *field, const void *at)
{
    const struct json_number *number = at;
    if (is_absent(field, at)) {
        text_puts(text, "null");
        return;
    }
    switch (field->kind) {
    case JSON_BOOL: text_puts(text, number->value ? "true" : "false"); break;
    case JSON_ENUM: write_string(text, field->variants[number->value]); break;
    case JSON_STRING:
    case JSON_PATH:
    case JSON_IPV4: write_string(text, *(char *const *)at); break;
    case JSON_STRUCT: json_write(text, field->of, *(void *const *)at); break;
    case JSON_STRINGS:
    case JSON_STRUCTS:
    case JSON_MAP: write_list(text, field, at); break;
    default: text_printf(text, "%llu", (unsigned long long)number->value); break;
    }
}

void json_write(struct text *text, const struct json_struct *of, const void *object)
{
    bool first = true;
    text_puts(text, "{");
    for (size_t i = 0; i < of->count; i++) {
        const struct json_field *field = &of->fields[i];
        const void *at = member_of(object, field);
        if (field->presence == JSON_HIDDEN && is_absent(field, at))
            continue;
        text_printf(text, "%s\"%s\":", first ? "" : ",", field->name);
        first = false;
        write_value(text, field, at);
    }
    text_puts(text, "}");
}
