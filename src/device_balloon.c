/* The balloon. Every machine has one, for free page reporting, unless its user wants none. */
#include "dev/virtio_balloon.h"
#include "devices.h"

#include <string.h>

/* ---- The command line ---- */

enum { OPTION_BALLOON = 0x280 };

static const struct argp_option options[] = {
    {"balloon", OPTION_BALLOON, "SIZE[,deflate-on-oom=off][,reporting=off][,hinting=on][,stats=SECONDS]|off",
     0,
     "take SIZE of the memory away from the guest (default 0); what the guest frees comes back to the host "
     "by "
     "itself, unless reporting is off; hinting: free memory may be asked for by the control socket; stats: "
     "ask the "
     "guest for statistics so often; off: no such device",
     2},
    {0},
};

static int parse_seconds(const char *text, unsigned *ret_seconds)
{
    char *end = NULL;
    errno = 0;
    unsigned long seconds = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || seconds > UINT16_MAX)
        return fail(-EINVAL, "stats=%s: give seconds, at most 65535", text);
    *ret_seconds = (unsigned)seconds;
    return 0;
}

static int take_word(struct balloon_config *balloon, const char *word)
{
    if (strcmp(word, "deflate-on-oom=off") == 0)
        balloon->deflate_on_oom = false;
    else if (strcmp(word, "reporting=off") == 0)
        balloon->reporting = false;
    else if (strcmp(word, "hinting=on") == 0)
        balloon->hinting = true;
    else if (strncmp(word, "stats=", 6) == 0)
        return parse_seconds(word + 6, &balloon->stats_seconds);
    else if (strcmp(word, "deflate-on-oom=on") != 0 && strcmp(word, "reporting=on") != 0 &&
             strcmp(word, "hinting=off") != 0)
        return fail(-EINVAL,
                    "--balloon: '%s' is not known: give deflate-on-oom=off, reporting=off, hinting=on or "
                    "stats=SECONDS",
                    word);
    return 0;
}

static int set_balloon(struct balloon_config *balloon, const char *argument)
{
    CLEANUP_FREE char *copy = strdup(argument);
    if (!copy)
        return fail(-ENOMEM, "no memory for the configuration");
    config_balloon_default(balloon);
    char *rest = copy, *size = strsep(&rest, ",");
    if (strcmp(argument, "off") == 0) {
        balloon->off = true;
        return 0;
    }
    int r = size_parse(size, &balloon->target);
    while (r == 0 && rest)
        r = take_word(balloon, strsep(&rest, ","));
    return r;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct config *config = state->input;
    return key == OPTION_BALLOON ? -set_balloon(&config->balloon, argument) : ARGP_ERR_UNKNOWN;
}

static const struct argp argp = {.options = options, .parser = parse_option};

/* ---- A configuration file ---- */

static int take_section(struct config *config, const json_t *value)
{
    static const struct config_key keys[] = {
        {"amount_mib", JSON_INTEGER, NULL, NULL},
        {"deflate_on_oom", JSON_TRUE, NULL, NULL},
        {"stats_polling_interval_s", JSON_INTEGER, NULL, NULL},
        {"free_page_hinting", JSON_TRUE, NULL, NULL},
        {"free_page_reporting", JSON_TRUE, NULL, NULL},
    };
    int r = config_take_members(config, value, "balloon", keys, ARRAY_SIZE(keys));
    if (r < 0)
        return r;
    const json_t *amount = json_object_get(value, "amount_mib");
    const json_t *deflate = json_object_get(value, "deflate_on_oom");
    json_int_t seconds = json_integer_value(json_object_get(value, "stats_polling_interval_s"));
    if (!json_is_integer(amount) || !json_is_boolean(deflate))
        return fail(-EINVAL, "balloon: it needs amount_mib and deflate_on_oom");
    if (json_integer_value(amount) < 0 || json_integer_value(amount) > UINT32_MAX)
        return fail(-EINVAL, "balloon: amount_mib must be 0 to %u", UINT32_MAX);
    if (seconds < 0 || seconds > UINT16_MAX)
        return fail(-EINVAL, "balloon: stats_polling_interval_s must be 0 to %u", UINT16_MAX);
    config->balloon = (struct balloon_config){
        .target = (uint64_t)json_integer_value(amount) * MIB,
        .deflate_on_oom = json_is_true(deflate),
        .reporting = json_is_true(json_object_get(value, "free_page_reporting")),
        .hinting = json_is_true(json_object_get(value, "free_page_hinting")),
        .stats_seconds = (unsigned)seconds,
    };
    return 0;
}

/* ---- The device ---- */

static unsigned count(const struct config *config)
{
    return !config->balloon.off;
}

static int make(struct loop *loop, const struct config *config, unsigned index,
                struct virtio_device **ret_device)
{
    const struct virtio_balloon_options balloon = {
        .target = config->balloon.target,
        .deflate_on_oom = config->balloon.deflate_on_oom,
        /* Of the hugetlb pool nothing can come back (guest_mem_discard): a guest need not tell. One from a
         * snapshot has what it had. */
        .reporting = config->balloon.reporting && (config->pages != GUEST_PAGES_HUGETLB || config->snapshot),
        .hinting = config->balloon.hinting,
        .stats_seconds = config->balloon.stats_seconds,
    };
    (void)index;
    return virtio_balloon_new(loop, &balloon, ret_device);
}

const struct device_kind device_balloon = {
    .section = {"balloon", JSON_OBJECT, take_section, NULL},
    .argp = &argp,
    .count = count,
    .make = make,
    .always = true,
};
