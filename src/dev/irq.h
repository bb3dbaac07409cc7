/*
 * Interrupt lines that devices raise themselves (KVM_IRQ_LINE; design section 1).
 *
 * Lines are edge-triggered, as message-signalled interrupts are: a source that was silent about something and
 * now is not makes one edge, and nobody has to take a level back. A guest pays less for an edge: Linux reads
 * a register of its APIC to acknowledge a level, which is an exit (arch/x86/kernel/apic/io_apic.c,
 * ioapic_ack_level), and KVM must see the end of a level's interrupt, which is another, where the end of an
 * edge's stays in the guest (KVM_FEATURE_PV_EOI). Together 7 of 44 counted us of a disk request.
 *
 * A source's pending bits are one atomic word of the device's: devices set bits (irq_raise), a vCPU thread
 * takes them back when the guest acknowledges (irq_ack, from a fast_write), and neither waits for the other.
 * Sources can share a line.
 */
#pragma once

#include "base/base.h"
#include <stdatomic.h>

struct irq_line;

struct irq_source {
    _Atomic uint32_t *pending; /* the device's word of what it interrupts for */
    struct irq_line *line;
};

struct irq_lines;

/* `vm_fd`: the KVM VM; lent. */
int irq_lines_new(int vm_fd, struct irq_lines **ret_lines);
void irq_lines_free(struct irq_lines *lines);

/* Before the vCPUs run: `source` interrupts on line `gsi`, which it may share with others. */
void irq_connect(struct irq_lines *lines, unsigned gsi, struct irq_source *source);

/* Sets `bits` in the source, and makes an edge if one of them was clear. Any thread: a UART raises from the
 * register write that caused it. */
void irq_raise(struct irq_source *source, uint32_t bits);

/* Clears `bits`. Any thread. */
void irq_ack(struct irq_source *source, uint32_t bits);
