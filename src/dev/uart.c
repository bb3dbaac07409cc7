#include "dev/uart.h"

#include <linux/serial_reg.h>
#include <string.h>

void uart_reset(struct uart *uart)
{
    *uart = (struct uart){.lcr = UART_LCR_WLEN8, .dll = 1}; /* 115200 8N1 */
}

bool uart_listens(const struct uart *uart)
{
    return (uart->mcr & UART_MCR_RTS) || (uart->ier & UART_IER_RDI);
}

size_t uart_room(const struct uart *uart)
{
    return UART_RECEIVED_SIZE - uart->count;
}

static void fill_fifo(struct uart *uart)
{
    uart->fifo = MIN(uart->count, UART_FIFO_DEPTH);
}

size_t uart_receive(struct uart *uart, const uint8_t *bytes, size_t length)
{
    size_t taken = MIN(length, uart_room(uart));
    for (size_t i = 0; i < taken; i++)
        uart->received[(uart->head + uart->count++) % UART_RECEIVED_SIZE] = bytes[i];
    if (uart->fifo == 0)
        fill_fifo(uart);
    return taken;
}

/* What has been received, as far as the guest can tell: it gets nothing while it does not listen. */
static bool data_ready(const struct uart *uart)
{
    return uart_listens(uart) && uart->fifo > 0;
}

static int take_received(struct uart *uart)
{
    if (!data_ready(uart))
        return -1;
    uint8_t byte = uart->received[uart->head];
    uart->head = (uart->head + 1) % UART_RECEIVED_SIZE;
    uart->count--;
    uart->fifo--;
    return byte;
}

static void clear_receive_fifo(struct uart *uart)
{
    while (take_received(uart) >= 0) {
    }
    fill_fifo(uart);
}

uint32_t uart_interrupts(const struct uart *uart)
{
    uint32_t due = 0;
    if ((uart->ier & UART_IER_RDI) && uart->fifo > 0)
        due |= UART_IRQ_RECEIVED;
    if ((uart->ier & UART_IER_THRI) && uart->thr_empty_pending)
        due |= UART_IRQ_THR;
    return due;
}

/* --- reading --- */

/* The highest interrupt that is due. Reading it as the THRE interrupt's takes that one back (PC16550D,
 * 8.6.6). */
static uint8_t read_iir(struct uart *uart)
{
    uint8_t fifos = uart->fcr & UART_FCR_ENABLE_FIFO ? 0xc0 : 0;
    uint32_t due = uart_interrupts(uart);
    if (due & UART_IRQ_RECEIVED)
        return fifos | UART_IIR_RDI;
    if (due & UART_IRQ_THR) {
        uart->thr_empty_pending = false;
        return fifos | UART_IIR_THRI;
    }
    if (uart->fifo == 0)
        fill_fifo(uart);
    return fifos | UART_IIR_NO_INT;
}

static uint8_t read_lsr(struct uart *uart)
{
    uint8_t ready = data_ready(uart) ? UART_LSR_DR : 0;
    if (uart->fifo == 0)
        fill_fifo(uart);
    return UART_LSR_THRE | UART_LSR_TEMT | ready;
}

static uint8_t read_msr(const struct uart *uart)
{
    uint8_t mcr = uart->mcr;
    if (!(mcr & UART_MCR_LOOP))
        return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
    return (uint8_t)((mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) | (mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
                     (mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) | (mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0));
}

uint8_t uart_read(struct uart *uart, unsigned reg)
{
    bool divisor = uart->lcr & UART_LCR_DLAB;
    switch (reg) {
    case UART_RX: {
        int byte = divisor ? uart->dll : take_received(uart);
        return byte < 0 ? 0 : (uint8_t)byte;
    }
    case UART_IER: return divisor ? uart->dlm : uart->ier;
    case UART_IIR: return read_iir(uart);
    case UART_LCR: return uart->lcr;
    case UART_MCR: return uart->mcr;
    case UART_LSR: return read_lsr(uart);
    case UART_MSR: return read_msr(uart);
    case UART_SCR: return uart->scr;
    default: return 0xff;
    }
}

/* --- writing --- */

static void write_ier(struct uart *uart, uint8_t value)
{
    uint8_t before = uart->ier;
    uart->ier = value & 0x0f;
    /* Enabling the THRE interrupt while the THR is empty raises it at once. The transmit path of Linux's 8250
     * driver starts with nothing else. */
    if ((value & UART_IER_THRI) && !(before & UART_IER_THRI))
        uart->thr_empty_pending = true;
}

static int transmit(struct uart *uart, uint8_t byte)
{
    uart->thr_empty_pending = true; /* it empties at once */
    if (!(uart->mcr & UART_MCR_LOOP))
        return byte;
    uart_receive(uart, &byte, 1); /* a full receiver overruns: the character is lost, as in the chip */
    return -1;
}

int uart_write(struct uart *uart, unsigned reg, uint8_t value)
{
    bool divisor = uart->lcr & UART_LCR_DLAB;
    switch (reg) {
    case UART_TX:
        if (!divisor)
            return transmit(uart, value);
        uart->dll = value;
        break;
    case UART_IER:
        if (divisor)
            uart->dlm = value;
        else
            write_ier(uart, value);
        break;
    case UART_FCR:
        uart->fcr = value;
        if (value & UART_FCR_CLEAR_RCVR)
            clear_receive_fifo(uart);
        break;
    case UART_LCR: uart->lcr = value; break;
    case UART_MCR: uart->mcr = value & 0x1f; break;
    case UART_SCR: uart->scr = value; break;
    default: break; /* LSR and MSR are read-only */
    }
    return -1;
}

/* --- state --- */

struct saved_uart {
    uint8_t ier, lcr, mcr, fcr, scr, dll, dlm, thr_empty_pending;
    uint32_t fifo, count; /* followed by `count` received bytes, the oldest first */
};
_Static_assert(sizeof(struct saved_uart) == 16, "no padding");

void uart_save(const struct uart *uart, struct state_writer *to)
{
    const struct saved_uart saved = {
        .ier = uart->ier,
        .lcr = uart->lcr,
        .mcr = uart->mcr,
        .fcr = uart->fcr,
        .scr = uart->scr,
        .dll = uart->dll,
        .dlm = uart->dlm,
        .thr_empty_pending = uart->thr_empty_pending,
        .fifo = uart->fifo,
        .count = uart->count,
    };
    state_put(to, &saved, sizeof(saved));
    for (uint32_t i = 0; i < uart->count; i++)
        state_put(to, &uart->received[(uart->head + i) % UART_RECEIVED_SIZE], 1);
}

int uart_load(struct uart *uart, struct state_reader *from)
{
    struct saved_uart saved;
    int r = state_get(from, &saved, sizeof(saved));
    if (r < 0)
        return r;
    if (saved.ier > 0x0f || saved.mcr > 0x1f || saved.thr_empty_pending > 1 ||
        saved.count > UART_RECEIVED_SIZE || saved.fifo > MIN(saved.count, UART_FIFO_DEPTH))
        return fail(-EBADMSG, "saved state of the UART is damaged");
    struct uart loaded = {
        .ier = saved.ier,
        .lcr = saved.lcr,
        .mcr = saved.mcr,
        .fcr = saved.fcr,
        .scr = saved.scr,
        .dll = saved.dll,
        .dlm = saved.dlm,
        .thr_empty_pending = saved.thr_empty_pending,
        .fifo = saved.fifo,
        .count = saved.count,
    };
    r = state_get(from, loaded.received, loaded.count);
    if (r == 0)
        *uart = loaded;
    return r;
}
