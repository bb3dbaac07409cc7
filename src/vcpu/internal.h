/* Between the files of vcpu/ only. */
#pragma once

#include "vcpu/vcpu.h"

#include <linux/kvm.h>

/* ioctl() that is tried again on EINTR and EAGAIN (KVM_CREATE_VM on a loaded host is interrupted); negative
 * errno. */
int kvm_ioctl(int fd, unsigned long request, void *argument);
int kvm_ioctl_value(int fd, unsigned long request, unsigned long argument);

/* What KVM offers as CPUID, completed for vCPU `index` of `cpu_count`: topology, hypervisor bit, timer. */
int cpuid_prepare(int kvm_fd, struct kvm_cpuid2 **ret_template);
int cpuid_set(const struct vcpu *cpu, struct kvm_cpuid2 *template);

/* MSRs and local APIC as firmware would leave them. */
int cpu_set_msrs(const struct vcpu *cpu);
int cpu_set_lapic(const struct vcpu *cpu);
