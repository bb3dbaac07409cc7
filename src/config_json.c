/*
 * JSON configuration: the keys of Firecracker's --config-file, so that a file written for it works here. A
 * key that is not known is an error: nothing that somebody asked for is left out in silence.
 */
#include "config.h"

#include <jansson.h>
#include <string.h>

/* What one key of an object does. */
struct key {
    const char *name;
    json_type type;
    int (*take)(struct config *config, const json_t *value);
};

static bool type_matches(const struct key *key, const json_t *value)
{
    if (key->type == JSON_TRUE) /* any boolean */
        return json_is_boolean(value);
    return json_typeof(value) == key->type;
}

static const char *type_name(json_type type)
{
    switch (type) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "a whole number";
    default: return "true or false";
    }
}

/* Runs each member of `object` through its row of `keys`; null is the same as absent. `where` is for
 * messages. */
static int take_members(struct config *config, const json_t *object, const char *where,
                        const struct key *keys, size_t count)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value)
    {
        const struct key *key = NULL;
        for (size_t i = 0; i < count && !key; i++)
            if (strcmp(keys[i].name, name) == 0)
                key = &keys[i];
        if (!key)
            return fail(-EINVAL, "%s: unknown key '%s'", where, name);
        if (json_is_null(value))
            continue;
        if (!type_matches(key, value))
            return fail(-EINVAL, "%s: '%s' must be %s", where, name, type_name(key->type));
        int r = key->take ? key->take(config, value) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

static int take_text(char **field, const json_t *value)
{
    char *copy = strdup(json_string_value(value));
    if (!copy)
        return fail(-ENOMEM, "no memory for the configuration");
    free(*field);
    *field = copy;
    return 0;
}

static int take_kernel(struct config *config, const json_t *value)
{
    return take_text(&config->kernel, value);
}
static int take_initrd(struct config *config, const json_t *value)
{
    return take_text(&config->initrd, value);
}
static int take_boot_args(struct config *config, const json_t *value)
{
    return take_text(&config->cmdline, value);
}

static int take_boot_source(struct config *config, const json_t *value)
{
    static const struct key keys[] = {
        {"kernel_image_path", JSON_STRING, take_kernel},
        {"initrd_path", JSON_STRING, take_initrd},
        {"boot_args", JSON_STRING, take_boot_args},
    };
    return take_members(config, value, "boot-source", keys, ARRAY_SIZE(keys));
}

static int take_cpus(struct config *config, const json_t *value)
{
    json_int_t count = json_integer_value(value);
    if (count < 1 || count > 254)
        return fail(-EINVAL, "machine-config: vcpu_count must be 1 to 254");
    config->cpus = (unsigned)count;
    return 0;
}
static int take_memory(struct config *config, const json_t *value)
{
    json_int_t mebibytes = json_integer_value(value);
    if (mebibytes < 1 || (uint64_t)mebibytes > GUEST_MEM_MAX / MIB)
        return fail(-EINVAL, "machine-config: mem_size_mib must be 1 to %llu",
                    (unsigned long long)(GUEST_MEM_MAX / MIB));
    config->memory = (uint64_t)mebibytes * MIB;
    return 0;
}
static int take_huge_pages(struct config *config, const json_t *value)
{
    static const struct {
        const char *name;
        enum guest_pages pages;
    } kinds[] = {
        {"None", GUEST_PAGES_THP_OFF}, {"Transparent", GUEST_PAGES_THP_ON}, {"2M", GUEST_PAGES_HUGETLB}};
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (strcmp(json_string_value(value), kinds[i].name) == 0) {
            config->pages = kinds[i].pages;
            return 0;
        }
    }
    return fail(-EINVAL, "machine-config: huge_pages must be \"None\", \"Transparent\" or \"2M\"");
}
static int take_smt(struct config *config, const json_t *value)
{
    (void)config;
    return json_is_true(value) ? fail(-EINVAL, "machine-config: smt must be false: every vCPU is a core here")
                               : 0;
}

static int take_machine(struct config *config, const json_t *value)
{
    static const struct key keys[] = {
        {"vcpu_count", JSON_INTEGER, take_cpus},
        {"mem_size_mib", JSON_INTEGER, take_memory},
        {"huge_pages", JSON_STRING, take_huge_pages},
        {"smt", JSON_TRUE, take_smt},
    };
    return take_members(config, value, "machine-config", keys, ARRAY_SIZE(keys));
}

/* A token bucket's or a limiter's members; `in` is what they are taken into. */
static int take_bucket(const json_t *bucket, const char *name, struct token_bucket_config *in)
{
    json_int_t size = 0, burst = 0, refill = 0;
    if (!bucket || json_is_null(bucket))
        return 0;
    if (json_unpack((json_t *)bucket, "{s:I, s?I, s:I !}", "size", &size, "one_time_burst", &burst,
                    "refill_time", &refill) < 0)
        return fail(-EINVAL,
                    "rate_limiter: %s must be {\"size\": N, \"one_time_burst\": N, \"refill_time\": MS}",
                    name);
    if (size < 0 || burst < 0 || refill < 0)
        return fail(-EINVAL, "rate_limiter: %s has a negative number", name);
    *in = (struct token_bucket_config){(uint64_t)size, (uint64_t)burst, (uint64_t)refill};
    return 0;
}

static int take_limiter(const json_t *limiter, struct rate_limiter_config *in)
{
    json_t *bandwidth = NULL, *ops = NULL;
    if (!limiter || json_is_null(limiter))
        return 0;
    if (json_unpack((json_t *)limiter, "{s?o, s?o !}", "bandwidth", &bandwidth, "ops", &ops) < 0)
        return fail(-EINVAL, "rate_limiter: it has bandwidth and ops, and nothing else");
    int r = take_bucket(bandwidth, "bandwidth", &in->bandwidth);
    return r < 0 ? r : take_bucket(ops, "ops", &in->ops);
}

static int take_drive(struct config *config, const json_t *value)
{
    static const struct key keys[] = {
        {"drive_id", JSON_STRING, NULL},     {"path_on_host", JSON_STRING, NULL},
        {"is_root_device", JSON_TRUE, NULL}, {"is_read_only", JSON_TRUE, NULL},
        {"direct", JSON_TRUE, NULL},         {"sector", JSON_INTEGER, NULL},
        {"rate_limiter", JSON_OBJECT, NULL},
    };
    if (!json_is_object(value))
        return fail(-EINVAL, "drives: each must be an object");
    int r = take_members(config, value, "drives", keys, ARRAY_SIZE(keys));
    if (r < 0)
        return r;
    const char *path = json_string_value(json_object_get(value, "path_on_host"));
    if (!path)
        return fail(-EINVAL, "drives: a drive without path_on_host");
    json_int_t sector = json_integer_value(json_object_get(value, "sector"));
    if (sector != 0 && sector != 512 && sector != 4096)
        return fail(-EINVAL, "drives: sector must be 512 or 4096");
    struct drive_config drive = {
        .path = (char *)path,
        .read_only = json_is_true(json_object_get(value, "is_read_only")),
        .direct = json_is_true(json_object_get(value, "direct")),
        .sector = (uint32_t)sector,
    };
    r = take_limiter(json_object_get(value, "rate_limiter"), &drive.limits);
    if (r < 0)
        return r;
    return config_add_drive(config, &drive, json_is_true(json_object_get(value, "is_root_device")));
}

static int take_drives(struct config *config, const json_t *value)
{
    size_t index;
    json_t *drive;
    json_array_foreach(value, index, drive)
    {
        int r = take_drive(config, drive);
        if (r < 0)
            return r;
    }
    return 0;
}

static int take_serial_path(struct config *config, const json_t *value)
{
    config->serial = SERIAL_FILE;
    return take_text(&config->serial_path, value);
}
static int take_serial(struct config *config, const json_t *value)
{
    static const struct key keys[] = {{"serial_out_path", JSON_STRING, take_serial_path}};
    return take_members(config, value, "serial", keys, ARRAY_SIZE(keys));
}

int config_from_json(const char *path, struct config *config)
{
    static const struct key keys[] = {
        {"boot-source", JSON_OBJECT, take_boot_source},
        {"machine-config", JSON_OBJECT, take_machine},
        {"drives", JSON_ARRAY, take_drives},
        {"serial", JSON_OBJECT, take_serial},
    };
    json_error_t error;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return fail(-EINVAL, "%s: line %d, column %d: %s", path, error.line, error.column, error.text);
    int r;
    if (!json_is_object(root))
        r = fail(-EINVAL, "%s: the configuration must be a JSON object", path);
    else
        r = take_members(config, root, path, keys, ARRAY_SIZE(keys));
    json_decref(root);
    return r;
}
