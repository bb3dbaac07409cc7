/* /dev/kvm itself: opening it, what it must be able to do, and ioctls that are tried again. */
#include "vcpu/internal.h"

#include <fcntl.h>
#include <sys/ioctl.h>

int kvm_ioctl(int fd, unsigned long request, void *argument)
{
    return kvm_ioctl_value(fd, request, (unsigned long)argument);
}

int kvm_ioctl_value(int fd, unsigned long request, unsigned long argument)
{
    int r;
    do
        r = ioctl(fd, request, argument);
    while (r < 0 && (errno == EINTR || errno == EAGAIN));
    return r < 0 ? -errno : r;
}

static int open_failed(int error)
{
    if (error == -ENOENT || error == -ENODEV || error == -ENXIO)
        return fail(
            -ENODEV,
            "/dev/kvm is not there (load kvm_amd or kvm_intel; in a VM, turn nested virtualisation on)");
    if (error == -EACCES || error == -EPERM)
        return fail(error,
                    "/dev/kvm may not be opened (be in the group kvm: adduser $USER kvm, then log in again)");
    return fail_errno(error, "/dev/kvm");
}

/* What this machine cannot do without. */
static int probe_capabilities(int kvm_fd)
{
    static const struct {
        int capability;
        const char *name;
    } needed[] = {
        {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},   {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
        {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"}, {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
        {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},       {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    };
    int version = kvm_ioctl_value(kvm_fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return fail(-ENOTSUP, "KVM_GET_API_VERSION: %d, and only %d is known", version, KVM_API_VERSION);
    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++)
        if (kvm_ioctl_value(kvm_fd, KVM_CHECK_EXTENSION, (unsigned long)needed[i].capability) <= 0)
            return fail(-ENOTSUP, "this host's KVM has no %s (Linux 5.10 or newer is needed)",
                        needed[i].name);
    return 0;
}

int kvm_open(int *ret_kvm_fd)
{
    CLEANUP_FD int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return open_failed(-errno);
    int r = probe_capabilities(fd);
    if (r < 0)
        return r;
    *ret_kvm_fd = fd_steal(&fd);
    return 0;
}
