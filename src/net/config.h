/* What a network card is to be, as --net says it, and making its backend. */
#pragma once

#include "base/rate_limiter.h"
#include "net/backend.h"

#include <net/if.h>
#include <netinet/in.h>

#define NET_CONFIG_MAX 16u /* network cards of a VM */

enum net_kind {
    NET_KIND_TAP,    /* tap=NAME: one that is there, or a new one that nobody has joined to anything */
    NET_KIND_FD,     /* fd=N: a descriptor handed in */
    NET_KIND_BRIDGE, /* bridge=NAME: a new TAP, a port of that bridge */
    NET_KIND_NONE,   /* none: plugged in nowhere */
    NET_KIND_PASST,  /* passt=SOCKET|auto: sockets of an ordinary user's */
};

#define NET_PASST_MTU    65520u /* passt's own: without offloads large frames do their work */
#define NET_FORWARDS_MAX 16u
#define NET_SOCKET_MAX   108u /* sizeof(struct sockaddr_un.sun_path) */

/* Ports that lead into the guest, as passt(1) writes them: "8080:80". */
struct net_forward {
    bool udp;
    char ports[64];
};

/* What the guest is told on the kernel's command line: an IPv4 or IPv6 address, or that it asks. */
struct net_guest {
    char address[INET6_ADDRSTRLEN]; /* "dhcp" and "auto6" too; empty: nothing is told */
    unsigned prefix;
    char gateway[INET6_ADDRSTRLEN], dns[INET6_ADDRSTRLEN]; /* empty: none */
};

struct net_config {
    enum net_kind kind;
    char target[IF_NAMESIZE];    /* the TAP or the bridge */
    int fds[NET_PAIRS_MAX];      /* of NET_KIND_FD, one a queue pair; lent */
    char socket[NET_SOCKET_MAX]; /* of NET_KIND_PASST; empty: one is started */
    struct net_forward forwards[NET_FORWARDS_MAX];
    unsigned forward_count;
    bool map_gw; /* the gateway's address is the host's own loopback */
    struct net_guest guest;
    char id[65]; /* the API's iface_id; empty: none */
    bool has_mac;
    uint8_t mac[ETH_ALEN];
    unsigned mtu;    /* 0: the link's own */
    unsigned queues; /* pairs; 0 is 1 */
    struct rate_limiter_config rx, tx;
};

/* Reads
 * "tap=NAME|fd=N[:N...]|bridge=NAME|passt=SOCKET|auto|none[,mac=MAC][,mtu=N][,queues=N][,tcp=PORTS]
 * [,udp=PORTS][,map-gw=on|off][,ip=ADDRESS/LENGTH|dhcp|auto6][,gw=ADDRESS][,dns=ADDRESS][,rx-bw=][,rx-ops=]
 * [,tx-bw=][,tx-ops=]". -EINVAL with a message. */
int net_config_parse(const char *text, struct net_config *ret_config);

/* The word of the kernel's command line that tells the guest of card `index`, in `word`, which is returned;
 * empty if it is told nothing. */
#define NET_WORD_MAX 192
char *net_config_word(const struct net_config *config, unsigned index, char word[NET_WORD_MAX]);

/* Its TAP or bridge is `name`. -EINVAL with a message that names `option` if no link can have that name. */
int net_config_set_target(struct net_config *config, const char *option, const char *name);

/* Six pairs of hexadecimal digits with colons, and no multicast address. -EINVAL with a message. */
int net_mac_parse(const char *text, uint8_t ret_mac[ETH_ALEN]);

/* The address of card `index` of the VM `name`, always the same and locally administered; with a name of NULL
 * a random one. */
void net_mac_derive(const char *name, unsigned index, uint8_t ret_mac[ETH_ALEN]);

/* A card's end on the host. */
struct net_port {
    struct net_backend *backend;
    char name[IF_NAMESIZE], bridge[IF_NAMESIZE]; /* empty: not known, none asked for */
    unsigned index, bridge_index;                /* of the links; 0: not known */
    unsigned mtu;
};

/* Opens or makes it. What was made ends with its descriptors, however the process ends. Negative errno with a
 * message that names the remedy: no such bridge, no right, in use. */
int net_port_open(const struct net_config *config, struct net_port *ret_port);
