/*
 * A 16550A on COM1: what the guest's console driver sees, and a terminal, pipe or file behind it.
 *
 * Every register is answered on the vCPU's thread, from atomics, so nothing of the UART is ever waited for
 * and no order has to be kept with posted writes. Two bounded rings carry the characters between the vCPU
 * threads and the loop:
 *
 *   THR write ──► tx ring ──► loop: one write of all there is ──► output_fd
 *   RBR read  ◄── rx ring ◄── loop: read, as much as there is room ◄── input_fd
 *
 * The loop is disturbed once for a line or a millisecond of output, not for a character. A reader that does
 * not drain makes characters drop, counted; the guest never stops. Input is taken from the host only when the
 * guest listens (RTS or the receive interrupt is on) and while the ring has room.
 */
#pragma once

#include "dev/bus.h"
#include "dev/irq.h"

struct uart;

struct uart_config {
    int input_fd; /* or -1; lent, and read by ring ops: a terminal is shared with others, so its flags stay */
    int output_fd; /* or -1: characters vanish; lent. The process ignores SIGPIPE. */
    /* Loop thread. Sees what was typed before the guest does and may take bytes out (Ctrl-A): returns how
     * many of the bytes in `bytes` are left. Optional. */
    size_t (*filter_input)(void *context, uint8_t *bytes, size_t length);
    void *context;
};

int uart_new(struct loop *loop, const struct uart_config *config, struct uart **ret_uart);

/* Before the vCPUs run. -EEXIST or -ENOSPC as bus_add() has them. */
int uart_attach(struct uart *uart, struct bus *bus, struct irq_lines *lines);

/*
 * Loop thread, at the end: when loop_run() has returned and the vCPUs have stopped. What the guest said last
 * goes out and nothing is in flight afterwards. Runs the loop for as long as that takes, a second at most for
 * a reader that does not drain; so never from inside a completion.
 */
void uart_close(struct uart *uart);

/* Characters of the guest that no reader took in time, so far. Any thread. */
uint64_t uart_dropped(const struct uart *uart);

/* True once the guest's kernel has said that it panicked. Any thread. */
bool uart_saw_panic(const struct uart *uart);

/* After uart_close(), or when uart_attach() was never called. NULL is nothing. */
void uart_free(struct uart *uart);
