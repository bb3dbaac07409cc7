/*
 * A small hardware-reduced ACPI (version 6.4): RSDP, XSDT, FADT, MADT, DSDT. It says where CPUs, interrupts,
 * virtio-mmio devices and the serial port are, and how to switch off, reset and hear of the power button.
 */
#pragma once

#include "boot/boot.h"

/* What the reset register (port LAYOUT_ACPI_SLEEP + 2) takes; any value would do. */
#define ACPI_RESET_VALUE 1

/* Writes the tables from LAYOUT_ACPI_GPA on, where the RSDP is. -EINVAL more CPUs or devices than they can
 * name. */
int acpi_write(const struct guest_mem *mem, const struct boot_config *config);
