/* The MultiProcessor Specification's table (Intel, version 1.4): CPUs and interrupt lines for kernels without
 * ACPI. */
#pragma once

#include "vcpu/mem.h"

/*
 * Writes the floating pointer to LAYOUT_MPTABLE_GPA and the configuration table to LAYOUT_MPCONFIG_GPA:
 * `cpu_count` CPUs with APIC ids from 0, one ISA bus, the IOAPIC and its lines. -EINVAL no CPU, or more than
 * 8-bit APIC ids count.
 */
int mptable_write(const struct guest_mem *mem, unsigned cpu_count);
