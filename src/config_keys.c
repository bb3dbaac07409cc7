#include "config_keys.h"

#include <string.h>

static bool type_matches(const struct config_key *key, const json_t *value)
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

static bool asks_for_nothing(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return json_object_size(value) == 0;
    case JSON_ARRAY: return json_array_size(value) == 0;
    case JSON_STRING: return strcmp(json_string_value(value), "None") == 0;
    default: return json_is_false(value);
    }
}

int config_take_members(struct config *config, const json_t *object, const char *where,
                        const struct config_key *keys, size_t count)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value)
    {
        const struct config_key *key = NULL;
        for (size_t i = 0; i < count && !key; i++)
            if (strcmp(keys[i].name, name) == 0)
                key = &keys[i];
        if (!key)
            return fail(-EINVAL, "%s: unknown key '%s'", where, name);
        if (json_is_null(value))
            continue;
        if (!type_matches(key, value))
            return fail(-EINVAL, "%s: '%s' must be %s", where, name, type_name(key->type));
        if (key->refusal && !asks_for_nothing(value))
            return fail(-EINVAL, "%s: '%s' %s", where, name, key->refusal);
        int r = key->take ? key->take(config, value) : 0;
        if (r < 0)
            return r;
    }
    return 0;
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

int config_take_limiter(const json_t *limiter, struct rate_limiter_config *in)
{
    json_t *bandwidth = NULL, *ops = NULL;
    if (!limiter || json_is_null(limiter))
        return 0;
    if (json_unpack((json_t *)limiter, "{s?o, s?o !}", "bandwidth", &bandwidth, "ops", &ops) < 0)
        return fail(-EINVAL, "rate_limiter: it has bandwidth and ops, and nothing else");
    int r = take_bucket(bandwidth, "bandwidth", &in->bandwidth);
    return r < 0 ? r : take_bucket(ops, "ops", &in->ops);
}
