#include "snapshot_config.h"

#include "vcpu/vcpu.h"

#include <string.h>

/* Longer than any path, and than a command line. */
#define TEXT_MAX 8192u

/* NULL is another value than "". */
static void put_text(struct state_writer *to, const char *text)
{
    uint32_t length = text ? (uint32_t)strlen(text) + 1 : 0;
    state_put(to, &length, sizeof(length));
    state_put(to, text, length);
}

static int get_text(struct state_reader *from, char **ret_text)
{
    uint32_t length;
    int r = state_get(from, &length, sizeof(length));
    if (r < 0 || length == 0)
        return r;
    if (length > TEXT_MAX || length > from->length ||
        memchr(from->bytes, 0, length) != from->bytes + length - 1)
        return fail(-EBADMSG, "saved state has a text that is damaged");
    char *text = malloc(length);
    if (!text)
        return fail(-ENOMEM, "no memory for the configuration");
    memcpy(text, from->bytes, length);
    from->bytes += length;
    from->length -= length;
    free(*ret_text);
    *ret_text = text;
    return 0;
}

/* ---- The machine ---- */

struct machine_state {
    uint64_t memory;
    uint32_t cpus, pages, has_rootfs, zero;
};
_Static_assert(sizeof(struct machine_state) == 24, "no padding");

static int save_machine(const void *owner, struct state_writer *to)
{
    const struct config *config = owner;
    const struct machine_state state = {
        .memory = config->memory,
        .cpus = config->cpus,
        .pages = config->pages,
        .has_rootfs = config->has_rootfs,
    };
    state_put(to, &state, sizeof(state));
    put_text(to, config->kernel);
    put_text(to, config->initrd);
    put_text(to, config->cmdline);
    put_text(to, config->append);
    put_text(to, config->cas_store);
    put_text(to, config->name);
    put_text(to, config->restore);
    return 0;
}

static int load_machine(void *owner, struct state_reader *from, uint16_t version)
{
    struct config *config = owner;
    struct machine_state state;
    (void)version;
    int r = state_get(from, &state, sizeof(state));
    if (r < 0)
        return r;
    if (state.cpus == 0 || state.cpus > VM_CPUS_MAX || state.pages > GUEST_PAGES_HUGETLB ||
        state.has_rootfs > 1)
        return fail(-EBADMSG, "saved state has a configuration that is damaged");
    config->memory = state.memory;
    config->cpus = state.cpus;
    config->pages = state.pages;
    config->has_rootfs = state.has_rootfs;
    char **const texts[] = {&config->kernel,    &config->initrd, &config->cmdline, &config->append,
                            &config->cas_store, &config->name,   &config->restore};
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(texts); i++)
        r = get_text(from, texts[i]);
    return r == 0 ? guest_mem_check_size(config->memory) : r;
}

/* ---- Disks ---- */

struct drive_state {
    struct rate_limiter_config limits;
    uint32_t read_only, direct, sector, zero;
};
_Static_assert(sizeof(struct drive_state) == 64, "no padding");

static int save_drives(const void *owner, struct state_writer *to)
{
    const struct config *config = owner;
    for (unsigned i = 0; i < config->drive_count; i++) {
        const struct drive_config *drive = &config->drives[i];
        const struct drive_state state = {.limits = drive->limits,
                                          .read_only = drive->read_only,
                                          .direct = drive->direct,
                                          .sector = drive->sector};
        state_put(to, &state, sizeof(state));
        put_text(to, drive->path);
        put_text(to, drive->id);
    }
    return 0;
}

static int load_drive(struct config *config, struct state_reader *from)
{
    struct drive_state state;
    CLEANUP_FREE char *path = NULL, *id = NULL;
    int r = state_get(from, &state, sizeof(state));
    if (r == 0)
        r = get_text(from, &path);
    if (r == 0)
        r = get_text(from, &id);
    if (r < 0)
        return r;
    if (!path || state.read_only > 1 || state.direct > 1)
        return fail(-EBADMSG, "saved state has a disk that is damaged");
    const struct drive_config drive = {.path = path,
                                       .id = id,
                                       .limits = state.limits,
                                       .read_only = state.read_only,
                                       .direct = state.direct,
                                       .sector = state.sector};
    return config_add_drive(config, &drive, false);
}

static int load_drives(void *owner, struct state_reader *from, uint16_t version)
{
    struct config *config = owner;
    int r = 0;
    (void)version;
    while (r == 0 && from->length > 0)
        r = load_drive(config, from);
    return r;
}

/* ---- Network cards ---- */

struct net_state {
    struct rate_limiter_config rx, tx;
    uint32_t kind, mtu, queues, has_mac;
    char target[IF_NAMESIZE];
    char id[72];
    uint8_t mac[8];
};
_Static_assert(sizeof(struct net_state) == 208, "no padding");
_Static_assert(sizeof(((struct net_config *)0)->id) <= sizeof(((struct net_state *)0)->id), "room for an id");

static int save_nets(const void *owner, struct state_writer *to)
{
    const struct config *config = owner;
    for (unsigned i = 0; i < config->net_count; i++) {
        const struct net_config *net = &config->nets[i];
        struct net_state state = {.rx = net->rx,
                                  .tx = net->tx,
                                  .kind = net->kind,
                                  .mtu = net->mtu,
                                  .queues = net->queues,
                                  .has_mac = net->has_mac};
        memcpy(state.target, net->target, sizeof(net->target));
        memcpy(state.id, net->id, sizeof(net->id));
        memcpy(state.mac, net->mac, sizeof(net->mac));
        state_put(to, &state, sizeof(state));
    }
    return 0;
}

static int load_net(struct config *config, struct state_reader *from)
{
    struct net_state state;
    int r = state_get(from, &state, sizeof(state));
    if (r < 0)
        return r;
    struct net_config net = {.kind = state.kind,
                             .mtu = state.mtu,
                             .queues = state.queues,
                             .has_mac = state.has_mac,
                             .rx = state.rx,
                             .tx = state.tx};
    if (state.kind > NET_KIND_PASST || state.queues > NET_PAIRS_MAX || state.has_mac > 1 ||
        state.mtu > UINT16_MAX || state.target[sizeof(state.target) - 1] || state.id[sizeof(net.id) - 1] ||
        (state.mac[0] & 1))
        return fail(-EBADMSG, "saved state has a network card that is damaged");
    memcpy(net.id, state.id, sizeof(net.id));
    memcpy(net.mac, state.mac, sizeof(net.mac));
    for (unsigned i = 0; i < NET_PAIRS_MAX; i++)
        net.fds[i] = -1;
    if (net.kind == NET_KIND_TAP || net.kind == NET_KIND_BRIDGE)
        r = net_config_set_target(&net, "the snapshot's network card", state.target);
    if (r == 0)
        r = rate_limiter_check(&net.rx, "the snapshot's network card");
    if (r == 0)
        r = rate_limiter_check(&net.tx, "the snapshot's network card");
    return r < 0 ? r : config_put_net(config, &net);
}

static int load_nets(void *owner, struct state_reader *from, uint16_t version)
{
    int r = 0;
    (void)version;
    while (r == 0 && from->length > 0)
        r = load_net(owner, from);
    return r;
}

/* ---- The balloon ---- */

struct balloon_state {
    uint64_t target;
    uint32_t off, deflate_on_oom, reporting, hinting, stats_seconds, zero;
};
_Static_assert(sizeof(struct balloon_state) == 32, "no padding");

static int save_balloon(const void *owner, struct state_writer *to)
{
    const struct balloon_config *balloon = &((const struct config *)owner)->balloon;
    const struct balloon_state state = {.target = balloon->target,
                                        .off = balloon->off,
                                        .deflate_on_oom = balloon->deflate_on_oom,
                                        .reporting = balloon->reporting,
                                        .hinting = balloon->hinting,
                                        .stats_seconds = balloon->stats_seconds};
    state_put(to, &state, sizeof(state));
    return 0;
}

static int load_balloon(void *owner, struct state_reader *from, uint16_t version)
{
    struct config *config = owner;
    struct balloon_state state;
    (void)version;
    int r = state_get(from, &state, sizeof(state));
    if (r < 0)
        return r;
    if ((state.off | state.deflate_on_oom | state.reporting | state.hinting) > 1 ||
        state.stats_seconds > UINT16_MAX || state.target > config->memory)
        return fail(-EBADMSG, "saved state has a balloon that is damaged");
    config->balloon = (struct balloon_config){.target = state.target,
                                              .off = state.off,
                                              .deflate_on_oom = state.deflate_on_oom,
                                              .reporting = state.reporting,
                                              .hinting = state.hinting,
                                              .stats_seconds = state.stats_seconds};
    return 0;
}

/* ---- The vsock device ---- */

static int save_vsock(const void *owner, struct state_writer *to)
{
    const struct vsock_config *vsock = &((const struct config *)owner)->vsock;
    if (!vsock->path)
        return 0;
    state_put(to, &vsock->cid, sizeof(vsock->cid));
    put_text(to, vsock->path);
    return 0;
}

static int load_vsock(void *owner, struct state_reader *from, uint16_t version)
{
    struct vsock_config *vsock = &((struct config *)owner)->vsock;
    (void)version;
    int r = state_get(from, &vsock->cid, sizeof(vsock->cid));
    if (r == 0)
        r = get_text(from, &vsock->path);
    if (r == 0 && !vsock->path)
        r = fail(-EBADMSG, "saved state has a vsock device that is damaged");
    vsock->has_cid = true;
    return r;
}

static const struct state_part parts[] = {
    {"CONF", 1, STATE_REQUIRED, save_machine, load_machine},
    {"DRIV", 1, STATE_OPTIONAL, save_drives, load_drives},
    {"NETS", 1, STATE_OPTIONAL, save_nets, load_nets},
    {"BALN", 1, STATE_REQUIRED, save_balloon, load_balloon},
    {"VSCK", 1, STATE_OPTIONAL, save_vsock, load_vsock},
};

int snapshot_save_config(const struct config *config, struct state_writer *to)
{
    return state_save(parts, ARRAY_SIZE(parts), config, to);
}

int snapshot_load_config(struct config *config, struct state_reader from)
{
    int r = state_load(parts, ARRAY_SIZE(parts), config, from);
    if (r == 0 && config->has_rootfs && config->drive_count == 0)
        r = fail(-EBADMSG, "saved state has no disk, and a root file system");
    return r;
}

/* ---- What takes another's place ---- */

static int override_drives(struct config *config, const struct config *given)
{
    unsigned at = config->has_rootfs && !given->has_rootfs ? 1 : 0;
    if (given->has_rootfs && !config->has_rootfs)
        return fail(-EINVAL, "--rootfs: the snapshot's machine has no root file system to be replaced");
    for (unsigned i = 0; i < given->drive_count; i++) {
        const struct drive_config *drive = &given->drives[i];
        if (at + i >= config->drive_count)
            return fail(-EINVAL, "%s: the snapshot's machine has no disk for it to replace", drive->path);
        struct drive_config *place = &config->drives[at + i];
        if (drive->read_only != place->read_only || (drive->sector && drive->sector != place->sector))
            return fail(-EINVAL, "%s: is to take the place of %s, which is %s and has sectors of %u bytes",
                        drive->path, place->path, place->read_only ? "read-only" : "writable",
                        place->sector ? place->sector : 512);
        int r = config_set_text(&place->path, drive->path);
        if (r < 0)
            return r;
        place->direct = drive->direct;
        if (drive->limits.bandwidth.size || drive->limits.ops.size)
            place->limits = drive->limits;
    }
    return 0;
}

/* The card keeps its address: the guest knows it. */
static int override_nets(struct config *config, const struct config *given)
{
    if (given->net_count > config->net_count)
        return fail(-EINVAL, "--net: the snapshot's machine has %u network cards to be replaced",
                    config->net_count);
    for (unsigned i = 0; i < given->net_count; i++) {
        const struct net_config *net = &given->nets[i];
        struct net_config *place = &config->nets[i];
        if (net->has_mac || net->mtu || net->guest.address[0] ||
            (net->queues > 1 && net->queues != place->queues))
            return fail(-EINVAL,
                        "--net: a card of a snapshot keeps its mac, mtu, queues and ip: name its tap, "
                        "bridge or fd alone");
        place->kind = net->kind;
        memcpy(place->target, net->target, sizeof(place->target));
        memcpy(place->fds, net->fds, sizeof(place->fds));
        memcpy(place->socket, net->socket, sizeof(place->socket));
        memcpy(place->forwards, net->forwards, sizeof(place->forwards));
        place->forward_count = net->forward_count;
        place->map_gw = net->map_gw;
    }
    return 0;
}

/* The guest learns of another address: it is told to look. */
static int override_vsock(struct config *config, const struct config *given)
{
    if (!given->vsock.path && !given->vsock.has_cid)
        return 0;
    if (!config->vsock.path)
        return fail(-EINVAL, "--vsock: the snapshot's machine has no vsock device");
    if (given->vsock.has_cid)
        config->vsock.cid = given->vsock.cid;
    return given->vsock.path ? config_set_text(&config->vsock.path, given->vsock.path) : 0;
}

static int override_config(struct config *config, const struct config *given)
{
    struct config fresh;
    config_init(&fresh);
    const char *wrong = given->kernel                                 ? "--kernel"
                        : given->initrd                               ? "--initrd"
                        : given->cmdline || given->append             ? "--cmdline and --append"
                        : given->memory != fresh.memory               ? "--memory"
                        : given->cpus != fresh.cpus                   ? "--cpus"
                        : given->balloon.off || given->balloon.target ? "--balloon"
                                                                      : NULL;
    if (wrong)
        return fail(-EINVAL, "%s: a machine that is restored has what it had when it was saved", wrong);
    int r = override_drives(config, given);
    if (r == 0)
        r = override_nets(config, given);
    if (r == 0)
        r = override_vsock(config, given);
    if (r == 0 && given->cas_store)
        r = config_set_text(&config->cas_store, given->cas_store);
    if (r == 0 && given->name)
        r = config_set_text(&config->name, given->name);
    if (r == 0 && given->serial_path)
        r = config_set_text(&config->serial_path, given->serial_path);
    free(config->restore);
    config->restore = given->restore ? strdup(given->restore) : NULL; /* where the next one comes after */
    config->serial = given->serial;
    config->sandbox = given->sandbox;
    config->boot_timer = given->boot_timer;
    if (given->pages != fresh.pages)
        config->pages = given->pages;
    config->control_socket = given->control_socket;
    config->same_folders = given->same_folders;
    return r;
}

int snapshot_make_config(struct snapshot *snapshot, const struct config *given, struct config *ret_config)
{
    config_init(ret_config);
    int r = snapshot_load_config(ret_config, snapshot->config);
    if (r == 0 && ret_config->memory != snapshot->memory)
        r = fail(-EBADMSG, "the snapshot's machine and its file of memory are not of the same size");
    if (r == 0)
        r = override_config(ret_config, given);
    ret_config->snapshot = snapshot;
    return r;
}

int snapshot_check_config(const struct config *config)
{
    for (unsigned i = 0; i < config->net_count; i++)
        if ((config->nets[i].kind == NET_KIND_FD || config->nets[i].kind == NET_KIND_PASST) &&
            config->nets[i].fds[0] < 0)
            return fail(-EINVAL,
                        "the snapshot's network card %u was on a descriptor or passt: name another end for "
                        "it (--net)",
                        i);
    return 0;
}
