/*
 * A vCPU's state before its first instruction, as PVH and a PC's firmware leave it. Numbers: Intel SDM
 * volumes 3 and 4, Xen's docs/misc/pvh.pandoc.
 */
#include "vcpu/internal.h"

#include <string.h>

#define CR0_PE   (1u << 0)
#define CR0_ET   (1u << 4)
#define EFLAGS_1 2u /* bit 1 reads as one */

#define MSR_IA32_MISC_ENABLE     0x1a0u
#define MISC_ENABLE_FAST_STRINGS 1u
#define MSR_MTRR_DEF_TYPE        0x2ffu
#define MTRR_DEF_TYPE_WB_ENABLED (1u << 11 | 6u) /* MTRRs on, all memory write-back */

#define APIC_LVT_LINT0   0x350u
#define APIC_LVT_LINT1   0x360u
#define APIC_MODE_NMI    (4u << 8)
#define APIC_MODE_EXTINT (7u << 8)

int cpu_set_msrs(const struct vcpu *cpu)
{
    static const struct {
        uint32_t index;
        uint64_t value;
    } wanted[] = {
        {MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRINGS},
        {MSR_MTRR_DEF_TYPE, MTRR_DEF_TYPE_WB_ENABLED},
    };
    /* One at a time: some KVMs lack one or the other, and the kernel does without either (it only boots
     * slower). */
    for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++) {
        struct {
            struct kvm_msrs header;
            struct kvm_msr_entry entry;
        } msrs = {.header.nmsrs = 1, .entry = {.index = wanted[i].index, .data = wanted[i].value}};
        int r = kvm_ioctl(cpu->fd, KVM_SET_MSRS, &msrs);
        if (r < 0)
            return fail_errno(r, "KVM_SET_MSRS");
    }
    return 0;
}

static void apic_set(struct kvm_lapic_state *apic, uint32_t reg, uint32_t value)
{
    memcpy(&apic->regs[reg], &value, sizeof(value));
}

/* Virtual wire mode: the PIC through LINT0, NMI through LINT1 (MP specification 1.4, 3.6.2.2). */
int cpu_set_lapic(const struct vcpu *cpu)
{
    struct kvm_lapic_state apic;
    int r = kvm_ioctl(cpu->fd, KVM_GET_LAPIC, &apic);
    if (r < 0)
        return fail_errno(r, "KVM_GET_LAPIC");
    apic_set(&apic, APIC_LVT_LINT0, APIC_MODE_EXTINT);
    apic_set(&apic, APIC_LVT_LINT1, APIC_MODE_NMI);
    r = kvm_ioctl(cpu->fd, KVM_SET_LAPIC, &apic);
    return r < 0 ? fail_errno(r, "KVM_SET_LAPIC") : 0;
}

/* 32-bit protected mode, flat segments, no paging, interrupts off; EBX points at the start info. */
int vm_set_pvh_entry(struct vm *vm, gpa_t entry, gpa_t start_info)
{
    int fd = vm->cpus[0].fd;
    struct kvm_sregs sregs;
    int r = kvm_ioctl(fd, KVM_GET_SREGS, &sregs);
    if (r < 0)
        return fail_errno(r, "KVM_GET_SREGS");

    const struct kvm_segment code = {
        .limit = 0xffffffff,
        .selector = 0x8,
        .type = 0xb /* execute, read, accessed */,
        .present = 1,
        .db = 1,
        .s = 1,
        .g = 1,
    };
    struct kvm_segment data = code;
    data.selector = 0x10;
    data.type = 0x3; /* read, write, accessed */
    const struct kvm_segment task = {
        .limit = 0x67,
        .selector = 0x18,
        .type = 0xb /* busy 32-bit TSS: VMX refuses anything less */,
        .present = 1,
    };
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.tr = task;
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr3 = sregs.cr4 = sregs.efer = 0;
    r = kvm_ioctl(fd, KVM_SET_SREGS, &sregs);
    if (r < 0)
        return fail_errno(r, "KVM_SET_SREGS");

    struct kvm_regs regs = {.rip = entry.value, .rbx = start_info.value, .rflags = EFLAGS_1};
    r = kvm_ioctl(fd, KVM_SET_REGS, &regs);
    return r < 0 ? fail_errno(r, "KVM_SET_REGS") : 0;
}
