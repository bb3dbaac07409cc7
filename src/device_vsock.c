/* The vsock device: sockets between the guest and programs of the host. */
#include "dev/virtio_vsock.h"
#include "devices.h"
#include "machine.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>

/* The guest's smallest address: those below are the hypervisor's and the host's (virtio 1.2, 5.10.4). */
#define CID_MIN 3u

/* Room in the process's table of descriptors for so many connections; for more it grows by itself. */
#define DESCRIPTORS 1024u

/* ---- The command line ---- */

enum { OPTION_VSOCK = 0x2c0 };

static const struct argp_option options[] = {
    {"vsock", OPTION_VSOCK, "cid=N,uds=PATH", 0,
     "sockets between guest and host: the guest is CID N (3 and up); a host program connects to the Unix "
     "socket "
     "PATH and says CONNECT PORT; where the guest connects to PORT of CID 2 is PATH_PORT",
     2},
    {0},
};

static int set_cid(struct vsock_config *vsock, const char *text)
{
    char *end = NULL;
    errno = 0;
    unsigned long long cid = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || cid < CID_MIN || cid >= UINT32_MAX)
        return fail(-EINVAL, "--vsock: cid=%s: give a number from %u to %u", text, CID_MIN, UINT32_MAX - 1);
    vsock->cid = (uint32_t)cid;
    vsock->has_cid = true;
    return 0;
}

static int set_vsock(struct vsock_config *vsock, const char *argument)
{
    CLEANUP_FREE char *copy = strdup(argument);
    char *rest = copy;
    int r = copy ? 0 : fail(-ENOMEM, "no memory for the configuration");
    while (r == 0 && rest) {
        const char *word = strsep(&rest, ",");
        if (strncmp(word, "cid=", 4) == 0)
            r = set_cid(vsock, word + 4);
        else if (strncmp(word, "uds=", 4) == 0 && word[4])
            r = config_set_text(&vsock->path, word + 4);
        else
            r = fail(-EINVAL, "--vsock: '%s' is not known: give cid=N,uds=PATH", word);
    }
    return r;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct config *config = state->input;
    return key == OPTION_VSOCK ? -set_vsock(&config->vsock, argument) : ARGP_ERR_UNKNOWN;
}

static const struct argp argp = {.options = options, .parser = parse_option};

/* ---- A configuration file ---- */

static int take_section(struct config *config, const json_t *value)
{
    static const struct config_key keys[] = {
        {"vsock_id", JSON_STRING, NULL, NULL}, /* Firecracker's deprecated name of it */
        {"guest_cid", JSON_INTEGER, NULL, NULL},
        {"uds_path", JSON_STRING, NULL, NULL},
    };
    int r = config_take_members(config, value, "vsock", keys, ARRAY_SIZE(keys));
    if (r < 0)
        return r;
    const json_t *cid = json_object_get(value, "guest_cid");
    const char *path = json_string_value(json_object_get(value, "uds_path"));
    if (!json_is_integer(cid) || !path)
        return fail(-EINVAL, "vsock: it needs guest_cid and uds_path");
    if (json_integer_value(cid) < CID_MIN || json_integer_value(cid) >= UINT32_MAX)
        return fail(-EINVAL, "vsock: guest_cid must be %u to %u", CID_MIN, UINT32_MAX - 1);
    config->vsock.cid = (uint32_t)json_integer_value(cid);
    config->vsock.has_cid = true;
    return config_set_text(&config->vsock.path, path);
}

/* ---- The device ---- */

static unsigned count(const struct config *config)
{
    return config->vsock.path || config->vsock.has_cid;
}

/* Each connection is a descriptor. What there is has to do otherwise. */
static void allow_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = MIN(limit.rlim_max, limit.rlim_cur + VSOCK_CONNECTIONS_MAX);
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    fd_reserve(DESCRIPTORS);
}

/* The ring waits for who connects; a non-blocking listener it would only ask once. */
static int make_blocking(int fd)
{
    int mode = fcntl(fd, F_GETFL);
    return mode < 0 || fcntl(fd, F_SETFL, mode & ~O_NONBLOCK) < 0 ? fail_errno(-errno, "vsock: fcntl") : 0;
}

static int make(struct loop *loop, const struct config *config, unsigned index,
                struct virtio_device **ret_device)
{
    const struct vsock_config *vsock = &config->vsock;
    struct unix_listener listener = {.fd = -1};
    (void)index;
    if (!vsock->path || !vsock->has_cid)
        return fail(-EINVAL, "--vsock: give cid=N (3 and up) and uds=PATH");
    int r = 0;
    if (config->copy)
        listener = config->copy->vsock;
    else
        r = unix_listener_open(vsock->path, true, &listener);
    if (r < 0)
        return r;
    const struct virtio_vsock_options device = {
        .guest_cid = vsock->cid, .listener = &listener, .path = vsock->path};
    r = make_blocking(listener.fd);
    if (r == 0)
        r = virtio_vsock_new(loop, &device, ret_device);
    if (r < 0) {
        unix_listener_remove(&listener);
        cleanup_fd(&listener.fd);
        return r;
    }
    allow_descriptors();
    return 0;
}

const struct device_kind device_vsock = {
    .section = {"vsock", JSON_OBJECT, take_section, NULL},
    .argp = &argp,
    .count = count,
    .make = make,
};
