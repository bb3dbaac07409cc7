/* The metadata store. Its guest's side needs a network device. */
#include "ctl/api.h"

#include <arpa/inet.h>
#include <string.h>

/* A VM that runs has a store if its guest can read it. */
static int check_store(struct api_call *call)
{
    const struct ctl *ctl = call->ctl;
    if (ctl->keys.mmds_config || machine_state(ctl->machine) == MACHINE_NOT_STARTED)
        return 0;
    return api_fault(call, -EINVAL, "MMDS error: The MMDS data store is not initialized.");
}

int api_get_mmds(struct api_call *call, void *object)
{
    (void)object;
    const struct json_value *metadata = call->ctl->metadata;
    int r = check_store(call);
    if (r < 0)
        return r;
    if (metadata && !json_value_is_null(metadata))
        json_value_write(&call->body, metadata);
    else
        text_puts(&call->body, "{}");
    return 0;
}

/* The body as a tree. */
static int read_body(struct api_call *call, struct json_value **ret_value)
{
    struct json_error error = {0};
    int r = json_value_read(call->request->body, call->request->body_length, ret_value, &error);
    if (r < 0)
        api_fault(call, r, "An error occurred when deserializing the json body of a request: %s.",
                  error.message.at ? error.message.at : "out of memory");
    text_free(&error.message);
    return r;
}

static int check_size(struct api_call *call, const struct json_value *value)
{
    CLEANUP_TEXT struct text text = {0};
    json_value_write(&text, value);
    if (text.failed || text.length > call->ctl->config.metadata_max)
        return api_fault(call, -E2BIG, "MMDS limit exceeded error: The MMDS patch request doesn't fit.");
    return 0;
}

int api_put_mmds(struct api_call *call, void *object)
{
    (void)object;
    if (call->id)
        return api_fault(call, -EINVAL, "Unrecognized PUT request path `%s`.", call->id);
    struct json_value *value;
    int r = read_body(call, &value);
    if (r < 0)
        return r;
    r = check_store(call);
    if (r == 0)
        r = check_size(call, value);
    if (r < 0) {
        json_value_free(value);
        return r;
    }
    json_value_free(call->ctl->metadata);
    call->ctl->metadata = value;
    return 0;
}

/* A copy, by what it is written as. */
static struct json_value *copy(const struct json_value *value)
{
    CLEANUP_TEXT struct text text = {0};
    struct json_value *copied = NULL;
    struct json_error error = {0};
    json_value_write(&text, value);
    if (text.failed || json_value_read(text.at, text.length, &copied, &error) < 0)
        copied = NULL;
    text_free(&error.message);
    return copied;
}

int api_patch_mmds(struct api_call *call, void *object)
{
    (void)object;
    struct ctl *ctl = call->ctl;
    struct json_value *patch;
    int r = read_body(call, &patch);
    if (r < 0)
        return r;
    struct json_value *target = ctl->metadata ? copy(ctl->metadata) : NULL;
    if (!target) {
        json_value_free(patch);
        return api_fault(call, -EINVAL, "MMDS error: The MMDS data store is not initialized.");
    }
    struct json_value *merged = json_value_merge(target, patch);
    r = check_size(call, merged);
    if (r < 0) {
        json_value_free(merged);
        return r;
    }
    json_value_free(ctl->metadata);
    ctl->metadata = merged;
    return 0;
}

static bool has_interface(const struct ctl *ctl, const char *id)
{
    const struct json_list *list = &ctl->keys.network_interfaces;
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(((const struct keys_net *)list->items)[i].iface_id, id) == 0)
            return true;
    return false;
}

/* Link-local, and not of the first or the last 256 addresses, which RFC 3927 keeps. */
static bool is_link_local(const char *text)
{
    struct in_addr address;
    if (inet_pton(AF_INET, text, &address) != 1)
        return false;
    uint32_t value = ntohl(address.s_addr);
    return value >> 16 == 0xa9fe && (value >> 8 & 0xff) >= 1 && (value >> 8 & 0xff) <= 254;
}

int api_put_mmds_config(struct api_call *call, void *object)
{
    struct keys_mmds_config *wanted = object;
    struct ctl *ctl = call->ctl;
    ctl->boot_path = true;
    if (wanted->ipv4_address && !is_link_local(wanted->ipv4_address))
        return api_fault(call, -EINVAL, "MMMDS config error: The MMDS IPv4 address is not link local.");
    if (wanted->network_interfaces.count == 0)
        return api_fault(
            call, -EINVAL,
            "MMMDS config error: The list of network interface IDs that allow forwarding MMDS requests is "
            "empty.");
    for (size_t i = 0; i < wanted->network_interfaces.count; i++)
        if (!has_interface(ctl, ((char **)wanted->network_interfaces.items)[i]))
            return api_fault(
                call, -EINVAL,
                "MMMDS config error: The list of network interface IDs provided contains at least one ID "
                "that does not correspond to any existing network interface.");
    return api_fault(call, -EINVAL, "The requested operation is not supported: the guest's side of MMDS.");
}
