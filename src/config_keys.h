/* Tables of keys, for the sections of a JSON configuration: config_json.c and the kinds of devices. */
#pragma once

#include "config.h"

#include <jansson.h>

/* What one key of an object does. */
struct config_key {
    const char *name;
    json_type type; /* JSON_TRUE: any boolean */
    /* Puts the value into `config`; -EINVAL with a message. NULL: the value changes nothing, or is looked at
     * by who takes the object. */
    int (*take)(struct config *config, const json_t *value);
    /* Why the key is refused, unless its value asks for nothing: empty, false or "None". NULL: it is
     * taken. */
    const char *refusal;
};

/* Runs each member of `object` through its row of `keys`; null is the same as absent. `where` is for
 * messages. */
int config_take_members(struct config *config, const json_t *object, const char *where,
                        const struct config_key *keys, size_t count);

/* A rate_limiter's members; NULL and null change nothing. */
int config_take_limiter(const json_t *limiter, struct rate_limiter_config *in);
