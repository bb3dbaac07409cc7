/* A vCPU's model-specific registers, saved and loaded: those that KVM lists, and those that it has without
 * listing them. */
#include "vcpu/internal.h"

#include <string.h>

#define MSRS_MAX  1024u
#define MSR_BATCH 255u /* KVM takes fewer than 256 at once (MAX_IO_MSRS, arch/x86/kvm/x86.c: msr_io) */

#define APIC_LVT_TIMER      0x320u
#define APIC_LVT_MASKED     (1u << 16)
#define APIC_TIMER_MODE     (3u << 17)
#define APIC_TIMER_DEADLINE (2u << 17)

struct msrs {
    uint32_t count;
    struct kvm_msr_entry entries[MSRS_MAX];
};

struct msr_batch {
    struct kvm_msrs header;
    struct kvm_msr_entry entries[MSR_BATCH];
};

static void add(struct msrs *msrs, uint32_t index)
{
    if (msrs->count < MSRS_MAX)
        msrs->entries[msrs->count++] = (struct kvm_msr_entry){.index = index};
}

/* Memory types and machine checks (Intel SDM volume 4): KVM keeps both, and its list has neither. */
static void add_unlisted(struct msrs *msrs)
{
    static const struct {
        uint32_t first, count;
    } ranges[] = {
        {0x200, 16},                                      /* MTRRs: variable */
        {0x250, 1},   {0x258, 2}, {0x268, 8}, {0x2ff, 1}, /* fixed, and the default */
        {0x400, 128},                                     /* machine checks: 32 banks of four */
    };
    for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++)
        for (uint32_t n = 0; n < ranges[i].count; n++)
            add(msrs, ranges[i].first + n);
}

/* The registers to save, the deadline last: it means nothing before the TSC. */
static int list_msrs(const struct vcpu *cpu, struct msrs *msrs)
{
    CLEANUP_FREE struct kvm_msr_list *list = calloc(1, sizeof(*list) + MSRS_MAX * sizeof(list->indices[0]));
    if (!list)
        return fail(-ENOMEM, "no memory for a list of registers");
    list->nmsrs = MSRS_MAX;
    int r = kvm_ioctl(cpu->vm->kvm_fd, KVM_GET_MSR_INDEX_LIST, list);
    if (r < 0)
        return fail_errno(r, "KVM_GET_MSR_INDEX_LIST");
    bool deadline = false;
    for (uint32_t i = 0; i < list->nmsrs; i++) {
        if (list->indices[i] == MSR_IA32_TSC_DEADLINE)
            deadline = true;
        else
            add(msrs, list->indices[i]);
    }
    add_unlisted(msrs);
    if (deadline)
        add(msrs, MSR_IA32_TSC_DEADLINE);
    return 0;
}

/* Hands `count` registers from `entries` on to KVM, which says how many it took before one that it refused.
 * */
static int some_msrs(const struct vcpu *cpu, unsigned long request, struct kvm_msr_entry *entries,
                     uint32_t count)
{
    struct msr_batch batch = {.header.nmsrs = MIN(count, MSR_BATCH)};
    memcpy(batch.entries, entries, batch.header.nmsrs * sizeof(entries[0]));
    int r = kvm_ioctl(cpu->fd, request, &batch);
    if (r > 0)
        memcpy(entries, batch.entries, (size_t)r * sizeof(entries[0]));
    return r < 0 ? fail_errno(r, "registers of vCPU %u", cpu->index) : r;
}

int vcpu_save_msrs(const void *owner, struct state_writer *to)
{
    const struct vcpu *cpu = owner;
    CLEANUP_FREE struct msrs *msrs = calloc(1, sizeof(*msrs));
    if (!msrs)
        return fail(-ENOMEM, "no memory for the registers of vCPU %u", cpu->index);
    int r = list_msrs(cpu, msrs);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < msrs->count;) {
        r = some_msrs(cpu, KVM_GET_MSRS, &msrs->entries[i], msrs->count - i);
        if (r < 0)
            return r;
        state_put(to, &msrs->entries[i], (size_t)r * sizeof(msrs->entries[0]));
        i += (uint32_t)r;
        /* What it stopped at this guest does not have. */
        if (r == 0)
            i++;
    }
    return 0;
}

/* KVM refuses some registers that can only be read. That is all right where the value is the same here. */
static int load_refused(const struct vcpu *cpu, const struct kvm_msr_entry *wanted)
{
    struct kvm_msr_entry here = {.index = wanted->index};
    int r = some_msrs(cpu, KVM_GET_MSRS, &here, 1);
    if (r < 0)
        return r;
    if (r == 0 || here.data != wanted->data)
        return fail(-ENOTSUP, "this host's KVM refuses 0x%llx for register 0x%x of vCPU %u",
                    (unsigned long long)wanted->data, wanted->index, cpu->index);
    return 0;
}

/*
 * A deadline of 0 is none, or one that was reached while KVM had not interrupted for it yet. A guest that
 * waits for the second would wait for ever, and bears an interrupt too many: so the deadline is now.
 */
static int rearm(const struct vcpu *cpu, struct msrs *msrs)
{
    struct kvm_lapic_state apic;
    struct kvm_msr_entry *tsc = NULL, *deadline = NULL;
    for (uint32_t i = 0; i < msrs->count; i++) {
        if (msrs->entries[i].index == MSR_IA32_TSC)
            tsc = &msrs->entries[i];
        if (msrs->entries[i].index == MSR_IA32_TSC_DEADLINE)
            deadline = &msrs->entries[i];
    }
    if (!tsc || !deadline || deadline->data != 0)
        return 0;
    int r = kvm_ioctl(cpu->fd, KVM_GET_LAPIC, &apic);
    if (r < 0)
        return fail_errno(r, "KVM_GET_LAPIC of vCPU %u", cpu->index);
    uint32_t timer;
    memcpy(&timer, &apic.regs[APIC_LVT_TIMER], sizeof(timer));
    if ((timer & APIC_TIMER_MODE) == APIC_TIMER_DEADLINE && !(timer & APIC_LVT_MASKED))
        deadline->data = tsc->data;
    return 0;
}

int vcpu_load_msrs(void *owner, struct state_reader *from, uint16_t version)
{
    const struct vcpu *cpu = owner;
    (void)version;
    CLEANUP_FREE struct msrs *msrs = calloc(1, sizeof(*msrs));
    if (!msrs)
        return fail(-ENOMEM, "no memory for the registers of vCPU %u", cpu->index);
    size_t count = from->length / sizeof(msrs->entries[0]);
    if (count > MSRS_MAX)
        return fail(-EBADMSG, "saved state has %zu registers", count);
    msrs->count = (uint32_t)count;
    int r = state_get(from, msrs->entries, count * sizeof(msrs->entries[0]));
    if (r == 0)
        r = rearm(cpu, msrs);
    for (uint32_t i = 0; r >= 0 && i < msrs->count;) {
        r = some_msrs(cpu, KVM_SET_MSRS, &msrs->entries[i], msrs->count - i);
        if (r == 0)
            r = load_refused(cpu, &msrs->entries[i++]);
        else if (r > 0)
            i += (uint32_t)r;
    }
    return r < 0 ? r : 0;
}
