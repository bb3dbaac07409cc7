#include "net/link.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static inline void socket_free(struct nl_sock **socket)
{
    nl_socket_free(*socket);
}

static inline void message_free(struct nl_msg **message)
{
    nlmsg_free(*message);
}

static int open_socket(struct nl_sock **ret_socket)
{
    struct nl_sock *socket = nl_socket_alloc();
    int r = socket ? nl_connect(socket, NETLINK_ROUTE) : -NLE_NOMEM;
    if (r < 0) {
        nl_socket_free(socket);
        return fail(-EIO, "netlink: %s", nl_geterror(r));
    }
    *ret_socket = socket;
    return 0;
}

static struct nl_msg *new_message(int type, unsigned index, unsigned flags)
{
    struct ifinfomsg info = {
        .ifi_family = AF_UNSPEC, .ifi_index = (int)index, .ifi_flags = flags, .ifi_change = flags};
    struct nl_msg *message = nlmsg_alloc_simple(type, NLM_F_REQUEST);
    if (message && nlmsg_append(message, &info, sizeof(info), NLMSG_ALIGNTO) < 0) {
        nlmsg_free(message);
        return NULL;
    }
    return message;
}

/* --- what a message says --- */

static void read_attribute(const struct nlattr *attribute, struct link_info *info)
{
    switch (nla_type(attribute)) {
    case IFLA_IFNAME: nla_strlcpy(info->name, attribute, sizeof(info->name)); break;
    case IFLA_MASTER:
        if (nla_len(attribute) == sizeof(uint32_t))
            info->master = nla_get_u32(attribute);
        break;
    case IFLA_MTU:
        if (nla_len(attribute) == sizeof(uint32_t))
            info->mtu = nla_get_u32(attribute);
        break;
    case IFLA_ADDRESS:
        if (nla_len(attribute) == ETH_ALEN)
            memcpy(info->address, nla_data(attribute), ETH_ALEN);
        break;
    case IFLA_LINKINFO: {
        const struct nlattr *kind = nla_find(nla_data(attribute), nla_len(attribute), IFLA_INFO_KIND);
        info->is_bridge = kind && nla_strcmp(kind, "bridge") == 0;
        break;
    }
    default: break;
    }
}

/* False if it is no message about a link itself: a bridge tells of its ports in a family of its own. */
static bool read_message(struct nlmsghdr *header, struct link_event *ret_event)
{
    const struct ifinfomsg *info = nlmsg_data(header);
    if ((header->nlmsg_type != RTM_NEWLINK && header->nlmsg_type != RTM_DELLINK) ||
        !nlmsg_valid_hdr(header, sizeof(*info)) || info->ifi_family != AF_UNSPEC)
        return false;
    *ret_event = (struct link_event){
        .gone = header->nlmsg_type == RTM_DELLINK,
        .info = {.index = (unsigned)info->ifi_index, .up = info->ifi_flags & IFF_UP},
    };
    struct nlattr *attribute;
    int left;
    nlmsg_for_each_attr(attribute, header, sizeof(*info), left)
    {
        read_attribute(attribute, &ret_event->info);
    }
    return true;
}

/* --- requests --- */

static int keep_link(struct nl_msg *message, void *to)
{
    struct link_event event;
    if (read_message(nlmsg_hdr(message), &event))
        *(struct link_info *)to = event.info;
    return NL_OK;
}

static int get_link(const char *name, unsigned index, struct link_info *ret_info)
{
    __attribute__((cleanup(socket_free))) struct nl_sock *socket = NULL;
    __attribute__((cleanup(message_free))) struct nl_msg *message = new_message(RTM_GETLINK, index, 0);
    struct link_info found = {0};
    int r = open_socket(&socket);
    if (r < 0)
        return r;
    if (!message || (name && nla_put_string(message, IFLA_IFNAME, name) < 0))
        return fail(-ENOMEM, "no memory for a netlink message");
    nl_socket_modify_cb(socket, NL_CB_VALID, NL_CB_CUSTOM, keep_link, &found);
    r = nl_send_auto(socket, message);
    if (r >= 0)
        r = nl_recvmsgs_default(socket);
    if (r == -NLE_NODEV || r == -NLE_OBJ_NOTFOUND || (r >= 0 && found.index == 0))
        return negative(-ENODEV);
    if (r < 0)
        return fail(-EIO, "netlink: %s", nl_geterror(r));
    *ret_info = found;
    return 0;
}

int link_by_name(const char *name, struct link_info *ret_info)
{
    if (strlen(name) >= IF_NAMESIZE)
        return negative(-ENODEV);
    return get_link(name, 0, ret_info);
}

int link_by_index(unsigned index, struct link_info *ret_info)
{
    return get_link(NULL, index, ret_info);
}

int link_join(unsigned index, unsigned bridge, unsigned mtu, const char *name)
{
    __attribute__((cleanup(socket_free))) struct nl_sock *socket = NULL;
    struct nl_msg *message = new_message(RTM_NEWLINK, index, IFF_UP);
    int r = open_socket(&socket);
    if (r < 0) {
        nlmsg_free(message);
        return r;
    }
    if (!message || (bridge && nla_put_u32(message, IFLA_MASTER, bridge) < 0) ||
        (mtu && nla_put_u32(message, IFLA_MTU, mtu) < 0)) {
        nlmsg_free(message);
        return fail(-ENOMEM, "no memory for a netlink message");
    }
    r = nl_send_sync(socket, message); /* frees it */
    if (r == -NLE_PERM)
        return fail(-EPERM,
                    "%s: no right to change it (CAP_NET_ADMIN; or hand a descriptor in: fd=N; or passt=auto)",
                    name);
    return r < 0 ? fail(-EIO, "%s: netlink: %s", name, nl_geterror(r)) : 0;
}

/* --- events --- */

int link_events_open(int *ret_fd)
{
    CLEANUP_FD int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    if (fd < 0)
        return fail_errno(-errno, "a netlink socket");
    int r = link_events_filter(fd, false, 0, 0);
    if (r == 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        r = fail_errno(-errno, "a netlink socket");
    if (r == 0)
        *ret_fd = fd_steal(&fd);
    return r;
}

int link_events_filter(int fd, bool all, unsigned a, unsigned b)
{
    /* The kernel loads words as big-endian ones. */
    const uint32_t index_at = NLMSG_HDRLEN + offsetof(struct ifinfomsg, ifi_index);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, index_at),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(a), 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(b), 1, 0),
        BPF_STMT(BPF_RET | BPF_K, all ? UINT32_MAX : 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    const struct sock_fprog program = {.len = ARRAY_SIZE(code), .filter = code};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0)
        return fail_errno(-errno, "the filter of a netlink socket");
    return 0;
}

int link_event_next(const uint8_t **bytes, size_t *length, struct link_event *ret_event)
{
    while (*length >= NLMSG_HDRLEN) {
        struct nlmsghdr *header = (struct nlmsghdr *)(void *)(uintptr_t)*bytes;
        if (!nlmsg_ok(header, (int)*length))
            return 0;
        bool is_event = read_message(header, ret_event);
        size_t step = MIN((size_t)nlmsg_total_size((int)header->nlmsg_len - NLMSG_HDRLEN), *length);
        *bytes += step;
        *length -= step;
        if (is_event)
            return 1;
    }
    return 0;
}
