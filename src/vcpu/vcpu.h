/*
 * /dev/kvm: the VM, its vCPUs and their threads. A vCPU thread runs KVM_RUN and hands every access of the
 * guest to one function; it knows no device.
 */
#pragma once

#include "vcpu/mem.h"
#include <pthread.h>
#include <stdatomic.h>

struct kvm_coalesced_mmio_ring;
struct kvm_run;

enum vcpu_space { VCPU_MMIO, VCPU_PORT };

/* One access of the guest, on the vCPU's thread. For a read, `value` is the answer. `length` is 1, 2, 4 or
 * 8. */
struct vcpu_access {
    enum vcpu_space space;
    bool is_write;
    uint32_t length;
    uint64_t address;
    uint64_t value;
    _Atomic uint32_t answered; /* for whoever makes the thread wait: 0 before, 1 after (a futex word) */
};

/* Why a vCPU stopped running the guest without being asked to. */
enum vcpu_end {
    VCPU_END_TRIPLE_FAULT, /* KVM_EXIT_SHUTDOWN: also what `reboot=t` does */
    VCPU_END_SYSTEM_EVENT,
    VCPU_END_ERROR, /* KVM could not go on; the message says what and where */
};

struct vcpu_callbacks {
    void *context;
    /* vCPU thread: its first step, before anything of the guest's. Optional. */
    void (*started)(void *context, unsigned index);
    /* vCPU thread. Returns when the access is done as far as the guest can tell. */
    void (*access)(void *context, struct vcpu_access *access);
    /* vCPU thread: the guest has ended on this vCPU. `message` is NULL or valid during the call. */
    void (*ended)(void *context, unsigned index, enum vcpu_end why, const char *message);
    /* vCPU thread: this vCPU has stopped at a safe point, as vm_pause() asked. Once per vCPU and pause.
     * Optional for who never pauses. */
    void (*parked)(void *context, unsigned index);
    /* vCPUs are taken out of the guest by a timer each, and not by a signal of ours: for a process that has
     * no right to send any, since its filter has the number of the one that it is a copy of. */
    bool kicks_by_timer;
};

/* What a vCPU has cost so far. */
struct vcpu_counts {
    uint64_t mmio_reads, mmio_writes, port_reads, port_writes; /* that left the kernel */
    uint64_t cpu_ns; /* CPU time of its thread, the guest's included */
};

struct vcpu {
    struct vm *vm;
    unsigned index;
    int fd;
    struct kvm_run *run;
    pthread_t thread;
    timer_t kick_timer; /* callbacks->kicks_by_timer */
    _Atomic bool has_kick_timer;
    uint32_t parked_for; /* vCPU thread: the value of vm->pauses that it last parked for */
    _Atomic uint64_t exits
        [4]; /* accesses that came to the process, MMIO first, reads first; its thread alone writes them */
};

/*
 * Pages outside RAM that the guest reads as memory and whose writes exit as those to a device do: `count` of
 * them, one every `stride` bytes from `first`.
 */
struct vm_reg_pages {
    gpa_t first;
    uint64_t stride;
    unsigned count;
};

/* Where the guest's clock (kvmclock) is after its state was loaded. */
enum vm_clock {
    VM_CLOCK_GOES_ON,    /* where it was: the guest does not notice */
    VM_CLOCK_CATCHES_UP, /* as much later as the host's clock is. Needs Linux 5.16 at both ends. */
};

struct vm {
    int kvm_fd; /* lent */
    int fd;
    const struct guest_mem *mem;
    struct vm_reg_pages reg_pages;
    uint8_t *reg_pages_host; /* the pages, one after the other, zeroed; NULL where KVM cannot show them */
    struct kvm_coalesced_mmio_ring *coalesced; /* NULL where KVM cannot coalesce */
    bool has_pit;
    enum vm_clock load_clock; /* for the time of vm_load() */
    unsigned cpu_count;
    struct vcpu *cpus;
    size_t run_size; /* bytes of the kvm_run mapping */
    const struct vcpu_callbacks *callbacks;
    unsigned thread_count;   /* vCPU threads that run or are parked */
    _Atomic uint32_t pauses; /* odd: the vCPUs are to park. A futex word. */
    _Atomic bool stopping;   /* a parked vCPU thread ends instead of running on */
};

#define VM_CPUS_MAX 254u /* 8-bit APIC ids; 255 is broadcast */

/* Opens /dev/kvm and looks for all that a VM stands on. -ENODEV, -EACCES, -EBUSY and -ENOTSUP come with the
 * remedy. The caller owns the descriptor and may make several VMs with it, one after the other, also in a
 * child of fork(2), where the VM itself is of no use any more. */
int kvm_open(int *ret_kvm_fd);

/*
 * Makes the VM: memory slots first, then the irqchip (and a PIT if a guest needs one), then vCPUs with
 * CPUID and MSRs set (the order matters: slots set after the irqchip wait for a grace period on new
 * kernels). Errors name the ioctl, and leave nothing behind. `kvm_fd` and `mem` are lent for the VM's life,
 * which ends with vm_free(). A VM stays where it is in memory.
 */
int vm_new(int kvm_fd, const struct guest_mem *mem, const struct vm_reg_pages *reg_pages, unsigned cpu_count,
           struct vm *vm);

/* Ends a VM, its threads included (vm_stop). Does nothing to one that is zeroed or was freed. */
void vm_free(struct vm *vm);

/* Registers: vCPU 0 enters a PVH kernel at `entry` with EBX = `start_info`; the others wait for INIT/SIPI. */
int vm_set_pvh_entry(struct vm *vm, gpa_t entry, gpa_t start_info);

/* Writes to `at` (guest physical, 4 bytes) of value `datamatch` signal `event_fd` inside KVM and never
 * exit. */
int vm_add_ioeventfd(struct vm *vm, gpa_t at, uint32_t datamatch, int event_fd);

/* Each signal of `event_fd` raises line `gsi` and lowers it again, inside KVM. The line must not be one that
 * KVM_IRQ_LINE raises: an edge on a line that is up already is lost. */
int vm_add_irqfd(struct vm *vm, uint32_t gsi, int event_fd);

/* The host's side of the register page at `at`; NULL if there is none, and the guest's reads of it exit. */
void *vm_reg_page(const struct vm *vm, gpa_t at);

/*
 * Writes to the `length` bytes at `at` are kept inside KVM for vm_pop_coalesced(). A few fit (170 on x86),
 * and what does not exits; so does everything on a KVM that cannot coalesce.
 */
int vm_coalesce_mmio(struct vm *vm, gpa_t at, uint32_t length);

/* The oldest coalesced write, which is forgotten: false if there is none. One thread at a time. */
bool vm_pop_coalesced(struct vm *vm, struct vcpu_access *ret_write);

/* Of vCPU `index`. Any thread, while the VM exists. */
void vm_count(const struct vm *vm, unsigned index, struct vcpu_counts *ret_counts);

/*
 * The vCPU threads. All of these are for the loop thread, and none waits for a vCPU: one that is asked to
 * park may first need the loop to answer a read or to take a message from a full mailbox.
 *
 *   vm_start() ──► parked ── vm_resume() ──► running ── vm_pause() ──► callbacks->parked() for each
 *                    │ ▲                                                          │
 *       vm_stop() ◄──┘ └──────────────────────────────────────────────────────────┘
 *
 * A parked vCPU has completed its last access, so that its registers may be read and written from any thread.
 */

/* Starts one thread per vCPU, parked. `callbacks` is lent until vm_stop(). On failure no thread is left. */
int vm_start(struct vm *vm, const struct vcpu_callbacks *callbacks);

/* Asks every vCPU to park. Each calls callbacks->parked() once, also one that has ended. Not while paused. */
void vm_pause(struct vm *vm);

/* Lets the vCPUs run. After vm_start(), or when each has called callbacks->parked(). One that had ended runs
 * again, from the state that it has now. */
void vm_resume(struct vm *vm);

/* Ends the vCPU threads. When parked, as for vm_resume(); does nothing if there are none. */
void vm_stop(struct vm *vm);

/*
 * The state that KVM has of the VM and all its vCPUs. Any thread, while they are parked or not started.
 * Negative errno with a message; -ENOTSUP: the guest is a hypervisor itself.
 */
struct state_reader;
struct state_writer;
int vm_save(const struct vm *vm, struct state_writer *to);

/*
 * Loads what vm_save() wrote into a VM of as many vCPUs, new or parked, and leaves `from` after it. The
 * bytes may be anybody's. -EBADMSG: they are not a VM's state, or of another number of vCPUs; -ENOTSUP: of
 * a newer version, or for another kind of processor. After a failure the VM can only be loaded again or
 * freed.
 */
int vm_load(struct vm *vm, struct state_reader *from, enum vm_clock clock);
