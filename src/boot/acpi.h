/*
 * A small hardware-reduced ACPI (version 6.4): RSDP, XSDT, FADT, MADT, DSDT. It says where CPUs, interrupts,
 * virtio-mmio devices and the serial port are, how to switch off, reset and hear of the power button, and
 * which machine of many copies this is (the VM generation ID).
 */
#pragma once

#include "boot/boot.h"

/* What the reset register (port LAYOUT_ACPI_SLEEP + 2) takes; any value would do. */
#define ACPI_RESET_VALUE 1

/* Writes the tables from LAYOUT_ACPI_GPA on, where the RSDP is. -EINVAL more CPUs or devices than they can
 * name. */
int acpi_write(const struct guest_mem *mem, const struct boot_config *config);

/* Writes another VM generation ID, 16 random bytes: the machine is not the one that it was. Who does it while
 * the guest is there tells it (dev/acpi_pm.h). Negative errno with a message. */
int acpi_write_generation(const struct guest_mem *mem);
