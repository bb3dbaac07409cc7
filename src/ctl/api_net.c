/* Network cards, by Firecracker's requests: each is on a TAP of the host, which is opened at the start. */
#include "ctl/api.h"

#include <stdio.h>
#include <string.h>

static struct keys_net *net_at(const struct ctl *ctl, size_t index)
{
    return (struct keys_net *)ctl->keys.network_interfaces.items + index;
}

/* The card's index, or the count of all. */
static size_t find_net(const struct ctl *ctl, const char *id)
{
    size_t i = 0;
    while (i < ctl->keys.network_interfaces.count && strcmp(net_at(ctl, i)->iface_id, id) != 0)
        i++;
    return i;
}

static void take_bucket(const struct keys_token_bucket *bucket, struct token_bucket_config *in)
{
    if (bucket)
        *in = (struct token_bucket_config){.size = bucket->size.value,
                                           .one_time_burst = bucket->one_time_burst.value,
                                           .refill_time = bucket->refill_time.value};
}

void api_take_limits(const struct keys_rate_limiter *limiter, struct rate_limiter_config *limits)
{
    if (!limiter)
        return;
    take_bucket(limiter->bandwidth, &limits->bandwidth);
    take_bucket(limiter->ops, &limits->ops);
}

static int limits_of(struct api_call *call, const struct keys_rate_limiter *limiter, const char *name,
                     struct rate_limiter_config *in)
{
    if (!limiter)
        return 0;
    api_take_limits(limiter, in);
    int r = rate_limiter_check(in, name);
    return r < 0 ? api_fault(call, r, "Network config error: %s", fail_text()) : 0;
}

/* What the card is to be. */
static int config_of(struct api_call *call, const struct keys_net *from, struct net_config *ret_config)
{
    struct net_config config = {.kind = NET_KIND_TAP, .queues = 1, .mtu = (unsigned)from->mtu.value};
    snprintf(config.id, sizeof(config.id), "%s", from->iface_id);
    int r = net_config_set_target(&config, "host_dev_name", from->host_dev_name);
    if (r == 0 && from->guest_mac) {
        r = net_mac_parse(from->guest_mac, config.mac);
        config.has_mac = true;
    }
    if (r == 0 && from->mtu.present && from->mtu.value < 68)
        r = fail(-EINVAL, "mtu: give a number from 68 to 65535");
    if (r < 0)
        return api_fault(call, r, "Network config error: %s", fail_text());
    r = limits_of(call, from->rx_rate_limiter, "rx_rate_limiter", &config.rx);
    if (r == 0)
        r = limits_of(call, from->tx_rate_limiter, "tx_rate_limiter", &config.tx);
    if (r == 0)
        *ret_config = config;
    return r;
}

int api_build_nets(const struct ctl *ctl, struct config *built)
{
    struct api_call call = {0};
    int r = 0;
    for (size_t i = 0; r == 0 && i < ctl->keys.network_interfaces.count; i++) {
        struct net_config config;
        r = config_of(&call, net_at(ctl, i), &config); /* it was checked when it came */
        if (r == 0)
            r = config_put_net(built, &config);
    }
    text_free(&call.fault);
    return r;
}

int api_put_net(struct api_call *call, void *object)
{
    struct keys_net *net = object;
    struct ctl *ctl = call->ctl;
    struct json_list *list = &ctl->keys.network_interfaces;
    struct net_config unused;
    if (machine_state(ctl->machine) != MACHINE_NOT_STARTED)
        return api_fault(call, -EINVAL, "PCI is not enabled");
    ctl->boot_path = true;
    int r = config_of(call, net, &unused);
    if (r < 0)
        return r;
    size_t index = find_net(ctl, net->iface_id);
    for (size_t i = 0; net->guest_mac && i < list->count; i++)
        if (i != index && net_at(ctl, i)->guest_mac &&
            strcasecmp(net_at(ctl, i)->guest_mac, net->guest_mac) == 0)
            return api_fault(call, -EINVAL, "Network config error: The MAC address is already in use: %s",
                             net->guest_mac);
    if (index == list->count) {
        if (index + ctl->base->net_count >= NET_CONFIG_MAX)
            return api_fault(call, -EINVAL, "Network config error: a VM has at most %u network cards.",
                             NET_CONFIG_MAX);
        void *grown = reallocarray(list->items, list->count + 1, sizeof(*net));
        if (!grown)
            return api_fault(call, -ENOMEM, "out of memory");
        list->items = grown;
        list->count++;
    } else {
        json_free(&keys_net_struct, net_at(ctl, index));
    }
    *net_at(ctl, index) = *net;
    *net = (struct keys_net){0};
    return 0;
}

static void take_limiter(struct keys_rate_limiter **to, struct keys_rate_limiter **from)
{
    if (!*from)
        return;
    if (*to)
        json_free(&keys_rate_limiter_struct, *to);
    free(*to);
    *to = ptr_steal(from);
}

/* A limiter that is left out stays as it is. */
int api_patch_net(struct api_call *call, void *object)
{
    struct keys_net_update *update = object;
    struct ctl *ctl = call->ctl;
    struct rate_limiter_config rx = {0}, tx = {0};
    size_t index = find_net(ctl, update->iface_id);
    if (index == ctl->keys.network_interfaces.count)
        return api_fault(
            call, -EINVAL,
            "Network config error: Unable to update the net device: Failed perform action on device: "
            "Device not found");
    int r = limits_of(call, update->rx_rate_limiter, "rx_rate_limiter", &rx);
    if (r == 0)
        r = limits_of(call, update->tx_rate_limiter, "tx_rate_limiter", &tx);
    if (r < 0)
        return r;
    machine_limit_net(ctl->machine, ctl->unlisted_nets + (unsigned)index,
                      update->rx_rate_limiter ? &rx : NULL, update->tx_rate_limiter ? &tx : NULL);
    take_limiter(&net_at(ctl, index)->rx_rate_limiter, &update->rx_rate_limiter);
    take_limiter(&net_at(ctl, index)->tx_rate_limiter, &update->tx_rate_limiter);
    return 0;
}
