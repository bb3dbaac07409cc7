/* A vCPU's thread: KVM_RUN, and handing each access of the guest on. */
#include "vcpu/internal.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

/* A vCPU thread's own needs are a few frames; the guest runs on none of it. */
#define VCPU_STACK_SIZE (64 * KIB)

static void forward_port(struct vcpu *cpu)
{
    struct kvm_run *run = cpu->run;
    const struct vcpu_callbacks *to = cpu->vm->callbacks;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
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
    if (access.is_write)
        memcpy(&access.value, run->mmio.data, run->mmio.len);
    to->access(to->context, &access);
    if (!access.is_write)
        memcpy(run->mmio.data, &access.value, run->mmio.len);
}

static void describe_state(const struct vcpu *cpu, char *message, size_t size, const char *what,
                           uint64_t detail)
{
    struct kvm_regs regs = {0};
    (void)kvm_ioctl(cpu->fd, KVM_GET_REGS, &regs);
    snprintf(message, size, "vCPU %u: %s (0x%llx) at rip 0x%llx, rsp 0x%llx", cpu->index, what,
             (unsigned long long)detail, (unsigned long long)regs.rip, (unsigned long long)regs.rsp);
}

/* Runs the guest until it stops by itself; says why, in `message` for errors. */
static enum vcpu_end run_guest(struct vcpu *cpu, char *message, size_t size)
{
    struct kvm_run *run = cpu->run;
    for (;;) {
        if (ioctl(cpu->fd, KVM_RUN, 0) < 0) {
            /* EINTR: a signal for the process. EAGAIN: an application processor was woken without a start-up
             * IPI. */
            if (errno == EINTR || errno == EAGAIN)
                continue;
            snprintf(message, size, "vCPU %u: KVM_RUN: %s", cpu->index, strerror(errno));
            return VCPU_END_ERROR;
        }
        switch (run->exit_reason) {
        case KVM_EXIT_IO: forward_port(cpu); break;
        case KVM_EXIT_MMIO: forward_mmio(cpu); break;
        case KVM_EXIT_INTR: break;
        case KVM_EXIT_SHUTDOWN: return VCPU_END_TRIPLE_FAULT;
        case KVM_EXIT_SYSTEM_EVENT: return VCPU_END_SYSTEM_EVENT;
        case KVM_EXIT_FAIL_ENTRY:
            describe_state(cpu, message, size, "the processor refused to enter the guest",
                           run->fail_entry.hardware_entry_failure_reason);
            return VCPU_END_ERROR;
        case KVM_EXIT_INTERNAL_ERROR:
            describe_state(cpu, message, size, "KVM cannot emulate what the guest does",
                           run->internal.suberror);
            return VCPU_END_ERROR;
        default:
            describe_state(cpu, message, size, "an exit that is not known", run->exit_reason);
            return VCPU_END_ERROR;
        }
    }
}

static void *vcpu_thread(void *argument)
{
    struct vcpu *cpu = argument;
    const struct vcpu_callbacks *to = cpu->vm->callbacks;
    char message[256] = "";
    char name[16];
    snprintf(name, sizeof(name), "vcpu %u", cpu->index);
    pthread_setname_np(pthread_self(), name);
    enum vcpu_end why = run_guest(cpu, message, sizeof(message));
    to->ended(to->context, cpu->index, why, message[0] ? message : NULL);
    return NULL;
}

int vm_start(struct vm *vm, const struct vcpu_callbacks *callbacks)
{
    vm->callbacks = callbacks;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, VCPU_STACK_SIZE);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);

    /* Signals are the loop thread's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = 0;
    for (unsigned i = 0; r == 0 && i < vm->cpu_count; i++) {
        r = pthread_create(&vm->cpus[i].thread, &attributes, vcpu_thread, &vm->cpus[i]);
        if (r)
            r = fail_errno(-r, "starting the thread of vCPU %u (see ulimit -u)", i);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return r;
}
