#include "resolv.h"

#include "init.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#define RESOLVER        "/etc/resolv.conf"
#define RESOLVER_BESIDE "/run/resolv.conf"

void resolver_add(struct resolver *resolver, const struct net_address *server)
{
    for (unsigned i = 0; i < resolver->count; i++)
        if (memcmp(&resolver->servers[i], server, sizeof(*server)) == 0)
            return;
    if (resolver->count < RESOLVER_SERVERS)
        resolver->servers[resolver->count++] = *server;
}

/* Nothing that is there is waited for: the file may be anything. */
static int write_file(const char *path, const char *text)
{
    CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);
    if (fd < 0)
        return -errno;
    return write_full(fd, text, strlen(text));
}

bool resolver_write(const struct resolver *resolver)
{
    char text[512] = "", address[INET6_ADDRSTRLEN];
    int length = 0;
    if (resolver->domain != NULL)
        length = snprintf(text, sizeof(text), "search %.*s\n", NET_NAME_MAX, resolver->domain);
    for (unsigned i = 0; i < resolver->count; i++)
        length += snprintf(text + length, sizeof(text) - (size_t)length, "nameserver %s\n",
                           net_address_text(&resolver->servers[i], address));
    int r = write_file(RESOLVER, text);
    if (r == -EROFS) {
        r = write_file(RESOLVER_BESIDE, text);
        if (r == 0 && mount(RESOLVER_BESIDE, RESOLVER, NULL, MS_BIND, NULL) != 0)
            r = -errno;
    }
    if (r < 0)
        say(RESOLVER ": %s", strerror(-r));
    return r == 0;
}
