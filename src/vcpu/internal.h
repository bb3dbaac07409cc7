/* Between the files of vcpu/ only. */
#pragma once

#include "base/state.h"
#include "vcpu/vcpu.h"

#include <linux/kvm.h>

/* ioctl() that is tried again on EINTR and EAGAIN (KVM_CREATE_VM on a loaded host is interrupted); negative
 * errno. */
int kvm_ioctl(int fd, unsigned long request, void *argument);
int kvm_ioctl_value(int fd, unsigned long request, unsigned long argument);

/* What KVM offers as CPUID, completed for vCPU `index` of `cpu_count`: topology, hypervisor bit, timer. */
int cpuid_prepare(int kvm_fd, struct kvm_cpuid2 **ret_template);
int cpuid_set(const struct vcpu *cpu, struct kvm_cpuid2 *template);

/* Room for CPUID_ENTRIES_MAX entries, zeroed; NULL with a message. The caller frees it. */
#define CPUID_ENTRIES_MAX 256u
struct kvm_cpuid2 *cpuid_new(void);

/* MSRs and local APIC as firmware would leave them. */
int cpu_set_msrs(const struct vcpu *cpu);
int cpu_set_lapic(const struct vcpu *cpu);

/* A vCPU's state (save.c). */
extern const struct state_part vcpu_parts[];
extern const size_t vcpu_part_count;
int vcpu_save_msrs(const void *owner, struct state_writer *to);
int vcpu_load_msrs(void *owner, struct state_reader *from, uint16_t version);

/* The VM's clock with the TSCs of its vCPUs (save_time.c); the owner is the struct vm. */
int vm_save_clock(const void *owner, struct state_writer *to);
int vm_load_clock(void *owner, struct state_reader *from, uint16_t version);

#define MSR_IA32_TSC          0x10u
#define MSR_IA32_TSC_DEADLINE 0x6e0u

/* Makes the PIT. Negative errno with a message. */
int vm_make_pit(struct vm *vm);
