/* The words about the network on the kernel's command line, read by the rules of the kernel's
 * Documentation/admin-guide/nfs/nfsroot.rst and, for IPv6, of dracut.cmdline(7). Pure: touches only its
 * arguments. */
#pragma once

#include "base/base.h"

#include <net/if.h>
#include <netinet/in.h>

/* Of one word: ten fields, two of them names. */
#define NET_WORD_LENGTH 512
#define NET_NAME_MAX    64 /* HOST_NAME_MAX */

/* An IPv4 or IPv6 address; family AF_UNSPEC is none. */
struct net_address {
    int family;
    uint8_t bytes[sizeof(struct in6_addr)];
};

/* ip=CLIENT:SERVER:GATEWAY:MASK:HOST:DEVICE:METHOD:DNS:DNS:NTP:NTP, ip=METHOD or ip=DEVICE:METHOD[:MTU]. */
struct net_word {
    struct net_address client, gateway, dns[2];
    unsigned prefix;             /* of the client's network */
    bool dhcp;                   /* no address is given: it is asked for */
    bool autoconf;               /* IPv6 by router advertisements is waited for */
    unsigned mtu;                /* 0: as it is */
    char host[NET_NAME_MAX + 1]; /* of the machine, empty: none given */
    char domain[NET_NAME_MAX + 1];
    char device[IFNAMSIZ]; /* empty: the next card */
};

/* rd.route=NETWORK/LENGTH:GATEWAY[:DEVICE], also default:GATEWAY[:DEVICE]. */
struct net_route {
    struct net_address network, gateway; /* a default route's network has the family of its gateway */
    unsigned prefix;
    char device[IFNAMSIZ]; /* empty: the first card */
};

/* Each -EINVAL with a message that has no name of the word's option in it. Results are untouched then. */
int net_word_parse(const char *text, struct net_word *ret_word);
int net_route_parse(const char *text, struct net_route *ret_route);

/* One address, without brackets. False if it is none. */
bool net_address_parse(const char *text, struct net_address *ret_address);

/* Letters, digits, dots, dashes and underlines, 1 to NET_NAME_MAX of them, with none but a letter or a digit
 * in front. */
bool net_name_valid(const char *name);

/* The length of an IPv4 mask, 255.255.255.0 or 24. False if it has holes or is none. */
bool net_mask_parse(const char *text, unsigned most, unsigned *ret_prefix);

/* The address as text, in `buffer`, which is returned. */
char *net_address_text(const struct net_address *address, char buffer[INET6_ADDRSTRLEN]);
