/*
 * CPUID: what this host's KVM supports, no more, with what only we know filled in. Numbers: Intel SDM volume
 * 2 (CPUID), AMD APM volume 3 appendix E, Documentation/virt/kvm/x86/cpuid.rst.
 */
#include "vcpu/internal.h"

#include <string.h>

#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR   (1u << 31)
#define LEAF1_ECX_PDCM         (1u << 15)
#define LEAF1_EDX_HTT          (1u << 28)

#define LEAF7_EDX_ARCH_LBR (1u << 19)

#define AMD1_ECX_PERFCTR_CORE (1u << 23)
#define AMD1_ECX_PERFCTR_NB   (1u << 24)
#define AMD1_ECX_PERFCTR_LLC  (1u << 28)

/* The guest has no performance counters (leave_counters_out() in vm.c), whatever KVM lists. */
static void hide_counters(struct kvm_cpuid_entry2 *entry)
{
    switch (entry->function) {
    case 1: entry->ecx &= ~LEAF1_ECX_PDCM; break;
    case 7:
        if (entry->index == 0)
            entry->edx &= ~LEAF7_EDX_ARCH_LBR;
        break;
    case 0xa:  /* Intel's counters */
    case 0x1c: /* its branch records */
    case 0x80000022: /* AMD's, second version */ entry->eax = entry->ebx = entry->ecx = entry->edx = 0; break;
    case 0x80000001:
        entry->ecx &= ~(AMD1_ECX_PERFCTR_CORE | AMD1_ECX_PERFCTR_NB | AMD1_ECX_PERFCTR_LLC);
        break;
    default: break;
    }
}

struct kvm_cpuid2 *cpuid_new(void)
{
    struct kvm_cpuid2 *cpuid =
        calloc(1, sizeof(*cpuid) + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));
    if (cpuid)
        cpuid->nent = CPUID_ENTRIES_MAX;
    else
        fail_message("no memory for CPUID");
    return cpuid;
}

int cpuid_prepare(int kvm_fd, struct kvm_cpuid2 **ret_template)
{
    CLEANUP_FREE struct kvm_cpuid2 *cpuid = cpuid_new();
    if (!cpuid)
        return -ENOMEM;
    int r = kvm_ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid);
    if (r < 0)
        return fail_errno(r, "KVM_GET_SUPPORTED_CPUID");

    /* KVM leaves both out of its list although it has them. Without them Linux calibrates its clocks against
     * the PIT for 27 ms. */
    bool deadline = kvm_ioctl_value(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    for (uint32_t i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
        if (entry->function == 1)
            entry->ecx |= LEAF1_ECX_HYPERVISOR | (deadline ? LEAF1_ECX_TSC_DEADLINE : 0);
        hide_counters(entry);
    }
    *ret_template = ptr_steal(&cpuid);
    return 0;
}

/* Bits needed to tell `count` things apart. */
static uint32_t bits_for(uint32_t count)
{
    return count <= 1 ? 0 : 32u - (uint32_t)__builtin_clz(count - 1);
}

/*
 * Topology: one package, one thread a core, as many cores as vCPUs, APIC id = vCPU index. Leaves that the
 * host does not have are not invented.
 */
static void set_topology(struct kvm_cpuid_entry2 *entry, uint32_t index, uint32_t count)
{
    uint32_t width = bits_for(count);
    switch (entry->function) {
    case 1: /* EBX: initial APIC id, logical processors in the package */
        entry->ebx = (entry->ebx & 0xffffu) | index << 24 | MIN(count, 255u) << 16;
        if (count > 1)
            entry->edx |= LEAF1_EDX_HTT;
        else
            entry->edx &= ~LEAF1_EDX_HTT;
        break;
    case 4: /* EAX 25:14 logical processors sharing the cache - 1, 31:26 cores in the package - 1 */
        if (entry->eax & 0x1f) {
            uint32_t level = entry->eax >> 5 & 7;
            uint32_t sharing = level >= 3 ? count - 1 : 0;
            entry->eax = (entry->eax & 0x3fffu) | (sharing & 0xfff) << 14 | MIN(count - 1, 63u) << 26;
        }
        break;
    case 0xb: /* extended topology: level 0 threads, level 1 cores */
    case 0x1f:
        entry->edx = index;
        entry->ecx = entry->index & 0xff;
        entry->eax = entry->ebx = 0;
        if (entry->index == 0) {
            entry->ebx = 1;
            entry->ecx |= 1u << 8;
        } else if (entry->index == 1) {
            entry->eax = width;
            entry->ebx = count;
            entry->ecx |= 2u << 8;
        }
        break;
    case 0x80000008: /* AMD: ECX 7:0 cores - 1, 15:12 bits of the core id in the APIC id */
        entry->ecx = (entry->ecx & ~0xf0ffu) | (count - 1) | width << 12;
        break;
    case 0x8000001d: /* AMD cache properties: EAX 25:14 as in leaf 4 */
        if (entry->eax & 0x1f) {
            uint32_t sharing = (entry->eax >> 5 & 7) >= 3 ? count - 1 : 0;
            entry->eax = (entry->eax & 0x3fffu) | (sharing & 0xfff) << 14;
        }
        break;
    case 0x8000001e: /* AMD: extended APIC id; core id, one thread a core; node 0 of 1 */
        entry->eax = index;
        entry->ebx = index & 0xff;
        entry->ecx = 0;
        break;
    default: break;
    }
}

int cpuid_set(const struct vcpu *cpu, struct kvm_cpuid2 *template)
{
    for (uint32_t i = 0; i < template->nent; i++)
        set_topology(&template->entries[i], cpu->index, cpu->vm->cpu_count);
    int r = kvm_ioctl(cpu->fd, KVM_SET_CPUID2, template);
    return r < 0 ? fail_errno(r, "KVM_SET_CPUID2") : 0;
}
