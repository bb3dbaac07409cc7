/*
 * The guest's clocks, saved as of one moment and loaded as of one: kvmclock, and the TSC of each vCPU.
 *
 * Saved one after the other they come back apart by the time between the two reads, and a guest that compares
 * them (Linux's clocksource watchdog) marks its TSC unstable. KVM_GET_CLOCK tells the host's TSC at its
 * moment (Linux 5.16), and KVM_VCPU_TSC_OFFSET the distance from there to a guest's
 * (Documentation/virt/kvm/devices/vcpu.rst, 4.1). Where either is not to be had, or the guest's TSC has
 * another rate than the host's, the TSC stays what the list of registers has (msrs.c).
 */
#include "vcpu/internal.h"

#include <string.h>

#define KHZ_NS UINT64_C(1000000) /* ticks = ns * kHz / this */

static int read_clock(const struct vm *vm, struct kvm_clock_data *ret_clock)
{
    *ret_clock = (struct kvm_clock_data){0};
    int r = kvm_ioctl(vm->fd, KVM_GET_CLOCK, ret_clock);
    return r < 0 ? fail_errno(r, "KVM_GET_CLOCK") : 0;
}

static struct kvm_device_attr offset_of(uint64_t *offset)
{
    return (struct kvm_device_attr){
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};
}

/* True if a guest's TSC is the host's and an offset, for each vCPU. */
static bool has_offsets(const struct vm *vm, const struct kvm_clock_data *clock)
{
    struct kvm_device_attr attribute = offset_of(NULL);
    int host =
        kvm_ioctl_value(vm->fd, KVM_GET_TSC_KHZ, 0); /* of the VM: since 5.17 its default, the host's */
    if (!(clock->flags & KVM_CLOCK_HOST_TSC) || host <= 0)
        return false;
    for (unsigned i = 0; i < vm->cpu_count; i++)
        if (kvm_ioctl(vm->cpus[i].fd, KVM_HAS_DEVICE_ATTR, &attribute) < 0 ||
            kvm_ioctl_value(vm->cpus[i].fd, KVM_GET_TSC_KHZ, 0) != host)
            return false;
    return true;
}

int vm_save_clock(const void *owner, struct state_writer *to)
{
    const struct vm *vm = owner;
    struct kvm_clock_data clock;
    int r = read_clock(vm, &clock);
    if (r < 0)
        return r;
    state_put(to, &clock, sizeof(clock));
    if (!has_offsets(vm, &clock))
        return 0;
    for (unsigned i = 0; i < vm->cpu_count; i++) {
        uint64_t offset = 0;
        struct kvm_device_attr attribute = offset_of(&offset);
        r = kvm_ioctl(vm->cpus[i].fd, KVM_GET_DEVICE_ATTR, &attribute);
        if (r < 0)
            return fail_errno(r, "KVM_VCPU_TSC_OFFSET of vCPU %u", i);
        uint64_t tsc = clock.host_tsc + offset;
        state_put(to, &tsc, sizeof(tsc));
    }
    return 0;
}

/* KVM times a deadline by the TSC of the moment when it is written. */
static int arm_again(const struct vcpu *cpu)
{
    struct {
        struct kvm_msrs header;
        struct kvm_msr_entry entry;
    } deadline = {.header.nmsrs = 1, .entry.index = MSR_IA32_TSC_DEADLINE};
    int r = kvm_ioctl(cpu->fd, KVM_GET_MSRS, &deadline);
    if (r == 1 && deadline.entry.data != 0)
        r = kvm_ioctl(cpu->fd, KVM_SET_MSRS, &deadline);
    return r < 0 ? fail_errno(r, "the timer of vCPU %u", cpu->index) : 0;
}

static int set_tsc(const struct vcpu *cpu, uint64_t tsc, uint64_t host_tsc)
{
    uint64_t offset = tsc - host_tsc;
    struct kvm_device_attr attribute = offset_of(&offset);
    int r = kvm_ioctl(cpu->fd, KVM_SET_DEVICE_ATTR, &attribute);
    return r < 0 ? fail_errno(r, "KVM_VCPU_TSC_OFFSET of vCPU %u", cpu->index) : arm_again(cpu);
}

static int load_tscs(const struct vm *vm, uint64_t saved_clock, struct state_reader *from)
{
    struct kvm_clock_data now;
    int r = read_clock(vm, &now);
    if (r < 0)
        return r;
    bool wanted = has_offsets(vm, &now);
    for (unsigned i = 0; r == 0 && i < vm->cpu_count; i++) {
        uint64_t tsc;
        r = state_get(from, &tsc, sizeof(tsc));
        if (r < 0 || !wanted)
            continue;
        int khz = kvm_ioctl_value(vm->cpus[i].fd, KVM_GET_TSC_KHZ, 0);
        unsigned __int128 ticks = (unsigned __int128)(now.clock - saved_clock) * (unsigned)khz / KHZ_NS;
        r = set_tsc(&vm->cpus[i], tsc + (uint64_t)ticks, now.host_tsc);
    }
    return r;
}

int vm_load_clock(void *owner, struct state_reader *from, uint16_t version)
{
    const struct vm *vm = owner;
    struct kvm_clock_data saved;
    (void)version;
    int r = state_get(from, &saved, sizeof(saved));
    if (r < 0)
        return r;
    struct kvm_clock_data clock = {.clock = saved.clock};
    if (vm->load_clock == VM_CLOCK_CATCHES_UP && saved.flags & KVM_CLOCK_REALTIME) {
        clock.flags = KVM_CLOCK_REALTIME;
        clock.realtime = saved.realtime;
    }
    r = kvm_ioctl(vm->fd, KVM_SET_CLOCK, &clock);
    if (r < 0)
        return fail_errno(r, "KVM_SET_CLOCK");
    return from->length > 0 ? load_tscs(vm, saved.clock, from) : 0;
}
