/*
 * Interrupt lines that the loop raises itself (KVM_IRQ_LINE; design section 1).
 *
 * Lines are level-triggered and may be shared: a line is up while any of its sources is pending. A source's
 * pending bits are one atomic word: the loop sets bits (irq_raise), a vCPU thread takes them back when the
 * guest acknowledges (irq_ack, from a fast_write), and neither waits for the other.
 */
#pragma once

#include "base/base.h"
#include <stdatomic.h>

struct irq_line;

struct irq_source {
    _Atomic uint32_t pending; /* the device's InterruptStatus */
    struct irq_line *line;
    struct irq_source *next; /* others on the same line */
};

struct irq_lines;

/* `vm_fd`: the KVM VM; lent. */
int irq_lines_new(int vm_fd, struct irq_lines **ret_lines);
void irq_lines_free(struct irq_lines *lines);

/* Before the vCPUs run: `source` interrupts on line `gsi`, which it may share with others. */
void irq_connect(struct irq_lines *lines, unsigned gsi, struct irq_source *source);

/* Sets `bits` in the source and raises the line if the source was silent. Any thread: a UART raises from the register
 * write that caused it. */
void irq_raise(struct irq_source *source, uint32_t bits);

/* Clears `bits`; lowers the line when no source of it is left pending. Any thread. */
void irq_ack(struct irq_source *source, uint32_t bits);
