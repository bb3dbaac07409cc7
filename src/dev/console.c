#include "dev/console.h"
#include "base/log.h"
#include "dev/panic_watch.h"
#include "dev/uart.h"
#include "vcpu/layout.h"

#include <linux/serial_reg.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#define OUTPUT_SIZE     16384u /* a power of two: a quarter of what a pipe holds, in case the reader sleeps */
#define INPUT_CHUNK     512u   /* read at once, when there is room for it */
#define OUTPUT_CHUNK    1024u  /* written at once */
#define OUTPUT_DELAY_NS 1000000u
#define CLOSE_NS        1000000000u

/* Whether the loop knows that there is something to write. */
enum output_state {
    OUTPUT_QUIET, /* it does not */
    OUTPUT_SOON,  /* it was told, and writes when its timer says so: more may come */
    OUTPUT_NOW,   /* it was told to write, or is writing */
};

struct console {
    struct loop *loop;
    struct bus *bus;
    struct bus_call news;
    struct console_config config;
    struct irq_source irq;
    _Atomic uint32_t interrupting; /* irq.pending: uart_interrupts() when the line was last told */

    /* Any thread, under the lock. */
    pthread_mutex_t lock;
    struct uart uart;
    struct panic_watch panic;
    struct console_losses losses;
    enum output_state output_state;
    bool wants_input; /* no read is in flight, and the loop is to be told when one may start */
    bool has_output;  /* false: characters vanish */
    uint32_t output_at, output_count; /* the oldest character in ring[], and how many there are */
    uint8_t ring[OUTPUT_SIZE];

    /* Loop thread. */
    struct loop_op output_op, input_op;
    struct loop_timer timer, deadline;
    bool has_input, held, closing;
    console_done *quiet_done, *close_done;
    void *quiet_context, *close_context;
    uint32_t chunk_at, chunk_length; /* of chunk[], what is still to be written */
    uint8_t chunk[OUTPUT_CHUNK], input[INPUT_CHUNK];
};

/* --- under the lock, on any thread --- */

/* Brings the line to what the registers ask for. KVM_IRQ_LINE does not wait. */
static void update_interrupt(struct console *console)
{
    uint32_t due = uart_interrupts(&console->uart), pending = atomic_load(&console->interrupting);
    if (pending & ~due)
        irq_ack(&console->irq, pending & ~due);
    if (due & ~pending)
        irq_raise(&console->irq, due & ~pending);
}

/* A terminal is read while the guest does not listen, too: Ctrl-A must end a guest that hangs before its
 * console is up. Input that does not fit is then dropped. */
static bool input_may_start(const struct console *console)
{
    if (!uart_listens(&console->uart))
        return console->config.filter_input != NULL;
    return uart_room(&console->uart) >= INPUT_CHUNK;
}

/* True if the loop has to be told to read. */
static bool input_is_due(struct console *console)
{
    bool due = console->wants_input && input_may_start(console);
    if (due)
        console->wants_input = false;
    return due;
}

/* A character goes out; true if the loop has to be told of it. */
static bool transmit(struct console *console, uint8_t byte)
{
    panic_watch_byte(&console->panic, byte);
    if (!console->has_output) {
        console->losses.failed += console->losses.error < 0;
        return false;
    }
    if (console->output_count == OUTPUT_SIZE) {
        console->losses.slow++;
        return false;
    }
    console->ring[(console->output_at + console->output_count++) % OUTPUT_SIZE] = byte;
    enum output_state before = console->output_state;
    if (byte == '\n' || console->output_count >= OUTPUT_CHUNK)
        console->output_state = OUTPUT_NOW;
    else if (before == OUTPUT_QUIET)
        console->output_state = OUTPUT_SOON;
    return console->output_state != before;
}

/* --- registers: vCPU threads. Wider ones are several of one byte, lowest first, as on the ISA bus. --- */

static uint64_t console_read(void *opaque, uint64_t offset, unsigned length)
{
    struct console *console = opaque;
    uint64_t value = 0;
    pthread_mutex_lock(&console->lock);
    for (unsigned i = 0; i < length; i++)
        value |= (uint64_t)uart_read(&console->uart, (unsigned)offset + i) << (8 * i);
    update_interrupt(console);
    bool tell = input_is_due(console);
    pthread_mutex_unlock(&console->lock);
    if (tell)
        bus_post(console->bus, &console->news, offset, length, 0);
    return value;
}

static void console_write(void *opaque, uint64_t offset, unsigned length, uint64_t value)
{
    struct console *console = opaque;
    bool tell = false;
    pthread_mutex_lock(&console->lock);
    for (unsigned i = 0; i < length; i++) {
        int byte = uart_write(&console->uart, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
        if (byte >= 0 && transmit(console, (uint8_t)byte))
            tell = true;
    }
    update_interrupt(console);
    tell |= input_is_due(console);
    pthread_mutex_unlock(&console->lock);
    if (tell)
        bus_post(console->bus, &console->news, offset, length, value);
}

/* --- the end of a quiesce and of a close: loop thread --- */

static void tell_if_quiet(struct console *console)
{
    if (console->quiet_done && !console->input_op.in_flight) {
        console_done *done = ptr_steal(&console->quiet_done);
        done(console->quiet_context);
    }
    bool in_flight = console->input_op.in_flight || console->output_op.in_flight ||
                     console->timer.op.in_flight || console->deadline.op.in_flight;
    if (console->close_done && !in_flight) {
        console_done *done = ptr_steal(&console->close_done);
        done(console->close_context);
    }
}

/* --- input: loop thread --- */

static void start_input(struct console *console)
{
    if (!console->has_input || console->held || console->closing || console->input_op.in_flight)
        return;
    pthread_mutex_lock(&console->lock);
    bool start = input_may_start(console);
    console->wants_input = !start;
    pthread_mutex_unlock(&console->lock);
    if (start)
        loop_read(console->loop, &console->input_op, console->config.input_fd, console->input, INPUT_CHUNK,
                  UINT64_MAX);
}

static void receive(struct console *console, size_t length)
{
    if (console->config.filter_input)
        length = console->config.filter_input(console->config.context, console->input, length);
    pthread_mutex_lock(&console->lock);
    /* There is room, unless the guest talks to itself (loopback) or does not listen. */
    uart_receive(&console->uart, console->input, length);
    update_interrupt(console);
    pthread_mutex_unlock(&console->lock);
}

/* Waits for a descriptor that another process has made non-blocking, then tries again. */
static void input_ready(struct loop_op *op, int result, unsigned flags);
static void input_read(struct loop_op *op, int result, unsigned flags)
{
    struct console *console = container_of(op, struct console, input_op);
    (void)flags;
    if (result == -EAGAIN && !console->closing && !console->held) {
        op->done = input_ready;
        loop_poll(console->loop, op, console->config.input_fd, POLLIN);
        return;
    }
    if (result > 0)
        receive(console, (size_t)result);
    else if (result != -EINTR && result != -ECANCELED && result != -EAGAIN)
        console->has_input = false; /* the end of a file, a terminal that hung up */
    start_input(console);
    tell_if_quiet(console);
}

static void input_ready(struct loop_op *op, int result, unsigned flags)
{
    (void)flags;
    op->done = input_read;
    input_read(op, result < 0 ? result : -EINTR, 0);
}

/* --- output: loop thread --- */

static void write_chunk(struct console *console)
{
    loop_write(console->loop, &console->output_op, console->config.output_fd,
               console->chunk + console->chunk_at, console->chunk_length - console->chunk_at, UINT64_MAX);
}

/* Writes what the ring holds, a chunk at most. */
static void drain_output(struct console *console)
{
    if (console->output_op.in_flight)
        return;
    uint32_t length = 0;
    pthread_mutex_lock(&console->lock);
    if (console->has_output)
        length = MIN(console->output_count, OUTPUT_CHUNK);
    for (uint32_t i = 0; i < length; i++)
        console->chunk[i] = console->ring[(console->output_at + i) % OUTPUT_SIZE];
    console->output_at = (console->output_at + length) % OUTPUT_SIZE;
    console->output_count -= length;
    console->output_state = length ? OUTPUT_NOW : OUTPUT_QUIET;
    pthread_mutex_unlock(&console->lock);
    console->chunk_at = 0;
    console->chunk_length = length;
    if (length)
        write_chunk(console);
}

/* A chunk is out. What came meanwhile waits for more, so that a flood is a write a millisecond. */
static void after_output(struct console *console)
{
    pthread_mutex_lock(&console->lock);
    bool now = console->closing || console->output_count >= OUTPUT_CHUNK;
    bool soon = !now && console->output_count > 0;
    if (!now)
        console->output_state = soon ? OUTPUT_SOON : OUTPUT_QUIET;
    pthread_mutex_unlock(&console->lock);
    if (now)
        drain_output(console);
    else if (soon && !console->timer.op.in_flight)
        loop_timer_start(console->loop, &console->timer, OUTPUT_DELAY_NS);
}

/* Nothing is written any more. `error`: why, or 0 for a reader that did not drain before the end. */
static void give_output_up(struct console *console, int error)
{
    pthread_mutex_lock(&console->lock);
    uint64_t lost = console->chunk_length - console->chunk_at + console->output_count;
    console->has_output = false;
    console->output_count = 0;
    console->losses.error = error;
    *(error < 0 ? &console->losses.failed : &console->losses.slow) += lost;
    pthread_mutex_unlock(&console->lock);
}

/* The console is closing and all is written: the deadline is not needed any more. */
static void end_deadline(struct console *console)
{
    if (console->closing && !console->output_op.in_flight)
        loop_cancel(console->loop, &console->deadline.op);
}

static void output_ready(struct loop_op *op, int result, unsigned flags);
static void output_written(struct loop_op *op, int result, unsigned flags)
{
    struct console *console = container_of(op, struct console, output_op);
    (void)flags;
    if (result > 0)
        console->chunk_at += (uint32_t)result;
    if (!console->has_output) {
        /* given up meanwhile: the deadline of the close */
    } else if (result == -EAGAIN) {
        op->done = output_ready;
        loop_poll(console->loop, op, console->config.output_fd, POLLOUT);
    } else if (result < 0 && result != -EINTR) {
        log_warn("serial output: %s; what the guest writes from here on vanishes", strerror(-result));
        give_output_up(console, result);
    } else if (console->chunk_at < console->chunk_length) {
        write_chunk(console);
    } else {
        after_output(console);
    }
    end_deadline(console);
    tell_if_quiet(console);
}

static void output_ready(struct loop_op *op, int result, unsigned flags)
{
    (void)flags;
    op->done = output_written;
    output_written(op, result < 0 ? result : -EINTR, 0);
}

static void timer_due(struct loop_op *op, int result, unsigned flags)
{
    struct console *console = container_of(op, struct console, timer.op);
    (void)result, (void)flags;
    drain_output(console);
    tell_if_quiet(console);
}

static void deadline_due(struct loop_op *op, int result, unsigned flags)
{
    struct console *console = container_of(op, struct console, deadline.op);
    (void)flags;
    if (result == -ETIME && console->output_op.in_flight) {
        give_output_up(console, 0);
        loop_cancel(console->loop, &console->output_op);
    }
    tell_if_quiet(console);
}

/* A vCPU has news: characters to write, or room to read. */
static void look(void *opaque, uint64_t offset, unsigned length, uint64_t value, struct bus_waiter *waiter)
{
    struct console *console = opaque;
    (void)offset, (void)length, (void)value, (void)waiter;
    if (console->closing)
        return;
    pthread_mutex_lock(&console->lock);
    enum output_state state = console->output_state;
    pthread_mutex_unlock(&console->lock);
    if (state == OUTPUT_NOW)
        drain_output(console);
    else if (state == OUTPUT_SOON && !console->timer.op.in_flight)
        loop_timer_start(console->loop, &console->timer, OUTPUT_DELAY_NS);
    start_input(console);
}

/* --- life --- */

int console_new(struct loop *loop, const struct console_config *config, struct console **ret_console)
{
    struct console *console = calloc(1, sizeof(*console));
    if (!console)
        return fail(-ENOMEM, "no memory for the console");
    console->loop = loop;
    console->config = *config;
    console->irq.pending = &console->interrupting;
    console->has_input = config->input_fd >= 0;
    console->has_output = config->output_fd >= 0;
    console->input_op.done = input_read;
    console->output_op.done = output_written;
    console->timer.op.done = timer_due;
    console->deadline.op.done = deadline_due;
    pthread_mutex_init(&console->lock, NULL);
    uart_reset(&console->uart);
    *ret_console = console;
    return 0;
}

int console_attach(struct console *console, struct bus *bus, struct irq_lines *lines)
{
    static const struct bus_ops ops = {.read = console_read, .write = console_write};
    console->bus = bus;
    console->news = (struct bus_call){.run = look, .device = console};
    int r = bus_add(bus, VCPU_PORT, LAYOUT_COM1_PORT, UART_PORTS, &ops, console);
    if (r == 0)
        r = irq_connect(lines, LAYOUT_COM1_GSI, &console->irq);
    if (r == 0)
        start_input(console);
    return r;
}

void console_quiesce(struct console *console, console_done *done, void *context)
{
    CHECK(!console->held);
    console->held = true;
    console->quiet_done = done;
    console->quiet_context = context;
    loop_cancel(console->loop, &console->input_op);
    tell_if_quiet(console);
}

void console_resume(struct console *console)
{
    console->held = false;
    start_input(console);
}

void console_close(struct console *console, console_done *done, void *context)
{
    CHECK(!console->closing);
    console->closing = true;
    console->close_done = done;
    console->close_context = context;
    loop_cancel(console->loop, &console->input_op);
    loop_cancel(console->loop, &console->timer.op);
    drain_output(console);
    if (console->output_op.in_flight)
        loop_timer_start(console->loop, &console->deadline, CLOSE_NS);
    tell_if_quiet(console);
}

void console_free(struct console *console)
{
    if (!console)
        return;
    pthread_mutex_destroy(&console->lock);
    free(console);
}

void console_losses(struct console *console, struct console_losses *ret_losses)
{
    pthread_mutex_lock(&console->lock);
    *ret_losses = console->losses;
    pthread_mutex_unlock(&console->lock);
}

bool console_saw_panic(struct console *console)
{
    pthread_mutex_lock(&console->lock);
    bool panicked = panic_watch_panicked(&console->panic);
    pthread_mutex_unlock(&console->lock);
    return panicked;
}

/* --- state --- */

/* Characters that are not written yet go out on their own, and a line that is not complete is forgotten. */
static int save_console(const void *owner, struct state_writer *to)
{
    const struct console *console = owner;
    const uint8_t panic[2] = {console->panic.panicked, console->panic.with_time};
    uart_save(&console->uart, to);
    state_put(to, panic, sizeof(panic));
    return 0;
}

static int load_console(void *owner, struct state_reader *from, uint16_t version)
{
    struct console *console = owner;
    uint8_t panic[2];
    (void)version;
    int r = uart_load(&console->uart, from);
    if (r < 0)
        return r;
    r = state_get(from, panic, sizeof(panic));
    if (r < 0)
        return r;
    console->panic = (struct panic_watch){.panicked = panic[0] & 1, .with_time = panic[1] & 1};
    atomic_store(&console->interrupting, uart_interrupts(&console->uart)); /* the line is KVM's state */
    return 0;
}

const struct state_part console_state = {"UART", 1, STATE_REQUIRED, save_console, load_console};
