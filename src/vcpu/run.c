/* A vCPU's thread: KVM_RUN, handing each access of the guest on, and parking. */
#include "vcpu/internal.h"

#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>

/* A vCPU thread's own needs are a few frames; the guest runs on none of it. */
#define VCPU_STACK_SIZE (64 * KIB)

static void count_exit(struct vcpu *cpu, enum vcpu_space space, bool is_write)
{
    _Atomic uint64_t *count = &cpu->exits[(space == VCPU_PORT ? 2 : 0) + is_write];
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void forward_port(struct vcpu *cpu)
{
    struct kvm_run *run = cpu->run;
    const struct vcpu_callbacks *to = cpu->vm->callbacks;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    count_exit(cpu, VCPU_PORT, run->io.direction == KVM_EXIT_IO_OUT);
    /* A string instruction (rep outsb) comes as `count` elements. */
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        struct vcpu_access access = {
            .space = VCPU_PORT,
            .is_write = run->io.direction == KVM_EXIT_IO_OUT,
            .length = run->io.size,
            .address = run->io.port,
        };
        if (access.is_write)
            memcpy(&access.value, data, run->io.size);
        to->access(to->context, &access);
        if (!access.is_write)
            memcpy(data, &access.value, run->io.size);
    }
}

static void forward_mmio(struct vcpu *cpu)
{
    struct kvm_run *run = cpu->run;
    const struct vcpu_callbacks *to = cpu->vm->callbacks;
    struct vcpu_access access = {
        .space = VCPU_MMIO,
        .is_write = run->mmio.is_write,
        .length = run->mmio.len,
        .address = run->mmio.phys_addr,
    };
    count_exit(cpu, VCPU_MMIO, access.is_write);
    if (access.is_write)
        memcpy(&access.value, run->mmio.data, run->mmio.len);
    to->access(to->context, &access);
    if (!access.is_write)
        memcpy(run->mmio.data, &access.value, run->mmio.len);
}

/* An exit that ends the guest, in words. */
static void describe_exit(const struct vcpu *cpu, char *message, size_t size)
{
    const struct kvm_run *run = cpu->run;
    const char *what = "an exit that is not known";
    uint64_t detail = run->exit_reason;
    if (run->exit_reason == KVM_EXIT_FAIL_ENTRY) {
        what = "the processor refused to enter the guest";
        detail = run->fail_entry.hardware_entry_failure_reason;
    } else if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR) {
        what = "KVM cannot emulate what the guest does";
        detail = run->internal.suberror;
    }
    struct kvm_regs regs = {0};
    (void)kvm_ioctl(cpu->fd, KVM_GET_REGS, &regs);
    snprintf(message, size, "vCPU %u: %s (0x%llx) at rip 0x%llx, rsp 0x%llx", cpu->index, what,
             (unsigned long long)detail, (unsigned long long)regs.rip, (unsigned long long)regs.rsp);
}

/* Runs the guest until it ends or is asked to park: true if it ended, and then why, in `message` for
 * errors. */
static bool run_guest(struct vcpu *cpu, char *message, size_t size, enum vcpu_end *ret_why)
{
    struct kvm_run *run = cpu->run;
    for (;;) {
        if (ioctl(cpu->fd, KVM_RUN, 0) < 0) {
            /* EINTR: the kick of vm_pause(), or immediate_exit. KVM completes the last access before it looks
             * at either, so this is a safe point. */
            if (errno == EINTR && (atomic_load(&cpu->vm->pauses) & 1))
                return false;
            /* EAGAIN: an application processor was woken without a start-up IPI. */
            if (errno == EINTR || errno == EAGAIN)
                continue;
            snprintf(message, size, "vCPU %u: KVM_RUN: %s", cpu->index, strerror(errno));
            *ret_why = VCPU_END_ERROR;
            return true;
        }
        switch (run->exit_reason) {
        case KVM_EXIT_IO: forward_port(cpu); break;
        case KVM_EXIT_MMIO: forward_mmio(cpu); break;
        case KVM_EXIT_INTR: break;
        case KVM_EXIT_SHUTDOWN: *ret_why = VCPU_END_TRIPLE_FAULT; return true;
        case KVM_EXIT_SYSTEM_EVENT: *ret_why = VCPU_END_SYSTEM_EVENT; return true;
        default:
            describe_exit(cpu, message, size);
            *ret_why = VCPU_END_ERROR;
            return true;
        }
    }
}

/* ---- Parking ---- */

static void futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
    syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/*
 * Stays here while the vCPUs are to park; false if the thread is to end. immediate_exit makes the next
 * KVM_RUN return at once. vm_pause() changes `pauses` and then sets it; here it is cleared and then
 * `pauses` is looked at: a pause that comes in between is seen by the one or the other.
 */
static bool park(struct vcpu *cpu)
{
    struct vm *vm = cpu->vm;
    bool was_paused = false;
    uint32_t pauses;
    for (;;) {
        __atomic_store_n(&cpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        pauses = atomic_load(&vm->pauses);
        if (!(pauses & 1))
            break;
        if (atomic_load(&vm->stopping))
            return false;
        if (pauses != cpu->parked_for) {
            cpu->parked_for = pauses;
            was_paused = true;
            vm->callbacks->parked(vm->callbacks->context, cpu->index);
        }
        futex(&vm->pauses, FUTEX_WAIT, pauses);
    }
    /* So that the guest's watchdog does not take the pause for a lock-up. EINVAL: the guest has no
     * kvmclock. */
    if (was_paused)
        (void)kvm_ioctl_value(cpu->fd, KVM_KVMCLOCK_CTRL, 0);
    return true;
}

/* Of a vCPU that has ended: until the next pause. */
static void wait_for_pause(struct vm *vm)
{
    uint32_t pauses;
    while (!((pauses = atomic_load(&vm->pauses)) & 1))
        futex(&vm->pauses, FUTEX_WAIT, pauses);
}

/* The signal that takes a vCPU thread out of KVM_RUN. Only these threads have it unblocked. */
static int kick_signal(void)
{
    return SIGRTMIN;
}

/* A timer of this thread's, which sends it the kick: whoever sets it needs no right to send signals. */
static void make_kick_timer(struct vcpu *cpu)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = kick_signal()};
    event._sigev_un._tid = gettid();
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &cpu->kick_timer) == 0);
    atomic_store(&cpu->has_kick_timer, true);
}

/* One that has not made its timer yet has not looked at `pauses` either. */
static void kick(struct vcpu *cpu)
{
    const struct itimerspec now = {.it_value.tv_nsec = 1};
    if (!cpu->vm->callbacks->kicks_by_timer)
        CHECK(pthread_kill(cpu->thread, kick_signal()) == 0);
    else if (atomic_load(&cpu->has_kick_timer))
        CHECK(timer_settime(cpu->kick_timer, 0, &now, NULL) == 0);
}

static void *vcpu_thread(void *argument)
{
    struct vcpu *cpu = argument;
    const struct vcpu_callbacks *to = cpu->vm->callbacks;
    char name[16];
    snprintf(name, sizeof(name), "vcpu %u", cpu->index);
    pthread_setname_np(pthread_self(), name);
    if (to->kicks_by_timer)
        make_kick_timer(cpu);
    if (to->started)
        to->started(to->context, cpu->index);
    while (park(cpu)) {
        char message[256] = "";
        enum vcpu_end why;
        if (run_guest(cpu, message, sizeof(message), &why)) {
            to->ended(to->context, cpu->index, why, message[0] ? message : NULL);
            wait_for_pause(cpu->vm);
        }
    }
    return NULL;
}

static void kicked(int number)
{
    (void)number; /* KVM_RUN has returned: that is all */
}

int vm_start(struct vm *vm, const struct vcpu_callbacks *callbacks)
{
    vm->callbacks = callbacks;
    atomic_store(&vm->stopping, false);
    atomic_store(&vm->pauses, atomic_load(&vm->pauses) | 1);

    const struct sigaction kick = {.sa_handler = kicked};
    CHECK(sigaction(kick_signal(), &kick, NULL) == 0);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, VCPU_STACK_SIZE);

    /* All other signals are the loop thread's. */
    sigset_t all_others, before;
    sigfillset(&all_others);
    sigdelset(&all_others, kick_signal());
    pthread_sigmask(SIG_SETMASK, &all_others, &before);
    int r = 0;
    for (unsigned i = 0; r == 0 && i < vm->cpu_count; i++) {
        vm->cpus[i].parked_for =
            atomic_load(&vm->pauses); /* the wait for the first vm_resume() is no pause */
        r = pthread_create(&vm->cpus[i].thread, &attributes, vcpu_thread, &vm->cpus[i]);
        if (r)
            r = fail_errno(-r, "starting the thread of vCPU %u (see ulimit -u)", i);
        else
            vm->thread_count++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (r < 0)
        vm_stop(vm);
    return r;
}

void vm_pause(struct vm *vm)
{
    CHECK(!(atomic_load(&vm->pauses) & 1));
    atomic_fetch_add(&vm->pauses, 1);
    futex(&vm->pauses, FUTEX_WAKE, INT_MAX); /* those that have ended wait for this */
    for (unsigned i = 0; i < vm->thread_count; i++) {
        __atomic_store_n(&vm->cpus[i].run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        kick(&vm->cpus[i]);
    }
}

void vm_resume(struct vm *vm)
{
    CHECK(atomic_load(&vm->pauses) & 1);
    atomic_fetch_add(&vm->pauses, 1);
    futex(&vm->pauses, FUTEX_WAKE, INT_MAX);
}

void vm_stop(struct vm *vm)
{
    CHECK(vm->thread_count == 0 || (atomic_load(&vm->pauses) & 1));
    atomic_store(&vm->stopping, true);
    atomic_fetch_add(&vm->pauses, 2); /* still odd, and new for who is about to wait for a change */
    futex(&vm->pauses, FUTEX_WAKE, INT_MAX);
    while (vm->thread_count > 0)
        pthread_join(vm->cpus[--vm->thread_count].thread, NULL);
}

void vm_count(const struct vm *vm, unsigned index, struct vcpu_counts *ret_counts)
{
    const struct vcpu *cpu = &vm->cpus[index];
    struct timespec used = {0};
    clockid_t clock;
    if (index < vm->thread_count && pthread_getcpuclockid(cpu->thread, &clock) == 0)
        clock_gettime(clock, &used);
    *ret_counts = (struct vcpu_counts){
        .mmio_reads = atomic_load_explicit(&cpu->exits[0], memory_order_relaxed),
        .mmio_writes = atomic_load_explicit(&cpu->exits[1], memory_order_relaxed),
        .port_reads = atomic_load_explicit(&cpu->exits[2], memory_order_relaxed),
        .port_writes = atomic_load_explicit(&cpu->exits[3], memory_order_relaxed),
        .cpu_ns = (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec,
    };
}
