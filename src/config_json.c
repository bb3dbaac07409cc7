/*
 * JSON configuration: the keys of Firecracker's --config-file, so that a file written for it works here. A
 * key that is not known is an error: nothing that somebody asked for is left out in silence.
 */
#include "devices.h"

#include <string.h>

static int take_kernel(struct config *config, const json_t *value)
{
    return config_set_text(&config->kernel, json_string_value(value));
}
static int take_initrd(struct config *config, const json_t *value)
{
    return config_set_text(&config->initrd, json_string_value(value));
}
static int take_boot_args(struct config *config, const json_t *value)
{
    return config_set_text(&config->cmdline, json_string_value(value));
}

static int take_boot_source(struct config *config, const json_t *value)
{
    static const struct config_key keys[] = {
        {"kernel_image_path", JSON_STRING, take_kernel, NULL},
        {"initrd_path", JSON_STRING, take_initrd, NULL},
        {"boot_args", JSON_STRING, take_boot_args, NULL},
    };
    return config_take_members(config, value, "boot-source", keys, ARRAY_SIZE(keys));
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

static int take_machine(struct config *config, const json_t *value)
{
    static const struct config_key keys[] = {
        {"vcpu_count", JSON_INTEGER, take_cpus, NULL},
        {"mem_size_mib", JSON_INTEGER, take_memory, NULL},
        {"huge_pages", JSON_STRING, take_huge_pages, NULL},
        {"smt", JSON_TRUE, NULL, "must be false: every vCPU is a core here"},
        {"cpu_template", JSON_STRING, NULL, "is not there: a guest has the CPU of its host"},
        {"track_dirty_pages", JSON_TRUE, NULL, NULL}, /* of snapshots */
    };
    return config_take_members(config, value, "machine-config", keys, ARRAY_SIZE(keys));
}

static int take_serial_path(struct config *config, const json_t *value)
{
    config->serial = SERIAL_FILE;
    return config_set_text(&config->serial_path, json_string_value(value));
}
static int take_serial(struct config *config, const json_t *value)
{
    static const struct config_key keys[] = {{"serial_out_path", JSON_STRING, take_serial_path, NULL}};
    return config_take_members(config, value, "serial", keys, ARRAY_SIZE(keys));
}

/* Sections of Firecracker's that only the control socket takes. */
#define OTHER(name, type)                                                                                    \
    {                                                                                                        \
        (name), (type), NULL, "is a section for --config-file FILE (with --no-api if no socket is wanted)"   \
    }

static int take_sections(const char *path, const json_t *root, struct config *config)
{
    static const struct config_key own[] = {
        {"boot-source", JSON_OBJECT, take_boot_source, NULL},
        {"machine-config", JSON_OBJECT, take_machine, NULL},
        {"serial", JSON_OBJECT, take_serial, NULL},
        OTHER("cpu-config", JSON_OBJECT),
        OTHER("logger", JSON_OBJECT),
        OTHER("metrics", JSON_OBJECT),
        OTHER("mmds-config", JSON_OBJECT),
        OTHER("entropy", JSON_OBJECT),
        OTHER("pmem", JSON_ARRAY),
        OTHER("memory-hotplug", JSON_OBJECT),
    };
    struct config_key keys[DEVICE_KINDS_MAX + ARRAY_SIZE(own)];
    size_t count = 0;
    /* A device's row comes before the section of that name that only the control socket had. */
    for (const struct device_kind *const *kind = device_kinds; *kind; kind++)
        if ((*kind)->section.name)
            keys[count++] = (*kind)->section;
    memcpy(&keys[count], own, sizeof(own));
    return config_take_members(config, root, path, keys, count + ARRAY_SIZE(own));
}

int config_from_json(const char *path, struct config *config)
{
    json_error_t error;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return fail(-EINVAL, "%s: line %d, column %d: %s", path, error.line, error.column, error.text);
    int r;
    if (!json_is_object(root))
        r = fail(-EINVAL, "%s: the configuration must be a JSON object", path);
    else
        r = take_sections(path, root, config);
    json_decref(root);
    return r;
}
