/* The state of a VM with all its vCPUs: one section a vCPU, and then the VM's own, since the IOAPIC
 * interrupts as it is loaded, into local APICs that must be there. */
#include "vcpu/internal.h"

#include <string.h>

#define IRQCHIPS 3u /* two PICs and the IOAPIC */

static int save_irqchips(const void *owner, struct state_writer *to)
{
    const struct vm *vm = owner;
    for (uint32_t id = 0; id < IRQCHIPS; id++) {
        struct kvm_irqchip chip = {.chip_id = id};
        int r = kvm_ioctl(vm->fd, KVM_GET_IRQCHIP, &chip);
        if (r < 0)
            return fail_errno(r, "KVM_GET_IRQCHIP %u", id);
        state_put(to, &chip, sizeof(chip));
    }
    return 0;
}

static int load_irqchips(void *owner, struct state_reader *from, uint16_t version)
{
    const struct vm *vm = owner;
    (void)version;
    for (uint32_t id = 0; id < IRQCHIPS; id++) {
        struct kvm_irqchip chip;
        int r = state_get(from, &chip, sizeof(chip));
        if (r < 0)
            return r;
        chip.chip_id = id;
        r = kvm_ioctl(vm->fd, KVM_SET_IRQCHIP, &chip);
        if (r < 0)
            return fail_errno(r, "KVM_SET_IRQCHIP %u", id);
    }
    return 0;
}

static int save_pit(const void *owner, struct state_writer *to)
{
    const struct vm *vm = owner;
    struct kvm_pit_state2 pit = {0};
    if (!vm->has_pit)
        return 0;
    int r = kvm_ioctl(vm->fd, KVM_GET_PIT2, &pit);
    if (r < 0)
        return fail_errno(r, "KVM_GET_PIT2");
    state_put(to, &pit, sizeof(pit));
    return 0;
}

/* A guest that had a PIT has one here, whether this host's guests need one or not. */
static int load_pit(void *owner, struct state_reader *from, uint16_t version)
{
    struct vm *vm = owner;
    struct kvm_pit_state2 pit;
    (void)version;
    int r = state_get(from, &pit, sizeof(pit));
    if (r == 0 && !vm->has_pit)
        r = vm_make_pit(vm);
    if (r < 0)
        return r;
    r = kvm_ioctl(vm->fd, KVM_SET_PIT2, &pit);
    return r < 0 ? fail_errno(r, "KVM_SET_PIT2") : 0;
}

static const struct state_part vm_parts[] = {
    {"IRQC", 1, STATE_REQUIRED, save_irqchips, load_irqchips},
    {"PIT2", 1, STATE_OPTIONAL, save_pit, load_pit},
    {"CLCK", 1, STATE_REQUIRED, vm_save_clock, vm_load_clock},
};

#define VCPU_TAG   "VCPU"
#define VM_TAG     "KVM "
#define VM_VERSION 1u

int vm_save(const struct vm *vm, struct state_writer *to)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < vm->cpu_count; i++) {
        size_t begin = state_begin(to, VCPU_TAG, VM_VERSION);
        r = state_save(vcpu_parts, vcpu_part_count, &vm->cpus[i], to);
        state_end(to, begin);
    }
    if (r < 0)
        return r;
    size_t begin = state_begin(to, VM_TAG, VM_VERSION);
    r = state_save(vm_parts, ARRAY_SIZE(vm_parts), vm, to);
    state_end(to, begin);
    return r < 0 ? r : to->error;
}

static int next_section(struct state_reader *from, const char *tag, struct state_section *ret_section)
{
    int r = state_next(from, ret_section);
    if (r < 0)
        return r;
    if (r == 0 || strcmp(ret_section->tag, tag) != 0)
        return fail(-EBADMSG, "saved state has another number of vCPUs than this VM");
    if (ret_section->version > VM_VERSION)
        return fail(-ENOTSUP, "saved state is of a newer version of this program");
    return 0;
}

int vm_load(struct vm *vm, struct state_reader *from, enum vm_clock clock)
{
    struct state_section section;
    int r = 0;
    vm->load_clock = clock;
    for (unsigned i = 0; r == 0 && i < vm->cpu_count; i++) {
        r = next_section(from, VCPU_TAG, &section);
        if (r == 0)
            r = state_load(vcpu_parts, vcpu_part_count, &vm->cpus[i], section.body);
    }
    if (r == 0)
        r = next_section(from, VM_TAG, &section);
    if (r == 0)
        r = state_load(vm_parts, ARRAY_SIZE(vm_parts), vm, section.body);
    return r;
}
