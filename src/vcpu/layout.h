/* Where things are in the guest's address spaces, and which interrupt line is whose. */
#pragma once

#include "vcpu/mem.h"

/* Below 1 MiB (boot/ fills it; PVH start info, memory map and command line are handed over by address). */
#define LAYOUT_PVH_INFO_GPA UINT64_C(0x6000)  /* hvm_start_info, module list, memory map: one page */
#define LAYOUT_CMDLINE_GPA  UINT64_C(0x20000) /* 64 KiB are free here */
#define LAYOUT_MPTABLE_GPA                                                                                   \
    UINT64_C(0x9fc00) /* its pointer, where kernels look: last KiB of base memory (MP spec 1.4, 4) */
#define LAYOUT_ACPI_GPA UINT64_C(0xe0000) /* RSDP here: also found by scanning (ACPI 6.4, 5.2.5.1) */
#define LAYOUT_ACPI_END UINT64_C(0xef000)
#define LAYOUT_GENERATION_GPA                                                                                \
    UINT64_C(0xef000) /* 16 bytes in a page of their own: the VM generation ID (boot/acpi.h) */
#define LAYOUT_MPCONFIG_GPA UINT64_C(0xf0000) /* what the pointer at LAYOUT_MPTABLE_GPA points to */
#define LAYOUT_MPCONFIG_END UINT64_C(0xffff0)
#define LAYOUT_RESET_GPA    UINT64_C(0xffff0) /* a PC's reset vector: kernels jump here to reboot "by BIOS" */
#define LAYOUT_HIGH_RAM_GPA UINT64_C(0x100000)

#define LAYOUT_BOOT_TIMER_GPA UINT64_C(0xc0000000) /* dev/boot_timer.h: where Firecracker's guests look */

/*
 * virtio-mmio devices: two pages each from here up, in the gap below 4 GiB. A device's registers lie across
 * the border of its pages: those up to QueueNotify at the end of the first, those from InterruptStatus on at
 * the start of the second, which the guest reads without an exit (dev/virtio.h).
 */
#define LAYOUT_VIRTIO_BASE   UINT64_C(0xc0001000)
#define LAYOUT_VIRTIO_STRIDE UINT64_C(0x2000)
#define LAYOUT_VIRTIO_SIZE   UINT64_C(0x200) /* of the registers, configuration space included */
#define LAYOUT_VIRTIO_SHOWN  UINT64_C(0x60)  /* where the second page begins: InterruptStatus (4.2.2) */
#define LAYOUT_VIRTIO_MAX    64u

#define LAYOUT_IOAPIC_GPA UINT64_C(0xfec00000)
#define LAYOUT_LAPIC_GPA  UINT64_C(0xfee00000)

/* Ports. */
#define LAYOUT_COM1_PORT     0x3f8u
#define LAYOUT_I8042_DATA    0x60u
#define LAYOUT_I8042_COMMAND 0x64u
#define LAYOUT_CMOS_INDEX    0x70u
#define LAYOUT_CMOS_DATA     0x71u
#define LAYOUT_ACPI_SLEEP    0x600u /* hardware-reduced ACPI: sleep control; + 1: sleep status; + 2: reset */
#define LAYOUT_ACPI_EVENTS                                                                                   \
    0x604u /* u32: which events the GED is to report; reading clears (power button: bit 0, generation: 1) */

/* Interrupt lines (GSIs) of the IOAPIC. */
#define LAYOUT_COM1_GSI    4u
#define LAYOUT_GED_GSI     9u /* generic event device: power button, generation id */
#define LAYOUT_IOAPIC_PINS 24u

/*
 * Lines for virtio devices. Pins 0, 1, 2, 4, 8, 9 and 13 are taken by or kept clear of the PC's own (timer,
 * keyboard, cascade, COM1, clock, GED, FPU). Those from 16 on come first: KVM raises the others in its PIC
 * too, which no guest uses. All lines are edge-triggered, active high (dev/irq.h says why), and devices can
 * share one when there are more of them than lines.
 */
static const uint8_t layout_virtio_gsis[] = {16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 12, 14, 15, 3};

static inline unsigned layout_virtio_gsi(unsigned slot)
{
    return layout_virtio_gsis[slot % ARRAY_SIZE(layout_virtio_gsis)];
}
/* The second page of a device. */
static inline gpa_t layout_virtio_reg_page_gpa(unsigned slot)
{
    return gpa(LAYOUT_VIRTIO_BASE + slot * LAYOUT_VIRTIO_STRIDE + GUEST_PAGE);
}
static inline gpa_t layout_virtio_gpa(unsigned slot)
{
    return gpa(layout_virtio_reg_page_gpa(slot).value - LAYOUT_VIRTIO_SHOWN);
}
