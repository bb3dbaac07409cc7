/*
 * A rate limiter: two token buckets, one for bytes and one for operations, with Firecracker's names and
 * meaning.
 *
 *   size            tokens that the bucket holds. It is full at first. 0: no limit.
 *   one_time_burst  tokens on top of that, once, which are used first
 *   refill_time     milliseconds in which an empty bucket fills up. 0: no limit.
 *
 * A request takes tokens of both buckets or of none. One that asks for more than a bucket holds goes when the
 * bucket is full, and the bucket is in debt after it: so large requests are as slow as small ones, and none
 * waits for ever.
 *
 * Tokens are counted exactly. While a request waits, its bucket takes in more than it holds: the timer that
 * releases the request is always a little late, and what came in meanwhile is not lost. (With a bucket of one
 * operation a millisecond, a timer 50 us late would otherwise cost 5 % of the rate.)
 *
 * Time is the caller's, in nanoseconds of a clock that only goes forward. No thread, no lock, no allocation.
 */
#pragma once

#include "base/base.h"

struct token_bucket_config {
    uint64_t size, one_time_burst;
    uint64_t refill_time; /* milliseconds */
};

struct rate_limiter_config {
    struct token_bucket_config bandwidth; /* bytes */
    struct token_bucket_config ops;       /* requests */
};

/* "SIZE[:BURST[:MS]]" as people write it, for --disk and --net: `text` in bytes (10M) or requests, refilled
 * in MS milliseconds, 1000 if not given. -EINVAL or -ERANGE with a message that begins with `name`. */
int token_bucket_parse(const char *name, const char *text, struct token_bucket_config *ret_bucket);

/* Levels are token-nanoseconds: tokens times the nanoseconds of a refill. Then a nanosecond brings `size`,
 * and nothing is rounded. */
__extension__ typedef __int128 token_level;

struct token_bucket {
    uint64_t size, refill_ns; /* either is 0: no limit */
    uint64_t burst;           /* what is left of it, in tokens */
    token_level level;        /* negative: in debt */
};

struct rate_limiter {
    struct token_bucket bandwidth, ops;
    uint64_t filled_at;   /* when the levels were last brought up to date */
    uint64_t held_since;  /* when the request that waits was first held back */
    uint64_t released_at; /* when the last one that waited went; 0: none did */
    bool holding;         /* a request waits */

    /* Counters, never reset. */
    uint64_t held_requests; /* requests that were held back */
    uint64_t held_bytes;    /* what they carried */
    uint64_t held_ns;       /* time in which one was held back */
};

/* True if either bucket limits anything. */
bool rate_limiter_limits(const struct rate_limiter_config *config);

/* -EINVAL with a message that begins with `name` if a bucket's numbers are too large to be counted: a refill
 * of more than a year, or a size or burst of 2^63 or more. */
int rate_limiter_check(const struct rate_limiter_config *config, const char *name);

/* A limiter with full buckets; `config` was checked. */
void rate_limiter_init(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now);

/* Other limits from now on: buckets are full again and the counters go on. A request that waits is to ask
 * again. */
void rate_limiter_set(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now);

/*
 * A request of `bytes` asks to go. 0: it goes, and its tokens are taken. Otherwise it is held back, and the
 * result is the nanoseconds after which it can go: it asks again then. Requests that share a limiter ask in
 * their order: the one that waits asks first.
 */
uint64_t rate_limiter_take(struct rate_limiter *limiter, uint64_t bytes, uint64_t now);

/* The request that waits has gone away (its queue was reset). */
void rate_limiter_forget(struct rate_limiter *limiter);
