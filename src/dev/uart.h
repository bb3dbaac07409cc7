/*
 * A 16550A on COM1: what the guest's console driver sees, and a terminal, pipe or file behind it.
 *
 * Characters from the guest never cost it a wait: the vCPU thread puts them into a bounded ring from the register write
 * itself (fast_write) and answers the line status (fast_read); the loop writes the ring out, woken at most once a
 * millisecond or at a line's end. A reader that does not drain makes characters drop, counted, never the guest stop.
 */
#pragma once

#include "dev/bus.h"
#include "dev/irq.h"

struct uart;

struct uart_config {
    int input_fd;   /* or -1; read by ring ops, made non-blocking nowhere: a terminal is shared with others */
    int output_fd;  /* or -1: characters vanish */
    /* Loop thread. Sees what was typed before the guest does and may take bytes out (Ctrl-A): returns how many of the bytes
     * in `bytes` are left. Optional. */
    size_t (*filter_input)(void *context, uint8_t *bytes, size_t length);
    void *context;
};

int uart_new(struct loop *loop, const struct uart_config *config, struct uart **ret_uart);
int uart_attach(struct uart *uart, struct bus *bus, struct irq_lines *lines);

/* Loop thread, at the end: what the guest said last goes out (bounded wait), and how much was dropped. */
void uart_flush(struct uart *uart);
uint64_t uart_dropped(const struct uart *uart);
void uart_free(struct uart *uart);
