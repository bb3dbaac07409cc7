/* The control socket's JSON: what clients match to the column, and trees of metadata. */
#include "ctl/keys.h"
#include "json_cases.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

TestSuite(json, .timeout = 20);

static const struct json_struct *struct_of(const char *kind)
{
    static const struct {
        const char *kind;
        const struct json_struct *of;
    } kinds[] = {
        {"machine", &keys_machine_struct},         {"update", &keys_machine_update_struct},
        {"boot", &keys_boot_source_struct},        {"drive", &keys_drive_struct},
        {"drivepatch", &keys_drive_update_struct}, {"net", &keys_net_struct},
        {"logger", &keys_logger_struct},           {"metrics", &keys_metrics_struct},
        {"action", &keys_action_struct},           {"mmds", &keys_mmds_config_struct},
    };
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (strcmp(kinds[i].kind, kind) == 0)
            return kinds[i].of;
    return NULL;
}

/* What reading `body` says, in `error` or `written`. The body is copied to where a byte too far is seen. */
static const char *says(const char *kind, const char *body, struct json_error *error, struct text *written)
{
    size_t length = strlen(body);
    CLEANUP_FREE char *exact = malloc(length ? length : 1);
    cr_assert(exact, "no memory");
    memcpy(exact, body, length);
    const struct json_struct *of = struct_of(kind);
    text_clear(written);
    if (of) {
        CLEANUP_FREE void *object = malloc(of->size);
        if (json_read(exact, length, of, object, error) < 0)
            return error->message.at;
        json_write(written, of, object);
        json_free(of, object);
        return "OK";
    }
    struct json_value *value;
    if (json_value_read(exact, length, &value, error) < 0)
        return error->message.at;
    json_value_write(written, value);
    json_value_free(value);
    return written->at;
}

Test(json, says_what_serde_says)
{
    struct json_error error = {0};
    CLEANUP_TEXT struct text written = {0};
    for (size_t i = 0; i < ARRAY_SIZE(json_cases); i++) {
        const struct json_case *want = &json_cases[i];
        cr_expect_str_eq(says(want->kind, want->body, &error, &written), want->says, "case %zu: %s %s", i,
                         want->kind, want->body);
    }
    text_free(&error.message);
}

/* Every structure that reads well is read again from what it is written as, and written the same. */
Test(json, what_is_written_reads_back)
{
    struct json_error error = {0};
    CLEANUP_TEXT struct text first = {0}, second = {0};
    for (size_t i = 0; i < ARRAY_SIZE(json_cases); i++) {
        const struct json_case *tried = &json_cases[i];
        if (strcmp(tried->kind, "update") == 0 ||
            strcmp(says(tried->kind, tried->body, &error, &first), "OK") != 0)
            continue;
        cr_expect_str_eq(says(tried->kind, first.at, &error, &second), "OK", "case %zu: %s", i, first.at);
        cr_expect_str_eq(second.at, first.at, "case %zu", i);
    }
    text_free(&error.message);
}

static void merge_case(const char *target, const char *patch, const char *want)
{
    struct json_error error = {0};
    struct json_value *left, *right;
    cr_assert_eq(json_value_read(target, strlen(target), &left, &error), 0, "%s", target);
    cr_assert_eq(json_value_read(patch, strlen(patch), &right, &error), 0, "%s", patch);
    struct json_value *merged = json_value_merge(left, right);
    CLEANUP_TEXT struct text text = {0};
    json_value_write(&text, merged);
    cr_expect_str_eq(text.at, want, "%s and %s", target, patch);
    json_value_free(merged);
    text_free(&error.message);
}

/* RFC 7396, appendix A. */
Test(json, merges_patches)
{
    merge_case("{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}");
    merge_case("{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}");
    merge_case("{\"a\":\"b\"}", "{\"a\":null}", "{}");
    merge_case("{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}");
    merge_case("{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}");
    merge_case("{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}");
    merge_case("{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}");
    merge_case("[\"a\",\"b\"]", "[\"c\",\"d\"]", "[\"c\",\"d\"]");
    merge_case("{\"a\":\"b\"}", "[\"c\"]", "[\"c\"]");
    merge_case("{\"e\":null}", "{\"a\":1}", "{\"a\":1,\"e\":null}");
    merge_case("[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}");
    merge_case("{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}");
}

/* A thousand levels are refused before they cost stack, and many keys cost no more than their number. */
Test(json, bounds)
{
    struct json_error error = {0};
    struct json_value *value;
    char deep[1000];
    memset(deep, '[', sizeof(deep));
    cr_assert_eq(json_value_read(deep, sizeof(deep), &value, &error), -EINVAL, "a thousand levels");
    cr_assert_str_eq(error.message.at, "recursion limit exceeded at line 1 column 128", "and says so");

    CLEANUP_TEXT struct text many = {0};
    text_puts(&many, "{");
    for (int i = 0; i < 200000; i++)
        text_printf(&many, "%s\"%06d\":0", i ? "," : "", 200000 - i);
    text_puts(&many, "}");
    cr_assert_eq(json_value_read(many.at, many.length, &value, &error), 0, "keys in the worst order");
    json_value_free(value);
    text_free(&error.message);
}
