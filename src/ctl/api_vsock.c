/* The vsock device, by Firecracker's requests and with its words. */
#include "ctl/api.h"

#include "base/unix_listener.h"

#include <string.h>

/* Listens where the start will do it, and stops again. */
static int try_path(const char *path)
{
    struct unix_listener listener = {.fd = -1};
    int r = unix_listener_open(path, true, &listener);
    if (r < 0)
        return r;
    unix_listener_remove(&listener);
    cleanup_fd(&listener.fd);
    return 0;
}

int api_put_vsock(struct api_call *call, void *object)
{
    struct keys_vsock *wanted = object;
    struct ctl *ctl = call->ctl;
    ctl->boot_path = true;
    int r = try_path(wanted->uds_path);
    if (r < 0)
        return api_fault(
            call, -EINVAL,
            "Vsock config error: Cannot create backend for vsock device: Error binding to the host-side Unix "
            "socket: %s",
            r == -ENAMETOOLONG ? "path must be shorter than SUN_LEN" : api_os_error(r));
    if (!ctl->keys.vsock)
        ctl->keys.vsock = calloc(1, sizeof(*ctl->keys.vsock));
    if (!ctl->keys.vsock)
        return api_fault(call, -ENOMEM, "out of memory");
    json_free(&keys_vsock_struct, ctl->keys.vsock);
    *ctl->keys.vsock = *wanted;
    *wanted = (struct keys_vsock){0};
    return 0;
}

int api_build_vsock(const struct ctl *ctl, struct config *built)
{
    const struct keys_vsock *vsock = ctl->keys.vsock;
    if (!vsock)
        return 0;
    built->vsock.cid = (uint32_t)vsock->guest_cid.value;
    built->vsock.has_cid = true;
    return api_set_text(&built->vsock.path, vsock->uds_path);
}

int api_override_vsock(const struct keys_vsock_override *wanted, struct config *built)
{
    if (!wanted)
        return 0;
    if (!built->vsock.path)
        return fail(-ENODEV, "the snapshot has no vsock device");
    return api_set_text(&built->vsock.path, wanted->uds_path);
}
