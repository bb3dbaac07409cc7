/* Token buckets in a time of the test's own. */
#include "base/rate_limiter.h"

#include <criterion/criterion.h>

#define MS UINT64_C(1000000)
#define S  (1000 * MS)

TestSuite(rate_limiter, .timeout = 10);

static struct rate_limiter limiter;
static uint64_t now;

static void limit(uint64_t size, uint64_t burst, uint64_t refill, bool ops)
{
    const struct token_bucket_config bucket = {size, burst, refill};
    struct rate_limiter_config config = {0};
    *(ops ? &config.ops : &config.bandwidth) = bucket;
    cr_assert(rate_limiter_check(&config, "test") == 0, "%s", fail_text());
    now = 5 * S;
    rate_limiter_init(&limiter, &config, now);
}

/* Asks for `bytes` until it goes, at the times that it is told, each `late` nanoseconds late. */
static void take_late(uint64_t bytes, uint64_t late)
{
    uint64_t wait = rate_limiter_take(&limiter, bytes, now);
    while (wait > 0) {
        now += wait + late;
        wait = rate_limiter_take(&limiter, bytes, now);
    }
}

/* Requests that go at once. */
static unsigned burst_of(uint64_t bytes, unsigned most)
{
    unsigned count = 0;
    while (count < most && rate_limiter_take(&limiter, bytes, now) == 0)
        count++;
    rate_limiter_forget(&limiter);
    return count;
}

Test(rate_limiter, a_thousand_a_second_whatever_the_refill)
{
    static const uint64_t refills[] = {1, 2, 7, 10, 100, 333, 1000};
    for (size_t i = 0; i < ARRAY_SIZE(refills); i++) {
        limit(refills[i], 0, refills[i], true);
        cr_assert_eq(burst_of(0, 2000), refills[i], "the bucket is not full at first");
        uint64_t start = now;
        for (unsigned n = 0; n < 10000; n++)
            take_late(0, 0);
        cr_assert_eq(now - start, 10 * S, "refill %llu ms: 10,000 took %llu ns",
                     (unsigned long long)refills[i], (unsigned long long)(now - start));
    }
}

Test(rate_limiter, a_late_timer_costs_nothing)
{
    static const uint64_t lates[] = {50000, 900000, 3 * MS, 40 * MS};
    for (size_t i = 0; i < ARRAY_SIZE(lates); i++) {
        limit(1, 0, 1, true);
        take_late(0, 0);
        uint64_t start = now;
        for (unsigned n = 0; n < 10000; n++)
            take_late(0, lates[i]);
        uint64_t took = now - start;
        cr_assert(took >= 10 * S && took <= 10 * S + lates[i], "%llu ns late: 10,000 took %llu ns",
                  (unsigned long long)lates[i], (unsigned long long)took);
    }
}

Test(rate_limiter, bandwidth_is_exact_for_unequal_requests)
{
    limit(1000003, 0, 100, false);
    burst_of(1, 2000000);
    uint64_t start = now, bytes = 0;
    for (unsigned n = 0; n < 2000; n++) {
        uint64_t length = 512 + n * UINT64_C(7919) % 131072;
        take_late(length, n % 3 * 70000);
        bytes += length;
    }
    double rate = (double)bytes / ((double)(now - start) / 1e9);
    cr_assert(rate > 10000030 * 0.9999 && rate < 10000030 * 1.0001, "%.0f bytes a second", rate);
}

Test(rate_limiter, the_burst_is_exact_and_comes_once)
{
    limit(100, 250, 1000, true);
    cr_assert_eq(burst_of(0, 1000), 350, "not the burst and the bucket");
    now += 10 * S;
    cr_assert_eq(burst_of(0, 1000), 100, "a burst again, or a bucket that is not full");
    now += S / 2;
    cr_assert_eq(burst_of(0, 1000), 50, "half a refill is not half a bucket");
}

Test(rate_limiter, nothing_is_saved_up_while_none_waits)
{
    limit(1, 0, 1, true);
    take_late(0, 0);
    take_late(0, 0); /* waits */
    now += 99 * MS;
    cr_assert_eq(burst_of(0, 1000), 1, "idle time became a burst");
}

Test(rate_limiter, a_process_that_was_stopped_gets_no_burst)
{
    limit(1000, 0, 1000, true);
    burst_of(0, 1000);
    cr_assert_eq(rate_limiter_take(&limiter, 0, now), MS, "not a millisecond to wait");
    now += 3600 * S;
    cr_assert_eq(burst_of(0, 5000), 1100, "more than the bucket and a tenth of a second");
}

Test(rate_limiter, a_request_larger_than_the_bucket_goes_and_is_paid_for)
{
    limit(1000, 0, 1000, false);
    cr_assert_eq(rate_limiter_take(&limiter, 5000, now), 0, "it does not go when the bucket is full");
    cr_assert_eq(rate_limiter_take(&limiter, 1, now), 4001 * MS, "its debt is forgotten");
    rate_limiter_forget(&limiter);
    uint64_t start = now;
    take_late(5000, 0);
    cr_assert_eq(now - start, 5 * S, "not when the bucket is full again");
}

Test(rate_limiter, a_request_takes_of_both_buckets_or_of_none)
{
    const struct rate_limiter_config config = {.bandwidth = {1000, 0, 1000}, .ops = {10, 0, 1000}};
    now = S;
    rate_limiter_init(&limiter, &config, now);
    cr_assert_eq(rate_limiter_take(&limiter, 1000, now), 0, "it does not go");
    for (unsigned n = 0; n < 50; n++)
        cr_assert(rate_limiter_take(&limiter, 1, now) > 0, "without bandwidth it goes");
    cr_assert_eq(burst_of(0, 100), 9, "operations were taken by requests that did not go");
}

Test(rate_limiter, counts_what_was_held_back_and_for_how_long)
{
    limit(1, 0, 10, true);
    take_late(111, 0);
    take_late(222, 0);
    now += 5 * MS;
    take_late(333, 1 * MS);
    cr_assert(limiter.held_requests == 2 && limiter.held_bytes == 555 && limiter.held_ns == 16 * MS,
              "%llu requests, %llu bytes, %llu ns", (unsigned long long)limiter.held_requests,
              (unsigned long long)limiter.held_bytes, (unsigned long long)limiter.held_ns);
}

Test(rate_limiter, no_limit_is_no_limit)
{
    const struct rate_limiter_config rows[] = {
        {.ops = {0, 0, 0}}, {.ops = {0, 5, 100}}, {.ops = {100, 0, 0}}, {.bandwidth = {100, 3, 0}}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        cr_assert(!rate_limiter_limits(&rows[i]), "row %zu limits", i);
        rate_limiter_init(&limiter, &rows[i], 0);
        cr_assert_eq(burst_of(1 << 20, 10000), 10000, "row %zu holds back", i);
    }
}

Test(rate_limiter, the_largest_numbers_do_not_overflow)
{
    const struct token_bucket_config largest = {INT64_MAX, INT64_MAX, UINT64_C(366) * 24 * 3600 * 1000};
    const struct rate_limiter_config config = {largest, largest};
    cr_assert(rate_limiter_check(&config, "x") == 0, "%s", fail_text());
    rate_limiter_init(&limiter, &config, 0);
    cr_assert(rate_limiter_take(&limiter, UINT32_MAX, UINT64_MAX / 2) == 0, "held back");
    cr_assert(rate_limiter_take(&limiter, UINT32_MAX, UINT64_MAX) == 0, "held back");
    const struct rate_limiter_config too_large[] = {
        {.ops = {UINT64_C(1) << 63, 0, 1}}, {.ops = {1, UINT64_MAX, 1}}, {.bandwidth = {1, 0, UINT64_MAX}}};
    for (size_t i = 0; i < ARRAY_SIZE(too_large); i++)
        cr_assert(rate_limiter_check(&too_large[i], "x") == -EINVAL, "row %zu accepted", i);
}

Test(rate_limiter, other_limits_take_effect_and_counters_go_on)
{
    limit(1, 0, 1000, true);
    take_late(0, 0);
    take_late(0, 0);
    cr_assert(rate_limiter_take(&limiter, 0, now) > 0, "goes");
    const struct rate_limiter_config other = {.ops = {50, 0, 1000}};
    rate_limiter_set(&limiter, &other, now);
    cr_assert_eq(burst_of(0, 100), 50, "not the new bucket");
    cr_assert_eq(limiter.held_requests, 2, "%llu held", (unsigned long long)limiter.held_requests);
}
