/*
 * A 16550A's registers: what the guest's console driver reads and writes, and which interrupts follow from
 * it. Plain memory without a thread, a lock or a descriptor: console.h puts them around it.
 *
 *   uart_receive() ──► received[] ──► the receive FIFO, 16 bytes ──► RBR          the guest reads
 *                                     THR ──► uart_write() returns the character  the guest writes
 *
 * The transmitter is always empty. The receive FIFO is filled again only after the guest has seen it empty
 * (in LSR, or in IIR as no interrupt). So each 16 bytes make an edge of the interrupt line of their own. A
 * driver that leaves its handler with input still to come, as Linux does after 512 rounds, is called again.
 */
#pragma once

#include "base/state.h"

#define UART_PORTS         8u
#define UART_FIFO_DEPTH    16u
#define UART_RECEIVED_SIZE 1024u /* a power of two */

/* Interrupts, as bits. */
#define UART_IRQ_RECEIVED 1u
#define UART_IRQ_THR      2u

struct uart {
    uint8_t ier, lcr, mcr, fcr, scr, dll, dlm;
    /* The condition of the THRE interrupt: the THR emptied, and IIR did not say so yet. */
    bool thr_empty_pending;
    uint32_t fifo;        /* bytes of received[] that are in the FIFO: the oldest */
    uint32_t head, count; /* the oldest byte in received[], and how many there are */
    uint8_t received[UART_RECEIVED_SIZE];
};

void uart_reset(struct uart *uart);

/* The guest reads or writes one byte of register `reg`. A write returns the character that goes out, or
 * -1. */
uint8_t uart_read(struct uart *uart, unsigned reg);
int uart_write(struct uart *uart, unsigned reg, uint8_t value);

/* Takes input; how many of the bytes had room. */
size_t uart_receive(struct uart *uart, const uint8_t *bytes, size_t length);
size_t uart_room(const struct uart *uart);

/* True if the driver wants input: RTS or the receive interrupt is on. A driver sets them after it has cleared
 * the FIFO, so that what was typed before is not lost. */
bool uart_listens(const struct uart *uart);

/* The interrupts that are due, UART_IRQ_.... */
uint32_t uart_interrupts(const struct uart *uart);

/* All of it as the body of a section. Loading: -EBADMSG with a message. */
void uart_save(const struct uart *uart, struct state_writer *to);
int uart_load(struct uart *uart, struct state_reader *from);
