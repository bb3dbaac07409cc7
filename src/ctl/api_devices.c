/* The devices that are neither drives nor cards. What this build does not have is refused with words that say
 * so. */
#include "ctl/api.h"

bool api_limits(const struct keys_token_bucket *bucket)
{
    return bucket && bucket->size.value && bucket->refill_time.value;
}

bool api_is_limited(const struct keys_rate_limiter *limiter)
{
    return limiter && (api_limits(limiter->bandwidth) || api_limits(limiter->ops));
}

static int no_limiter(struct api_call *call, const char *what)
{
    return api_fault(call, -EINVAL, "The requested operation is not supported: a rate limiter of %s.", what);
}

int api_put_entropy(struct api_call *call, void *object)
{
    struct keys_entropy *wanted = object;
    struct ctl *ctl = call->ctl;
    ctl->boot_path = true;
    if (api_is_limited(wanted->rate_limiter))
        return no_limiter(call, "the entropy device");
    if (!ctl->keys.entropy)
        ctl->keys.entropy = calloc(1, sizeof(*ctl->keys.entropy));
    return ctl->keys.entropy ? 0 : api_fault(call, -ENOMEM, "out of memory");
}

int api_put_serial(struct api_call *call, void *object)
{
    struct keys_serial *wanted = object;
    struct ctl *ctl = call->ctl;
    if (api_limits(wanted->rate_limiter))
        return no_limiter(call, "the serial console");
    json_free(&keys_serial_struct, &ctl->serial);
    ctl->serial = *wanted;
    *wanted = (struct keys_serial){0};
    return 0;
}

int api_put_pmem(struct api_call *call, void *object)
{
    (void)object;
    return api_fault(call, -EINVAL, "The requested operation is not supported: pmem devices.");
}

int api_put_memory_hotplug(struct api_call *call, void *object)
{
    (void)object;
    return api_fault(call, -EINVAL, "The requested operation is not supported: memory hotplug.");
}

int api_unplug(struct api_call *call, void *object)
{
    (void)object;
    return api_fault(call, -EINVAL, "PCI is not enabled");
}
