#include "base/rate_limiter.h"

#include <string.h>

#define NS_PER_MS UINT64_C(1000000)

/* With these a level stays below 2^63 * 2^55 token-nanoseconds. */
#define SIZE_LIMIT    (UINT64_C(1) << 63)
#define REFILL_MAX_MS (UINT64_C(366) * 24 * 3600 * 1000)

/* What a bucket takes in beyond its size for a request that is released late: so much of time. Longer than
 * any delay of the loop, and too short to make a burst of. */
#define LATE_MAX_NS (100 * NS_PER_MS)

/* How long after a release that stays there for the requests behind the released one: time enough to ask, in
 * the same turn of the loop. */
#define LATE_KEPT_NS (10 * NS_PER_MS)

static bool limits(const struct token_bucket_config *config)
{
    return config->size && config->refill_time;
}

bool rate_limiter_limits(const struct rate_limiter_config *config)
{
    return limits(&config->bandwidth) || limits(&config->ops);
}

static int check_bucket(const struct token_bucket_config *config, const char *name, const char *bucket)
{
    if (config->refill_time > REFILL_MAX_MS)
        return fail(-EINVAL, "%s: a %s limit that refills in %llu ms (give at most %llu)", name, bucket,
                    (unsigned long long)config->refill_time, (unsigned long long)REFILL_MAX_MS);
    if (config->size >= SIZE_LIMIT || config->one_time_burst >= SIZE_LIMIT)
        return fail(-EINVAL, "%s: a %s limit of 2^63 or more", name, bucket);
    return 0;
}

int rate_limiter_check(const struct rate_limiter_config *config, const char *name)
{
    int r = check_bucket(&config->bandwidth, name, "bandwidth");
    return r < 0 ? r : check_bucket(&config->ops, name, "ops");
}

int token_bucket_parse(const char *name, const char *text, struct token_bucket_config *ret_bucket)
{
    struct token_bucket_config bucket = {.refill_time = 1000};
    uint64_t *const numbers[] = {&bucket.size, &bucket.one_time_burst, &bucket.refill_time};
    CLEANUP_FREE char *copy = strdup(text);
    char *rest = copy;
    if (!copy)
        return fail(-ENOMEM, "no memory for the configuration");
    for (size_t i = 0; rest && i < ARRAY_SIZE(numbers); i++) {
        const char *word = strsep(&rest, ":");
        if (size_parse(word, numbers[i]) < 0)
            return fail(-EINVAL, "%s=%s: '%s' is no number (give SIZE, SIZE:BURST or SIZE:BURST:MS)", name,
                        text, word);
    }
    if (rest || bucket.size == 0 || bucket.refill_time == 0)
        return fail(-EINVAL, "%s=%s: give SIZE, SIZE:BURST or SIZE:BURST:MS, none of SIZE and MS 0", name,
                    text);
    int r = check_bucket(&bucket, name, name);
    if (r == 0)
        *ret_bucket = bucket;
    return r;
}

static token_level full(const struct token_bucket *bucket)
{
    return (token_level)bucket->size * bucket->refill_ns;
}

static void set_bucket(struct token_bucket *bucket, const struct token_bucket_config *config)
{
    *bucket = (struct token_bucket){
        .size = config->size, .refill_ns = config->refill_time * NS_PER_MS, .burst = config->one_time_burst};
    bucket->level = full(bucket);
}

void rate_limiter_set(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now)
{
    set_bucket(&limiter->bandwidth, &config->bandwidth);
    set_bucket(&limiter->ops, &config->ops);
    limiter->filled_at = now;
}

void rate_limiter_init(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now)
{
    *limiter = (struct rate_limiter){0};
    rate_limiter_set(limiter, config, now);
}

static void fill(struct token_bucket *bucket, uint64_t elapsed, token_level room)
{
    bucket->level += (token_level)bucket->size * elapsed;
    if (bucket->level > room)
        bucket->level = room;
}

/* The most that `bucket` holds at `now`. */
static token_level room_of(const struct rate_limiter *limiter, const struct token_bucket *bucket,
                           uint64_t now)
{
    if (limiter->holding)
        return full(bucket) + (token_level)bucket->size * LATE_MAX_NS;
    bool just_released = limiter->released_at && now - limiter->released_at < LATE_KEPT_NS;
    return just_released ? MAX(full(bucket), bucket->level) : full(bucket);
}

/* Nanoseconds until `tokens` can be taken. */
static uint64_t wait_for(const struct token_bucket *bucket, uint64_t tokens)
{
    if (bucket->size == 0 || bucket->refill_ns == 0 || tokens <= bucket->burst)
        return 0;
    token_level wanted = (token_level)MIN(tokens - bucket->burst, bucket->size) * bucket->refill_ns;
    if (bucket->level >= wanted)
        return 0;
    token_level missing = wanted - bucket->level + bucket->size - 1;
    token_level wait = missing / bucket->size;
    return wait > (token_level)INT64_MAX ? INT64_MAX : (uint64_t)wait;
}

static void take(struct token_bucket *bucket, uint64_t tokens)
{
    uint64_t from_burst = MIN(tokens, bucket->burst);
    bucket->burst -= from_burst;
    if (bucket->size && bucket->refill_ns)
        bucket->level -= (token_level)(tokens - from_burst) * bucket->refill_ns;
}

static void hold(struct rate_limiter *limiter, uint64_t now)
{
    if (limiter->holding)
        return;
    limiter->holding = true;
    limiter->held_since = now;
}

uint64_t rate_limiter_take(struct rate_limiter *limiter, uint64_t bytes, uint64_t now)
{
    uint64_t elapsed = now > limiter->filled_at ? now - limiter->filled_at : 0;
    limiter->filled_at += elapsed;
    fill(&limiter->bandwidth, elapsed, room_of(limiter, &limiter->bandwidth, now));
    fill(&limiter->ops, elapsed, room_of(limiter, &limiter->ops, now));
    uint64_t wait = MAX(wait_for(&limiter->bandwidth, bytes), wait_for(&limiter->ops, 1));
    if (wait > 0) {
        hold(limiter, now);
        return wait;
    }
    take(&limiter->bandwidth, bytes);
    take(&limiter->ops, 1);
    if (limiter->holding) {
        limiter->held_requests++;
        limiter->held_bytes += bytes;
        limiter->held_ns += now - limiter->held_since;
        limiter->released_at = now;
        limiter->holding = false;
    }
    return 0;
}

void rate_limiter_forget(struct rate_limiter *limiter)
{
    limiter->holding = false;
}
