#include "vcpu/internal.h"

#include <string.h>
#include <sys/mman.h>

/* Three pages below the IOAPIC's and BIOS area that Intel's VMX borrows for real mode (KVM_SET_TSS_ADDR), and
 * one before them for its identity map: not RAM in any layout of ours. */
#define KVM_TSS_GPA          0xfffbd000u
#define KVM_IDENTITY_MAP_GPA 0xfffbc000u

static int set_slot(const struct vm *vm, unsigned slot, gpa_t at, uint64_t size, void *host, uint32_t flags)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = flags,
        .guest_phys_addr = at.value,
        .memory_size = size,
        .userspace_addr = (uintptr_t)host,
    };
    int r = kvm_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
    return r < 0 ? fail_errno(r, "KVM_SET_USER_MEMORY_REGION of slot %u", slot) : 0;
}

static int set_memory(const struct vm *vm)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < vm->mem->region_count; i++) {
        const struct guest_region *region = &vm->mem->regions[i];
        r = set_slot(vm, i, region->start, region->size, region->host, 0);
    }
    return r;
}

/* After the slots of RAM. A KVM without read-only slots (none on x86 since Linux 3.7) lets reads exit. */
static int show_pages(struct vm *vm)
{
    const struct vm_reg_pages *reg_pages = &vm->reg_pages;
    if (reg_pages->count == 0 || kvm_ioctl_value(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) <= 0)
        return 0;
    uint8_t *host =
        mmap(NULL, reg_pages->count * GUEST_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (host == MAP_FAILED)
        return fail_errno(-errno, "no memory for %u pages of registers", reg_pages->count);
    vm->reg_pages_host = host;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < reg_pages->count; i++)
        r = set_slot(vm, vm->mem->region_count + i, gpa(reg_pages->first.value + i * reg_pages->stride),
                     GUEST_PAGE, host + i * GUEST_PAGE, KVM_MEM_READONLY);
    return r;
}

/*
 * The PIT is made only where the local APIC's timer would have to be calibrated against it. With the deadline
 * timer, whose rate KVM tells, no guest looks at it, and it costs two grace periods (15 ms) when the VM ends:
 * its removal from the interrupt notifiers waits for readers (kvm_free_pit, arch/x86/kvm/i8254.c).
 */
static int make_timer(struct vm *vm)
{
    bool deadline = kvm_ioctl_value(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    return deadline ? 0 : vm_make_pit(vm);
}

int vm_make_pit(struct vm *vm)
{
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    int r = kvm_ioctl(vm->fd, KVM_CREATE_PIT2, &pit);
    vm->has_pit = r >= 0;
    return r < 0 ? fail_errno(r, "KVM_CREATE_PIT2") : 0;
}

/*
 * No performance counters for the guest: KVM counts each instruction that it emulates in each of them, one
 * set up or not (140 instructions for a kick), and they tell a guest about its neighbours. Before the first
 * vCPU; a KVM that cannot (before Linux 5.18) has counters that CPUID does not mention.
 */
static int leave_counters_out(const struct vm *vm)
{
    struct kvm_enable_cap counters = {.cap = KVM_CAP_PMU_CAPABILITY, .args[0] = KVM_PMU_CAP_DISABLE};
    int known = kvm_ioctl_value(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_PMU_CAPABILITY);
    if (known <= 0 || !(known & KVM_PMU_CAP_DISABLE))
        return 0;
    int r = kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &counters);
    return r < 0 ? fail_errno(r, "KVM_ENABLE_CAP of KVM_CAP_PMU_CAPABILITY") : 0;
}

/* All memory slots come before the irqchip: after it a slot waits for a grace period on new kernels (7
 * ms). */
static int make_machine(struct vm *vm)
{
    int r = kvm_ioctl_value(vm->kvm_fd, KVM_CREATE_VM, 0);
    if (r < 0)
        return fail_errno(r, "KVM_CREATE_VM");
    vm->fd = r;
    r = leave_counters_out(vm);
    if (r < 0)
        return r;
    uint64_t identity_map = KVM_IDENTITY_MAP_GPA;
    r = kvm_ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
    if (r < 0)
        return fail_errno(r, "KVM_SET_IDENTITY_MAP_ADDR");
    r = kvm_ioctl_value(vm->fd, KVM_SET_TSS_ADDR, KVM_TSS_GPA);
    if (r < 0)
        return fail_errno(r, "KVM_SET_TSS_ADDR");
    r = set_memory(vm);
    if (r == 0)
        r = show_pages(vm);
    if (r < 0)
        return r;
    r = kvm_ioctl_value(vm->fd, KVM_CREATE_IRQCHIP, 0);
    if (r < 0)
        return fail_errno(r, "KVM_CREATE_IRQCHIP");
    return make_timer(vm);
}

static int make_cpu(struct vm *vm, unsigned index, struct kvm_cpuid2 *cpuid)
{
    struct vcpu *cpu = &vm->cpus[index];
    int r = kvm_ioctl_value(vm->fd, KVM_CREATE_VCPU, index);
    if (r < 0)
        return fail_errno(r, "KVM_CREATE_VCPU %u", index);
    cpu->fd = r;
    cpu->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
    if (cpu->run == MAP_FAILED) {
        cpu->run = NULL;
        return fail_errno(-errno, "mapping the kvm_run of vCPU %u", index);
    }
    /* A child of fork(2) that had it would keep the parent's VM alive. */
    if (madvise(cpu->run, vm->run_size, MADV_DONTFORK) < 0)
        return fail_errno(-errno, "keeping the kvm_run of vCPU %u from child processes", index);
    r = cpuid_set(cpu, cpuid); /* before MSRs: newer kernels check those against it */
    if (r < 0)
        return r;
    r = cpu_set_msrs(cpu);
    if (r < 0)
        return r;
    return cpu_set_lapic(cpu);
}

#define COALESCED_ENTRIES                                                                                    \
    ((GUEST_PAGE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

/* The ring of coalesced writes is one for the VM, and lies behind the kvm_run of each vCPU
 * (Documentation/virt/kvm/api.rst, 4.116). */
static void find_coalesced(struct vm *vm)
{
    int page = kvm_ioctl_value(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);
    if (page > 0 && vm->run_size >= ((size_t)page + 1) * GUEST_PAGE)
        vm->coalesced = (void *)((uint8_t *)vm->cpus[0].run + (size_t)page * GUEST_PAGE);
}

static int make_cpus(struct vm *vm)
{
    int limit = kvm_ioctl_value(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (limit > 0 && vm->cpu_count > (unsigned)limit)
        return fail(-EINVAL, "%u CPUs: this host's KVM has at most %d for a VM", vm->cpu_count, limit);
    int size = kvm_ioctl_value(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return fail(-ENOTSUP, "KVM_GET_VCPU_MMAP_SIZE: %d", size);
    vm->run_size = (size_t)size;

    CLEANUP_FREE struct kvm_cpuid2 *cpuid = NULL;
    int r = cpuid_prepare(vm->kvm_fd, &cpuid);
    for (unsigned i = 0; r >= 0 && i < vm->cpu_count; i++)
        r = make_cpu(vm, i, cpuid);
    if (r >= 0)
        find_coalesced(vm);
    return r;
}

int vm_new(int kvm_fd, const struct guest_mem *mem, const struct vm_reg_pages *reg_pages, unsigned cpu_count,
           struct vm *vm)
{
    *vm =
        (struct vm){.kvm_fd = kvm_fd, .fd = -1, .mem = mem, .reg_pages = *reg_pages, .cpu_count = cpu_count};
    if (cpu_count == 0 || cpu_count > VM_CPUS_MAX)
        return fail(-EINVAL, "%u CPUs: a VM has 1 to %u", cpu_count, VM_CPUS_MAX);
    vm->cpus = calloc(cpu_count, sizeof(*vm->cpus));
    if (!vm->cpus)
        return fail(-ENOMEM, "no memory for %u vCPUs", cpu_count);
    for (unsigned i = 0; i < cpu_count; i++)
        vm->cpus[i] = (struct vcpu){.vm = vm, .index = i, .fd = -1};

    int r = make_machine(vm);
    if (r >= 0)
        r = make_cpus(vm);
    if (r < 0)
        vm_free(vm);
    return r < 0 ? r : 0;
}

void vm_free(struct vm *vm)
{
    vm_stop(vm);
    for (unsigned i = 0; vm->cpus && i < vm->cpu_count; i++) {
        if (vm->cpus[i].run)
            munmap(vm->cpus[i].run, vm->run_size);
        cleanup_fd(&vm->cpus[i].fd);
    }
    free(vm->cpus);
    vm->cpus = NULL;
    vm->coalesced = NULL;
    if (vm->reg_pages_host)
        munmap(vm->reg_pages_host, vm->reg_pages.count * GUEST_PAGE);
    vm->reg_pages_host = NULL;
    cleanup_fd(&vm->fd);
}

int vm_add_ioeventfd(struct vm *vm, gpa_t at, uint32_t datamatch, int event_fd)
{
    struct kvm_ioeventfd event = {
        .datamatch = datamatch,
        .addr = at.value,
        .len = sizeof(uint32_t),
        .fd = event_fd,
        .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
    };
    int r = kvm_ioctl(vm->fd, KVM_IOEVENTFD, &event);
    return r < 0 ? fail_errno(r, "KVM_IOEVENTFD at 0x%llx", (unsigned long long)at.value) : 0;
}

int vm_add_irqfd(struct vm *vm, uint32_t gsi, int event_fd)
{
    struct kvm_irqfd irqfd = {.fd = (uint32_t)event_fd, .gsi = gsi};
    int r = kvm_ioctl(vm->fd, KVM_IRQFD, &irqfd);
    return r < 0 ? fail_errno(r, "KVM_IRQFD for line %u", gsi) : 0;
}

void *vm_reg_page(const struct vm *vm, gpa_t at)
{
    const struct vm_reg_pages *reg_pages = &vm->reg_pages;
    uint64_t offset = at.value - reg_pages->first.value; /* below the first: more than there are */
    if (!vm->reg_pages_host || offset % reg_pages->stride || offset / reg_pages->stride >= reg_pages->count)
        return NULL;
    return vm->reg_pages_host + offset / reg_pages->stride * GUEST_PAGE;
}

int vm_coalesce_mmio(struct vm *vm, gpa_t at, uint32_t length)
{
    struct kvm_coalesced_mmio_zone zone = {.addr = at.value, .size = length};
    if (!vm->coalesced)
        return 0;
    int r = kvm_ioctl(vm->fd, KVM_REGISTER_COALESCED_MMIO, &zone);
    return r < 0 ? fail_errno(r, "KVM_REGISTER_COALESCED_MMIO at 0x%llx", (unsigned long long)at.value) : 0;
}

bool vm_pop_coalesced(struct vm *vm, struct vcpu_access *ret_write)
{
    struct kvm_coalesced_mmio_ring *ring = vm->coalesced;
    if (!ring)
        return false;
    /* KVM fills the entry and then moves `last`; what is behind `first` it fills again. */
    uint32_t first = ring->first;
    if (first == __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE))
        return false;
    const struct kvm_coalesced_mmio *entry = &ring->coalesced_mmio[first];
    *ret_write = (struct vcpu_access){
        .space = VCPU_MMIO, .is_write = true, .length = entry->len, .address = entry->phys_addr};
    memcpy(&ret_write->value, entry->data, sizeof(entry->data));
    __atomic_store_n(&ring->first, (first + 1) % (uint32_t)COALESCED_ENTRIES, __ATOMIC_RELEASE);
    return true;
}
