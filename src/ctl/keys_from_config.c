/* From a configuration that did not come by requests to the keys that tell of it: of a command line, and of a
 * snapshot. */
#include "ctl/api.h"

#include <stdio.h>
#include <string.h>

static int no_memory(void)
{
    return fail(-ENOMEM, "no memory for the configuration");
}

static int take_machine(const struct config *config, struct keys_config *keys)
{
    if (!keys->machine_config)
        keys->machine_config = calloc(1, sizeof(*keys->machine_config));
    if (!keys->machine_config)
        return no_memory();
    *keys->machine_config = (struct keys_machine){
        .vcpu_count = {config->cpus, true},
        .mem_size_mib = {config->memory / MIB, true},
        .smt = {false, true},
        .track_dirty_pages = {false, true},
        .huge_pages = {config->pages == GUEST_PAGES_HUGETLB ? KEYS_HUGE_2M : KEYS_HUGE_NONE, true},
    };
    return 0;
}

static int take_boot(const struct config *config, struct keys_config *keys)
{
    struct keys_boot_source *boot = calloc(1, sizeof(*boot));
    if (!boot)
        return no_memory();
    keys->boot_source = boot;
    int r = api_set_text(&boot->kernel_image_path, config->kernel ? config->kernel : "");
    if (r == 0)
        r = api_set_text(&boot->initrd_path, config->initrd);
    return r == 0 ? api_set_text(&boot->boot_args, config->cmdline) : r;
}

static int take_drives(const struct config *config, struct keys_config *keys)
{
    keys->drives.items = calloc(config->drive_count ? config->drive_count : 1, sizeof(struct keys_drive));
    if (!keys->drives.items)
        return no_memory();
    for (unsigned i = 0; i < config->drive_count; i++) {
        const struct drive_config *from = &config->drives[i];
        struct keys_drive *drive = (struct keys_drive *)keys->drives.items + i;
        bool root = i == 0 && config->has_rootfs;
        char id[16];
        snprintf(id, sizeof(id), root ? "rootfs" : "disk%u", i);
        *drive = (struct keys_drive){.is_root_device = {root, true},
                                     .cache_type = {1, true},
                                     .is_read_only = {from->read_only, true},
                                     .io_engine = {0, true},
                                     .given = from};
        keys->drives.count++;
        int r = api_set_text(&drive->path_on_host, from->path);
        if (r == 0)
            r = api_set_text(&drive->drive_id, from->id ? from->id : id);
        if (r < 0)
            return r;
    }
    return 0;
}

static int take_vsock(const struct config *config, struct keys_config *keys)
{
    if (!config->vsock.path)
        return 0;
    keys->vsock = calloc(1, sizeof(*keys->vsock));
    if (!keys->vsock)
        return no_memory();
    keys->vsock->guest_cid = (struct json_number){config->vsock.cid, true};
    return api_set_text(&keys->vsock->uds_path, config->vsock.path);
}

int api_take_config(const struct config *config, struct keys_config *keys)
{
    int r = take_machine(config, keys);
    if (r == 0)
        r = take_vsock(config, keys);
    if (r == 0 && (config->kernel || config->snapshot)) {
        r = take_boot(config, keys);
        if (r == 0)
            r = take_drives(config, keys);
    }
    return r;
}

int api_take_nets(const struct config *config, struct keys_config *keys)
{
    keys->network_interfaces.items =
        calloc(config->net_count ? config->net_count : 1, sizeof(struct keys_net));
    if (!keys->network_interfaces.items)
        return no_memory();
    for (unsigned i = 0; i < config->net_count; i++) {
        const struct net_config *from = &config->nets[i];
        struct keys_net *net = (struct keys_net *)keys->network_interfaces.items + i;
        char id[16], mac[18];
        snprintf(id, sizeof(id), "net%u", i);
        snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", from->mac[0], from->mac[1], from->mac[2],
                 from->mac[3], from->mac[4], from->mac[5]);
        if (from->mtu)
            net->mtu = (struct json_number){from->mtu, true};
        keys->network_interfaces.count++;
        int r = api_set_text(&net->iface_id, from->id[0] ? from->id : id);
        if (r == 0)
            r = api_set_text(&net->host_dev_name, from->target);
        if (r == 0)
            r = api_set_text(&net->guest_mac, mac);
        if (r < 0)
            return r;
    }
    return 0;
}

int api_take_balloon(const struct config *config, struct keys_config *keys)
{
    const struct balloon_config *from = &config->balloon;
    if (from->off || !from->target) /* as a machine whose user asked for none */
        return 0;
    keys->balloon = calloc(1, sizeof(*keys->balloon));
    if (!keys->balloon)
        return no_memory();
    *keys->balloon = (struct keys_balloon){.amount_mib = {from->target / MIB, true},
                                           .deflate_on_oom = {from->deflate_on_oom, true},
                                           .stats_polling_interval_s = {from->stats_seconds, true},
                                           .free_page_hinting = {from->hinting, true},
                                           .free_page_reporting = {from->reporting, true}};
    return 0;
}
