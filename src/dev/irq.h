/*
 * Interrupt lines that devices raise themselves (KVM_IRQ_LINE; design section 1).
 *
 * Lines are edge-triggered, as message-signalled interrupts are. A source makes one edge when it has
 * something new to say, and no level has to be taken back. A guest pays less for an edge. For a level Linux
 * reads a register of its APIC, which is an exit (arch/x86/kernel/apic/io_apic.c, ioapic_ack_level), and KVM
 * must see the end of the interrupt, which is another; the end of an edge's interrupt stays in the guest
 * (KVM_FEATURE_PV_EOI). Together 7 of 44 counted us of a disk request.
 *
 * A source's pending bits are one atomic word of the device. The device sets bits (irq_raise); a vCPU thread
 * clears them when the guest acknowledges (irq_ack). Neither waits for the other. Sources can share a line.
 *
 * A device in the kernel (vhost) has its line alone. Its interrupts come by one irqfd, and irq_raise()
 * signals the same eventfd. KVM raises and lowers an irqfd's line in one step. An irqfd on a line that
 * KVM_IRQ_LINE left up makes no edge, and the interrupt is lost (seen on Linux 6.18). So the two kinds are
 * never mixed on a line.
 */
#pragma once

#include "base/base.h"
#include <stdatomic.h>

struct irq_line;
struct vm;

struct irq_source {
    _Atomic uint32_t *pending; /* the device's word: the bits it interrupts for */
    uint32_t always;           /* bits that are pending for ever: irq_ack() does not clear them */
    struct irq_line *line;
};

struct irq_lines;

/* `vm`: whose lines they are; lent. */
int irq_lines_new(struct vm *vm, struct irq_lines **ret_lines);
void irq_lines_free(struct irq_lines *lines);

/* Before the vCPUs run: `source` interrupts on line `gsi`, which it may share with others. -EBUSY with a
 * message if the line belongs to one device alone. */
int irq_connect(struct irq_lines *lines, unsigned gsi, struct irq_source *source);

/* Before the vCPUs run: line `gsi` belongs to `source` alone, and an eventfd raises it (irq_event_fd). -EBUSY
 * with a message if another source has it; negative errno with a message from eventfd or KVM. */
int irq_connect_exclusive(struct irq_lines *lines, unsigned gsi, struct irq_source *source);

/* The eventfd of an exclusive line, for the kernel to signal; lent. */
int irq_event_fd(const struct irq_source *source);

/* Sets `bits` in the source, and makes an edge if one of them was clear. Any thread: a UART raises from the
 * register write that caused it. */
void irq_raise(struct irq_source *source, uint32_t bits);

/* Clears `bits`. Any thread. */
void irq_ack(struct irq_source *source, uint32_t bits);
