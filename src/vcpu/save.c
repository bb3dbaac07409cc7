/*
 * A parked vCPU's state, out and in, as parts (base/state.h). The table's order is KVM's: KVM_GET_MP_STATE
 * takes pending INITs first, KVM_SET_SREGS has the APIC's base and comes before KVM_SET_LAPIC, the deadline
 * means nothing without the TSC and the APIC's timer mode, and KVM_SET_REGS drops the events that come
 * last.
 */
#include "vcpu/internal.h"

#include <string.h>

#define CR4_VMXE  (1u << 13)
#define EFER_SVME (1u << 12)

/* Reads a structure by one ioctl and saves it, or loads it and writes it by another. */
static int save_by(const struct vcpu *cpu, unsigned long request, const char *name, void *structure,
                   size_t size, struct state_writer *to)
{
    int r = kvm_ioctl(cpu->fd, request, structure);
    if (r < 0)
        return fail_errno(r, "%s of vCPU %u", name, cpu->index);
    state_put(to, structure, size);
    return 0;
}
static int load_by(const struct vcpu *cpu, unsigned long request, const char *name, void *structure,
                   size_t size, struct state_reader *from)
{
    int r = state_get(from, structure, size);
    if (r < 0)
        return r;
    r = kvm_ioctl(cpu->fd, request, structure);
    return r < 0 ? fail_errno(r, "%s of vCPU %u", name, cpu->index) : 0;
}

/* A part that is one structure of KVM's with a GET and a SET. */
#define PART_OF_STRUCTURE(name, type, request)                                                               \
    static int save_##name(const void *owner, struct state_writer *to)                                       \
    {                                                                                                        \
        struct type state = {0};                                                                             \
        return save_by(owner, KVM_GET_##request, "KVM_GET_" #request, &state, sizeof(state), to);            \
    }                                                                                                        \
    static int load_##name(void *owner, struct state_reader *from, uint16_t version)                         \
    {                                                                                                        \
        struct type state;                                                                                   \
        (void)version;                                                                                       \
        return load_by(owner, KVM_SET_##request, "KVM_SET_" #request, &state, sizeof(state), from);          \
    }
PART_OF_STRUCTURE(mp_state, kvm_mp_state, MP_STATE)
PART_OF_STRUCTURE(regs, kvm_regs, REGS)
PART_OF_STRUCTURE(xcrs, kvm_xcrs, XCRS)
PART_OF_STRUCTURE(debug, kvm_debugregs, DEBUGREGS)
PART_OF_STRUCTURE(lapic, kvm_lapic_state, LAPIC)
PART_OF_STRUCTURE(events, kvm_vcpu_events, VCPU_EVENTS)

static bool has(const struct vcpu *cpu, int capability)
{
    return kvm_ioctl_value(cpu->vm->kvm_fd, KVM_CHECK_EXTENSION, (unsigned long)capability) > 0;
}

/* ---- CPUID, as it was set: another host, or another version of this program, would make another ---- */

static int save_cpuid(const void *owner, struct state_writer *to)
{
    const struct vcpu *cpu = owner;
    CLEANUP_FREE struct kvm_cpuid2 *cpuid = cpuid_new();
    if (!cpuid)
        return -ENOMEM;
    int r = kvm_ioctl(cpu->fd, KVM_GET_CPUID2, cpuid);
    if (r < 0)
        return fail_errno(r, "KVM_GET_CPUID2 of vCPU %u", cpu->index);
    state_put(to, cpuid->entries, cpuid->nent * sizeof(cpuid->entries[0]));
    return 0;
}

static int load_cpuid(void *owner, struct state_reader *from, uint16_t version)
{
    const struct vcpu *cpu = owner;
    (void)version;
    CLEANUP_FREE struct kvm_cpuid2 *cpuid = cpuid_new();
    if (!cpuid)
        return -ENOMEM;
    size_t count = from->length / sizeof(cpuid->entries[0]);
    if (count == 0 || count > CPUID_ENTRIES_MAX)
        return fail(-EBADMSG, "saved state has %zu entries of CPUID", count);
    cpuid->nent = (uint32_t)count;
    int r = state_get(from, cpuid->entries, count * sizeof(cpuid->entries[0]));
    if (r < 0 || cpu->vm->thread_count > 0) /* one that has run has it, and KVM takes no other (5.17) */
        return r;
    r = kvm_ioctl(cpu->fd, KVM_SET_CPUID2, cpuid);
    return r < 0 ? fail_errno(r, "KVM_SET_CPUID2 of vCPU %u", cpu->index) : 0;
}

/* ---- The rate of the TSC ---- */

static int save_tsc_khz(const void *owner, struct state_writer *to)
{
    const struct vcpu *cpu = owner;
    int r = kvm_ioctl_value(cpu->fd, KVM_GET_TSC_KHZ, 0);
    if (r < 0)
        return fail_errno(r, "KVM_GET_TSC_KHZ of vCPU %u", cpu->index);
    uint32_t khz = (uint32_t)r;
    state_put(to, &khz, sizeof(khz));
    return 0;
}

/* What a guest's clocks bear, and what hosts of one kind differ by: 250 millionths (QEMU and Firecracker
 * use the same). */
static int load_tsc_khz(void *owner, struct state_reader *from, uint16_t version)
{
    const struct vcpu *cpu = owner;
    uint32_t khz;
    (void)version;
    int r = state_get(from, &khz, sizeof(khz));
    if (r < 0)
        return r;
    int here = kvm_ioctl_value(cpu->fd, KVM_GET_TSC_KHZ, 0);
    if (here < 0)
        return fail_errno(here, "KVM_GET_TSC_KHZ of vCPU %u", cpu->index);
    int64_t difference = (int64_t)khz - here;
    if (4000 * (difference < 0 ? -difference : difference) <= here)
        return 0;
    if (!has(cpu, KVM_CAP_TSC_CONTROL))
        return fail(-ENOTSUP,
                    "the saved guest's TSC runs at %u kHz, this host's at %d, and its KVM cannot change that",
                    khz, here);
    r = kvm_ioctl_value(cpu->fd, KVM_SET_TSC_KHZ, khz);
    return r < 0 ? fail_errno(r, "KVM_SET_TSC_KHZ of vCPU %u", cpu->index) : 0;
}

/* ---- Special registers: SREGS2 has the page directory pointers of PAE as well (5.14) ---- */

enum sregs_kind { SREGS_1 = 1, SREGS_2 = 2 };

static int save_sregs(const void *owner, struct state_writer *to)
{
    const struct vcpu *cpu = owner;
    uint32_t kind = has(cpu, KVM_CAP_SREGS2) ? SREGS_2 : SREGS_1;
    struct kvm_sregs sregs = {0};
    struct kvm_sregs2 sregs2 = {0};
    state_put(to, &kind, sizeof(kind));
    int r = kind == SREGS_2 ? save_by(cpu, KVM_GET_SREGS2, "KVM_GET_SREGS2", &sregs2, sizeof(sregs2), to)
                            : save_by(cpu, KVM_GET_SREGS, "KVM_GET_SREGS", &sregs, sizeof(sregs), to);
    if (r == 0 && ((sregs.cr4 | sregs2.cr4) & CR4_VMXE || (sregs.efer | sregs2.efer) & EFER_SVME))
        return fail(-ENOTSUP, "the guest is a hypervisor itself, whose state cannot be saved (turn nested "
                              "virtualisation off: option nested of kvm_intel or kvm_amd)");
    return r;
}

static int load_sregs(void *owner, struct state_reader *from, uint16_t version)
{
    const struct vcpu *cpu = owner;
    struct kvm_sregs sregs;
    struct kvm_sregs2 sregs2;
    uint32_t kind;
    (void)version;
    int r = state_get(from, &kind, sizeof(kind));
    if (r < 0)
        return r;
    switch ((enum sregs_kind)kind) {
    case SREGS_1: return load_by(cpu, KVM_SET_SREGS, "KVM_SET_SREGS", &sregs, sizeof(sregs), from);
    case SREGS_2: return load_by(cpu, KVM_SET_SREGS2, "KVM_SET_SREGS2", &sregs2, sizeof(sregs2), from);
    }
    return fail(-EBADMSG, "saved state has special registers of an unknown kind");
}

/* ---- FPU and vector registers: as many bytes as this host's KVM has ---- */

static size_t xsave_size(const struct vcpu *cpu)
{
    int size = kvm_ioctl_value(cpu->vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    return MAX(size > 0 ? (size_t)size : 0, sizeof(struct kvm_xsave));
}

static int save_xsave(const void *owner, struct state_writer *to)
{
    const struct vcpu *cpu = owner;
    size_t size = xsave_size(cpu);
    CLEANUP_FREE void *xsave = calloc(1, size);
    if (!xsave)
        return fail(-ENOMEM, "no memory for the vector registers of vCPU %u", cpu->index);
    if (size > sizeof(struct kvm_xsave))
        return save_by(cpu, KVM_GET_XSAVE2, "KVM_GET_XSAVE2", xsave, size, to);
    return save_by(cpu, KVM_GET_XSAVE, "KVM_GET_XSAVE", xsave, size, to);
}

static int load_xsave(void *owner, struct state_reader *from, uint16_t version)
{
    const struct vcpu *cpu = owner;
    size_t size = xsave_size(cpu), saved = from->length;
    (void)version;
    if (saved < sizeof(struct kvm_xsave) || saved > size)
        return fail(-ENOTSUP,
                    "the saved guest has %zu bytes of vector registers, this host's KVM takes %zu to %zu",
                    saved, sizeof(struct kvm_xsave), size);
    CLEANUP_FREE void *xsave = calloc(1, size);
    if (!xsave)
        return fail(-ENOMEM, "no memory for the vector registers of vCPU %u", cpu->index);
    return load_by(cpu, KVM_SET_XSAVE, "KVM_SET_XSAVE", xsave, saved, from);
}

const struct state_part vcpu_parts[] = {
    {"CPID", 1, STATE_REQUIRED, save_cpuid, load_cpuid},
    {"TKHZ", 1, STATE_REQUIRED, save_tsc_khz, load_tsc_khz},
    {"MPST", 1, STATE_REQUIRED, save_mp_state, load_mp_state},
    {"REGS", 1, STATE_REQUIRED, save_regs, load_regs},
    {"SREG", 1, STATE_REQUIRED, save_sregs, load_sregs},
    {"XSAV", 1, STATE_REQUIRED, save_xsave, load_xsave},
    {"XCRS", 1, STATE_REQUIRED, save_xcrs, load_xcrs},
    {"DEBR", 1, STATE_REQUIRED, save_debug, load_debug},
    {"LAPC", 1, STATE_REQUIRED, save_lapic, load_lapic},
    {"MSRS", 1, STATE_REQUIRED, vcpu_save_msrs, vcpu_load_msrs},
    {"EVNT", 1, STATE_REQUIRED, save_events, load_events},
};
const size_t vcpu_part_count = ARRAY_SIZE(vcpu_parts);
