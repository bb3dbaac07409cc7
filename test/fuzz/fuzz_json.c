/* JSON bodies: every structure of the control socket reads any bytes, and what reads well is written and read
 * again as the same. The first byte chooses the structure. */
#include "ctl/keys.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_struct(const struct json_struct *of, const char *bytes, size_t length,
                        struct json_error *error)
{
    CLEANUP_TEXT struct text first = {0}, second = {0};
    void *object = malloc(of->size);
    if (!object)
        return;
    if (json_read(bytes, length, of, object, error) == 0) {
        json_write(&first, of, object);
        json_free(of, object);
        if (of != &keys_machine_update_struct) { /* which is written without what it does not change */
            CHECK(json_read(first.at, first.length, of, object, error) == 0);
            json_write(&second, of, object);
            CHECK(first.length == second.length && memcmp(first.at, second.at, first.length) == 0);
            json_free(of, object);
        }
    } else
        CHECK(error->message.length > 0 && error->line > 0);
    free(object);
}

static void read_value(const char *bytes, size_t length, struct json_error *error)
{
    CLEANUP_TEXT struct text text = {0};
    struct json_value *value, *patch;
    if (json_value_read(bytes, length, &value, error) < 0)
        return;
    json_value_write(&text, value);
    /* The largest doubles do not read back: serde_json rounds twice, and so does this reader. */
    if (json_value_read(text.at, text.length, &patch, error) == 0)
        json_value_free(json_value_merge(value, patch));
    else
        json_value_free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct json_struct *const structs[] = {
        &keys_machine_struct, &keys_machine_update_struct, &keys_boot_source_struct, &keys_drive_struct,
        &keys_net_struct,     &keys_logger_struct,         &keys_metrics_struct,     &keys_mmds_config_struct,
        &keys_cpu_struct,     &keys_snapshot_load_struct,  &keys_config_struct,
    };
    if (size == 0)
        return 0;
    char *bytes = malloc(size); /* of its own size, so that a byte too far is seen */
    if (!bytes)
        return 0;
    memcpy(bytes, data + 1, size - 1);
    struct json_error error = {0};
    size_t which = data[0] % (ARRAY_SIZE(structs) + 1);
    if (which == ARRAY_SIZE(structs))
        read_value(bytes, size - 1, &error);
    else
        read_struct(structs[which], bytes, size - 1, &error);
    text_free(&error.message);
    free(bytes);
    return 0;
}
