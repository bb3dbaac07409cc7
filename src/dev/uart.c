#include "dev/uart.h"
#include "base/log.h"
#include "dev/byte_ring.h"
#include "vcpu/layout.h"

#include <linux/serial_reg.h>
#include <poll.h>
#include <string.h>

#define UART_PORTS  8u
#define TX_CELLS    16384u /* 64 KiB of memory: what a pipe holds again, in case the reader sleeps */
#define RX_CELLS    1024u
#define RX_CHUNK    512u                  /* what is read at once, */
#define RX_RESUME   (RX_CELLS - RX_CHUNK) /* when there is room for it */
#define FIFO_DEPTH  16u                   /* of a 16550A: what clearing the FIFO can lose at most */
#define CHUNK       1024u
#define TX_DELAY_NS 1000000u
#define CLOSE_NS    1000000000u

/* Pending bits of the interrupt source. */
#define IRQ_RECEIVED 1u
#define IRQ_THR      2u

/* Whether the loop knows that there is something to write. */
enum tx_state {
    TX_QUIET, /* it does not */
    TX_SOON,  /* it was told, and writes when its timer says so: more may come */
    TX_NOW,   /* it was told to write, or is writing */
};

/* How Linux begins its last message (kernel/panic.c). Its first letter comes once in it, so that a mismatch can
 * only be the first letter again. */
static const char panic_message[] = "Kernel panic - not syncing";
#define PANIC_LENGTH (sizeof(panic_message) - 1)

struct uart {
    struct loop *loop;
    struct bus *bus;
    struct bus_call news;
    struct uart_config config;
    struct irq_source irq;

    /* Any thread. */
    _Atomic uint32_t interrupting; /* irq.pending: interrupts_due() when it was last told */
    _Atomic bool has_output;       /* false: characters vanish */
    _Atomic uint8_t ier, lcr, mcr, fcr, scr, dll, dlm;
    _Atomic bool
        thr_empty_pending; /* the THRE interrupt's condition: the THR emptied and nobody has been told */
    _Atomic int tx_state;  /* enum tx_state */
    _Atomic bool rx_waits; /* the loop reads no input and is to be told when it may: see input_may_start() */
    _Atomic uint64_t dropped;
    _Atomic uint8_t panic_matched; /* characters of panic_message that were the last to be transmitted */
    struct byte_ring tx, rx;

    /* Loop thread. */
    struct loop_op output_op, input_op;
    struct loop_timer timer, deadline;
    bool has_input, closing;
    uint32_t output_at, output_length; /* what of output[] is still to be written */
    uint8_t output[CHUNK], input[RX_CHUNK];
};

/* --- interrupts: any thread --- */

/* A sender that honours RTS sends only to who listens; so what was typed before the guest's driver is up, or
 * between two uses of it, is not lost when the driver clears the FIFO. Drivers set RTS (or the receive
 * interrupt) after that, and take it back before. */
static bool guest_listens(struct uart *uart)
{
    return (atomic_load(&uart->mcr) & UART_MCR_RTS) || (atomic_load(&uart->ier) & UART_IER_RDI);
}

/* What has been received, as far as the guest can tell: the rest of the ring is still on its way. */
static bool data_ready(struct uart *uart)
{
    return guest_listens(uart) && byte_ring_used(&uart->rx) > 0;
}

static uint32_t interrupts_due(struct uart *uart)
{
    uint8_t enabled = atomic_load(&uart->ier);
    uint32_t due = 0;
    if ((enabled & UART_IER_RDI) && byte_ring_used(&uart->rx) > 0)
        due |= IRQ_RECEIVED;
    if ((enabled & UART_IER_THRI) && atomic_load(&uart->thr_empty_pending))
        due |= IRQ_THR;
    return due;
}

/* Brings the line to what the state asks for. Threads do this at once with each other, and the state may move
 * between the look and the act, so each looks again after it has acted: the last one to act leaves the line
 * right. */
static void update_interrupt(struct uart *uart)
{
    for (;;) {
        uint32_t due = interrupts_due(uart), pending = atomic_load(&uart->interrupting);
        if (due == pending)
            return;
        if (pending & ~due)
            irq_ack(&uart->irq, pending & ~due);
        if (due & ~pending)
            irq_raise(&uart->irq, due & ~pending);
    }
}

/* --- registers: vCPU threads --- */

/* A terminal is read while nobody listens, too: Ctrl-A must end a guest that hangs before its console is up.
 * What then finds no room is lost, as keys are that nobody waits for. */
static bool input_may_start(struct uart *uart)
{
    if (!guest_listens(uart))
        return uart->config.filter_input != NULL;
    return byte_ring_used(&uart->rx) <= RX_RESUME;
}

static void look_for_panic(struct uart *uart, uint8_t byte)
{
    uint8_t matched = atomic_load_explicit(&uart->panic_matched, memory_order_relaxed);
    if (matched == PANIC_LENGTH)
        return;
    matched = byte == (uint8_t)panic_message[matched] ? matched + 1 : byte == (uint8_t)panic_message[0];
    atomic_store_explicit(&uart->panic_matched, matched, memory_order_relaxed);
}

/* True if the loop has to be told of this character. */
static bool transmit(struct uart *uart, uint8_t byte)
{
    if (atomic_load(&uart->mcr) & UART_MCR_LOOP) {
        byte_ring_put(&uart->rx, byte); /* a full receiver overruns: the character is lost, as in the chip */
        return false;
    }
    look_for_panic(uart, byte);
    if (!atomic_load(&uart->has_output))
        return false;
    if (!byte_ring_put(&uart->tx, byte)) {
        atomic_fetch_add(&uart->dropped, 1);
        return false;
    }
    if (byte == '\n' || byte_ring_used(&uart->tx) >= CHUNK)
        return atomic_load(&uart->tx_state) != TX_NOW && atomic_exchange(&uart->tx_state, TX_NOW) != TX_NOW;
    int quiet = TX_QUIET;
    return atomic_compare_exchange_strong(&uart->tx_state, &quiet, TX_SOON);
}

static void clear_receive_fifo(struct uart *uart)
{
    for (unsigned i = 0; i < FIFO_DEPTH && guest_listens(uart) && byte_ring_take(&uart->rx) >= 0; i++) {
    }
}

static void write_ier(struct uart *uart, uint8_t value)
{
    uint8_t before = atomic_exchange(&uart->ier, value & 0x0f);
    /* Enabling the THRE interrupt while the THR is empty raises it at once: the transmit path of Linux's 8250
     * driver starts with nothing else. */
    if ((value & UART_IER_THRI) && !(before & UART_IER_THRI))
        atomic_store(&uart->thr_empty_pending, true);
}

/* One byte to one register; true if the loop has to look. */
static bool write_register(struct uart *uart, unsigned reg, uint8_t value)
{
    bool divisor = atomic_load(&uart->lcr) & UART_LCR_DLAB;
    bool tell = false;
    switch (reg) {
    case UART_TX:
        if (divisor) {
            atomic_store(&uart->dll, value);
            break;
        }
        tell = transmit(uart, value);
        atomic_store(&uart->thr_empty_pending, true); /* it empties at once */
        break;
    case UART_IER:
        if (divisor)
            atomic_store(&uart->dlm, value);
        else
            write_ier(uart, value);
        break;
    case UART_FCR:
        atomic_store(&uart->fcr, value);
        if (value & UART_FCR_CLEAR_RCVR)
            clear_receive_fifo(uart);
        break;
    case UART_LCR: atomic_store(&uart->lcr, value); break;
    case UART_MCR: atomic_store(&uart->mcr, value & 0x1f); break;
    case UART_SCR: atomic_store(&uart->scr, value); break;
    default: break; /* LSR and MSR are read-only */
    }
    update_interrupt(uart);
    if (atomic_load(&uart->rx_waits) && input_may_start(uart))
        tell |= atomic_exchange(&uart->rx_waits, false);
    return tell;
}

/* The highest interrupt that is due; reading it as the THRE interrupt's takes that one back
 * (PC16550D, 8.6.6). */
static uint8_t read_iir(struct uart *uart)
{
    uint8_t fifos = atomic_load(&uart->fcr) & UART_FCR_ENABLE_FIFO ? 0xc0 : 0;
    uint32_t due = interrupts_due(uart);
    if (due & IRQ_RECEIVED)
        return fifos | UART_IIR_RDI;
    if (due & IRQ_THR) {
        atomic_store(&uart->thr_empty_pending, false);
        return fifos | UART_IIR_THRI;
    }
    return fifos | UART_IIR_NO_INT;
}

static uint8_t read_msr(struct uart *uart)
{
    uint8_t mcr = atomic_load(&uart->mcr);
    if (!(mcr & UART_MCR_LOOP))
        return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
    return (uint8_t)((mcr & UART_MCR_RTS ? UART_MSR_CTS : 0) | (mcr & UART_MCR_DTR ? UART_MSR_DSR : 0) |
                     (mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0) | (mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0));
}

static uint8_t read_register(struct uart *uart, unsigned reg)
{
    bool divisor = atomic_load(&uart->lcr) & UART_LCR_DLAB;
    uint8_t value = 0xff;
    switch (reg) {
    case UART_RX:
        if (divisor) {
            value = atomic_load(&uart->dll);
        } else {
            int byte = guest_listens(uart) ? byte_ring_take(&uart->rx) : -1;
            value = byte < 0 ? 0 : (uint8_t)byte;
        }
        break;
    case UART_IER: value = divisor ? atomic_load(&uart->dlm) : atomic_load(&uart->ier); break;
    case UART_IIR: value = read_iir(uart); break;
    case UART_LCR: value = atomic_load(&uart->lcr); break;
    case UART_MCR: value = atomic_load(&uart->mcr); break;
    case UART_LSR: return (uint8_t)(UART_LSR_THRE | UART_LSR_TEMT | (data_ready(uart) ? UART_LSR_DR : 0));
    case UART_MSR: return read_msr(uart);
    case UART_SCR: return atomic_load(&uart->scr);
    default: break;
    }
    update_interrupt(uart);
    return value;
}

/* Wider accesses are as many of one byte, lowest register first, as on the ISA bus. */
static uint64_t uart_read_bytes(struct uart *uart, uint64_t offset, unsigned length)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < length; i++)
        value |= (uint64_t)read_register(uart, (unsigned)offset + i) << (8 * i);
    return value;
}

static uint64_t uart_read(void *device, uint64_t offset, unsigned length)
{
    struct uart *uart = device;
    uint64_t value = uart_read_bytes(uart, offset, length);
    /* Room for more input. */
    if (offset == UART_RX && atomic_load(&uart->rx_waits) && input_may_start(uart) &&
        atomic_exchange(&uart->rx_waits, false))
        bus_post(uart->bus, &uart->news, offset, length, 0);
    return value;
}

static void uart_write(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    struct uart *uart = device;
    bool tell = false;
    for (unsigned i = 0; i < length; i++)
        tell |= write_register(uart, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
    if (tell)
        bus_post(uart->bus, &uart->news, offset, length, value);
}

/* --- characters: loop thread --- */

static void start_input(struct uart *uart)
{
    if (!uart->has_input || uart->closing || uart->input_op.in_flight)
        return;
    /* The flag first, then the look: a vCPU that changes what is looked at afterwards sees the flag and
     * tells. */
    atomic_store(&uart->rx_waits, true);
    if (!input_may_start(uart))
        return;
    atomic_store(&uart->rx_waits, false);
    loop_read(uart->loop, &uart->input_op, uart->config.input_fd, uart->input, RX_CHUNK, UINT64_MAX);
}

/* Waits for a descriptor that somebody else has made non-blocking, then tries again. */
static void input_ready(struct loop_op *op, int result, unsigned flags);
static void input_read(struct loop_op *op, int result, unsigned flags)
{
    struct uart *uart = container_of(op, struct uart, input_op);
    (void)flags;
    if (result == -EAGAIN && !uart->closing) {
        op->done = input_ready;
        loop_poll(uart->loop, op, uart->config.input_fd, POLLIN);
        return;
    }
    if (result > 0) {
        size_t length = (size_t)result;
        if (uart->config.filter_input)
            length = uart->config.filter_input(uart->config.context, uart->input, length);
        /* There is room, unless the guest talks to itself (loopback) or does not listen. */
        for (size_t i = 0; i < length; i++)
            byte_ring_put(&uart->rx, uart->input[i]);
        update_interrupt(uart);
    } else if (result != -EINTR) {
        uart->has_input = false; /* the end of a file, a terminal that hung up: nobody types any more */
    }
    start_input(uart);
    if (uart->closing)
        loop_stop(uart->loop, 0);
}

static void input_ready(struct loop_op *op, int result, unsigned flags)
{
    (void)flags;
    op->done = input_read;
    input_read(op, result < 0 ? result : -EINTR, 0);
}

static void start_output(struct uart *uart)
{
    loop_write(uart->loop, &uart->output_op, uart->config.output_fd, uart->output + uart->output_at,
               uart->output_length - uart->output_at, UINT64_MAX);
}

/* Writes what the ring holds, a chunk at most. */
static void drain_output(struct uart *uart)
{
    if (uart->output_op.in_flight || !atomic_load(&uart->has_output))
        return;
    /* Quiet first, then a look: a character that comes after the look finds the state quiet and tells the
     * loop. */
    atomic_store(&uart->tx_state, TX_QUIET);
    uint32_t length = 0;
    for (int byte; length < CHUNK && (byte = byte_ring_take(&uart->tx)) >= 0; length++)
        uart->output[length] = (uint8_t)byte;
    if (length == 0)
        return;
    atomic_store(&uart->tx_state, TX_NOW);
    uart->output_at = 0;
    uart->output_length = length;
    start_output(uart);
}

static void start_timer(struct uart *uart)
{
    if (!uart->timer.op.in_flight)
        loop_timer_start(uart->loop, &uart->timer, TX_DELAY_NS);
}

/* A chunk is out. What came meanwhile waits for more, so that a flood is a write a millisecond. */
static void after_output(struct uart *uart)
{
    if (uart->closing || byte_ring_used(&uart->tx) >= CHUNK) {
        drain_output(uart);
        return;
    }
    int quiet = TX_QUIET;
    atomic_store(&uart->tx_state, TX_QUIET);
    if (byte_ring_used(&uart->tx) && atomic_compare_exchange_strong(&uart->tx_state, &quiet, TX_SOON))
        start_timer(uart);
}

static void drop_output(struct uart *uart)
{
    atomic_store(&uart->has_output, false);
    atomic_fetch_add(&uart->dropped, uart->output_length - uart->output_at + byte_ring_used(&uart->tx));
}

static void output_ready(struct loop_op *op, int result, unsigned flags);
static void output_written(struct loop_op *op, int result, unsigned flags)
{
    struct uart *uart = container_of(op, struct uart, output_op);
    (void)flags;
    if (result > 0)
        uart->output_at += (uint32_t)result;
    if (!atomic_load(&uart->has_output)) {
        /* given up meanwhile: uart_close() ran out of time */
    } else if (result == -EAGAIN) {
        op->done = output_ready;
        loop_poll(uart->loop, op, uart->config.output_fd, POLLOUT);
    } else if (result < 0 && result != -EINTR) {
        log_warn("serial output: %s; what the guest writes from here on vanishes", strerror(-result));
        drop_output(uart);
    } else if (uart->output_at < uart->output_length) {
        start_output(uart);
    } else {
        after_output(uart);
    }
    if (uart->closing)
        loop_stop(uart->loop, 0);
}

static void output_ready(struct loop_op *op, int result, unsigned flags)
{
    (void)flags;
    op->done = output_written;
    output_written(op, result < 0 ? result : -EINTR, 0);
}

static void timer_due(struct loop_op *op, int result, unsigned flags)
{
    struct uart *uart = container_of(op, struct uart, timer.op);
    (void)result, (void)flags;
    drain_output(uart);
    if (uart->closing)
        loop_stop(uart->loop, 0);
}

static void deadline_due(struct loop_op *op, int result, unsigned flags)
{
    struct uart *uart = container_of(op, struct uart, deadline.op);
    (void)flags;
    if (result == -ETIME && atomic_load(&uart->has_output)) {
        drop_output(uart);
        loop_cancel(uart->loop, &uart->output_op);
    }
    loop_stop(uart->loop, 0);
}

/* Something in the registers concerns the loop. */
static void look(void *device, uint64_t offset, unsigned length, uint64_t value, struct bus_waiter *waiter)
{
    struct uart *uart = device;
    (void)offset, (void)length, (void)value, (void)waiter;
    switch ((enum tx_state)atomic_load(&uart->tx_state)) {
    case TX_NOW: drain_output(uart); break;
    case TX_SOON: start_timer(uart); break;
    case TX_QUIET: break;
    }
    start_input(uart);
}

/* --- life --- */

int uart_new(struct loop *loop, const struct uart_config *config, struct uart **ret_uart)
{
    struct uart *uart = calloc(1, sizeof(*uart));
    if (!uart)
        return fail(-ENOMEM, "no memory for the UART");
    int r = byte_ring_new(TX_CELLS, &uart->tx);
    if (r == 0)
        r = byte_ring_new(RX_CELLS, &uart->rx);
    if (r < 0) {
        uart_free(uart);
        return r;
    }
    uart->loop = loop;
    uart->config = *config;
    uart->irq.pending = &uart->interrupting;
    uart->has_input = config->input_fd >= 0;
    atomic_init(&uart->has_output, config->output_fd >= 0);
    atomic_init(&uart->dll, 1); /* 115200 */
    atomic_init(&uart->lcr, UART_LCR_WLEN8);
    uart->input_op.done = input_read;
    uart->output_op.done = output_written;
    uart->timer.op.done = timer_due;
    uart->deadline.op.done = deadline_due;
    *ret_uart = uart;
    return 0;
}

int uart_attach(struct uart *uart, struct bus *bus, struct irq_lines *lines)
{
    static const struct bus_ops ops = {.read = uart_read, .write = uart_write};
    uart->bus = bus;
    uart->news = (struct bus_call){.run = look, .device = uart};
    int r = bus_add(bus, VCPU_PORT, LAYOUT_COM1_PORT, UART_PORTS, &ops, uart);
    if (r == 0)
        r = irq_connect(lines, LAYOUT_COM1_GSI, &uart->irq);
    if (r < 0)
        return r;
    start_input(uart);
    return 0;
}

void uart_close(struct uart *uart)
{
    uart->closing = true;
    loop_cancel(uart->loop, &uart->input_op);
    loop_cancel(uart->loop, &uart->timer.op);
    loop_timer_start(uart->loop, &uart->deadline, CLOSE_NS);
    drain_output(uart);
    while (uart->input_op.in_flight || uart->output_op.in_flight || uart->timer.op.in_flight ||
           uart->deadline.op.in_flight) {
        if (!uart->output_op.in_flight)
            loop_cancel(uart->loop, &uart->deadline.op);
        if (loop_run(uart->loop) < 0)
            break; /* the ring itself is broken: nothing will complete any more */
    }
}

uint64_t uart_dropped(const struct uart *uart)
{
    return atomic_load(&uart->dropped);
}

bool uart_saw_panic(const struct uart *uart)
{
    return atomic_load(&uart->panic_matched) == PANIC_LENGTH;
}

void uart_free(struct uart *uart)
{
    if (!uart)
        return;
    byte_ring_free(&uart->tx);
    byte_ring_free(&uart->rx);
    free(uart);
}
