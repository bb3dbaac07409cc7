#include "netlink.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

/* The body of each kind of request, and room for the attributes: three addresses and two numbers. */
struct request {
    struct nlmsghdr header;
    union {
        struct ifinfomsg link;
        struct ifaddrmsg address;
        struct rtmsg route;
    } body;
    uint8_t attributes[128];
};

int netlink_open(int *ret_fd)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

static struct request begin(unsigned type, unsigned flags, size_t body)
{
    return (struct request){.header = {.nlmsg_len = (uint32_t)NLMSG_LENGTH(body),
                                       .nlmsg_type = (uint16_t)type,
                                       .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags)}};
}

static void add(struct request *request, unsigned type, const void *value, size_t size)
{
    const struct rtattr attribute = {.rta_len = (uint16_t)RTA_LENGTH(size), .rta_type = (uint16_t)type};
    size_t at = NLMSG_ALIGN(request->header.nlmsg_len);
    CHECK(at + RTA_SPACE(size) <= sizeof(*request));
    memcpy((uint8_t *)request + at, &attribute, sizeof(attribute));
    memcpy((uint8_t *)request + at + RTA_LENGTH(0), value, size);
    request->header.nlmsg_len = (uint32_t)(at + RTA_LENGTH(size));
}

static size_t size_of(const struct net_address *address)
{
    return address->family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr);
}

static int ask(int fd, const struct request *request)
{
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        uint8_t rest[sizeof(struct request) + 256]; /* the request again, and words */
    } answer;
    if (send(fd, request, request->header.nlmsg_len, 0) < 0)
        return -errno;
    ssize_t got = recv(fd, &answer, sizeof(answer), 0);
    if (got < 0)
        return -errno;
    if ((size_t)got < offsetof(__typeof__(answer), rest) || answer.header.nlmsg_type != NLMSG_ERROR)
        return -EBADMSG;
    return answer.error.error;
}

int netlink_set_up(int fd, unsigned index, unsigned mtu)
{
    struct request request = begin(RTM_NEWLINK, 0, sizeof(request.body.link));
    request.body.link =
        (struct ifinfomsg){.ifi_index = (int)index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    if (mtu != 0)
        add(&request, IFLA_MTU, &mtu, sizeof(mtu));
    return ask(fd, &request);
}

static struct request address_request(unsigned type, unsigned flags, unsigned index,
                                      const struct net_address *address, unsigned prefix)
{
    struct request request = begin(type, flags, sizeof(request.body.address));
    request.body.address = (struct ifaddrmsg){.ifa_family = (uint8_t)address->family,
                                              .ifa_prefixlen = (uint8_t)prefix,
                                              .ifa_flags = address->family == AF_INET6 ? IFA_F_NODAD : 0,
                                              .ifa_index = index};
    add(&request, IFA_LOCAL, address->bytes, size_of(address));
    return request;
}

int netlink_add_address(int fd, unsigned index, const struct net_address *address, unsigned prefix)
{
    struct request request = address_request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, index, address, prefix);
    add(&request, IFA_ADDRESS, address->bytes, size_of(address));
    if (address->family == AF_INET && prefix < 31) {
        uint8_t broadcast[sizeof(struct in_addr)];
        for (unsigned i = 0; i < sizeof(broadcast); i++)
            broadcast[i] = (uint8_t)(address->bytes[i] | (i * 8 >= prefix       ? 0xff
                                                          : prefix - i * 8 >= 8 ? 0
                                                                                : 0xff >> (prefix - i * 8)));
        add(&request, IFA_BROADCAST, broadcast, sizeof(broadcast));
    }
    int r = ask(fd, &request);
    return r == -EEXIST ? 0 : r;
}

int netlink_remove_address(int fd, unsigned index, const struct net_address *address, unsigned prefix)
{
    struct request request = address_request(RTM_DELADDR, 0, index, address, prefix);
    return ask(fd, &request);
}

static int set_route(int fd, unsigned index, const struct net_address *network, unsigned prefix,
                     const struct net_address *gateway, unsigned metric, unsigned flags)
{
    struct request request = begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(request.body.route));
    request.body.route = (struct rtmsg){.rtm_family = (uint8_t)gateway->family,
                                        .rtm_dst_len = (uint8_t)prefix,
                                        .rtm_table = RT_TABLE_MAIN,
                                        .rtm_protocol = RTPROT_BOOT,
                                        .rtm_scope = RT_SCOPE_UNIVERSE,
                                        .rtm_type = RTN_UNICAST,
                                        .rtm_flags = flags};
    if (prefix > 0)
        add(&request, RTA_DST, network->bytes, size_of(network));
    add(&request, RTA_GATEWAY, gateway->bytes, size_of(gateway));
    add(&request, RTA_OIF, &index, sizeof(index));
    if (metric > 0)
        add(&request, RTA_PRIORITY, &metric, sizeof(metric));
    return ask(fd, &request);
}

int netlink_set_route(int fd, unsigned index, const struct net_address *network, unsigned prefix,
                      const struct net_address *gateway, unsigned metric)
{
    int r = set_route(fd, index, network, prefix, gateway, metric, 0);
    if (r == -ENETUNREACH || r == -EHOSTUNREACH) /* it is in no network of ours */
        r = set_route(fd, index, network, prefix, gateway, metric, RTNH_F_ONLINK);
    return r;
}
