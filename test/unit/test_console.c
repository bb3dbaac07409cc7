/* The console: a UART as drivers use it, characters in both directions, and readers that do not read. */
#include "dev/console.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/serial_reg.h>
#include <signal.h>
#include <string.h>

/* Stand-ins for the bus and the interrupt line: the test is the vCPU. */
static const struct bus_ops *ops;
static void *opaque;
static struct irq_source *line;
static unsigned edges;

int bus_add(struct bus *bus, enum vcpu_space space, uint64_t base, uint64_t size, const struct bus_ops *o,
            void *device)
{
    (void)bus, (void)space, (void)base, (void)size;
    ops = o;
    opaque = device;
    return 0;
}

static unsigned to_loop; /* accesses of which the loop was told */

void bus_post(struct bus *bus, struct bus_call *call, uint64_t offset, unsigned length, uint64_t value)
{
    (void)bus;
    to_loop++;
    call->run(call->device, offset, length, value, NULL);
}

int irq_connect(struct irq_lines *lines, unsigned gsi, struct irq_source *source)
{
    (void)lines, (void)gsi;
    line = source;
    return 0;
}

void irq_raise(struct irq_source *source, uint32_t bits)
{
    if (bits & ~atomic_fetch_or(source->pending, bits))
        edges++;
}

void irq_ack(struct irq_source *source, uint32_t bits)
{
    atomic_fetch_and(source->pending, ~bits);
}

static struct loop *loop;
static struct console *console;
static struct loop_timer timer;
static int input[2], output[2];

static uint8_t in(unsigned reg)
{
    return (uint8_t)ops->read(opaque, reg, 1);
}

static void out(unsigned reg, uint8_t value)
{
    ops->write(opaque, reg, 1, value);
}

static void timer_done(struct loop_op *op, int result, unsigned flags)
{
    (void)op, (void)result, (void)flags;
    loop_stop(loop, 0);
}

static void run(unsigned milliseconds)
{
    timer.op.done = timer_done;
    loop_timer_start(loop, &timer, milliseconds * UINT64_C(1000000));
    while (timer.op.in_flight)
        cr_assert(loop_run(loop) == 0, "the loop failed: %s", fail_text());
}

static void start(int input_fd, int output_fd)
{
    const struct console_config config = {.input_fd = input_fd, .output_fd = output_fd};
    cr_assert(console_new(loop, &config, &console) == 0, "%s", fail_text());
    cr_assert(console_attach(console, NULL, NULL) == 0, "%s", fail_text());
}

static void set_up(void)
{
    cr_assert(loop_new(32, &loop) == 0, "%s", fail_text());
    cr_assert(pipe2(input, O_CLOEXEC) == 0 && pipe2(output, O_CLOEXEC) == 0, "no pipes");
    start(input[0], output[1]);
}

static void set_true(void *context)
{
    *(bool *)context = true;
}

static void close_console(void)
{
    bool closed = false;
    console_close(console, set_true, &closed);
    while (!closed)
        run(1);
}

static void tear_down(void)
{
    close_console();
    console_free(console);
    loop_free(loop);
}

TestSuite(console, .timeout = 20, .init = set_up, .fini = tear_down);

static struct console_losses losses(void)
{
    struct console_losses result;
    console_losses(console, &result);
    return result;
}

static void say(const char *text)
{
    for (; *text; text++)
        out(UART_TX, (uint8_t)*text);
}

static void heard(const char *text)
{
    char buffer[256] = "";
    ssize_t n = read(output[0], buffer, sizeof(buffer) - 1);
    cr_assert(n >= 0 && strcmp(buffer, text) == 0, "heard '%s', not '%s'", buffer, text);
}

static void type(const char *text)
{
    cr_assert(write(input[1], text, strlen(text)) == (ssize_t)strlen(text), "not typed");
}

/* --- output --- */

Test(console, a_line_goes_out_at_once)
{
    say("hello\n");
    run(20);
    heard("hello\n");
}

Test(console, a_prompt_without_a_newline_goes_out_too)
{
    say("login: ");
    run(20);
    heard("login: ");
}

Test(console, a_line_disturbs_the_loop_twice_at_most)
{
    to_loop = 0;
    say("a line of many characters, each of which is an exit of its own\n");
    cr_assert(to_loop <= 2, "the loop was told %u times", to_loop);
}

Test(console, transmitter_is_always_ready)
{
    for (unsigned i = 0; i < 100000; i++)
        out(UART_TX, 'x');
    cr_assert((in(UART_LSR) & (UART_LSR_THRE | UART_LSR_TEMT)) == (UART_LSR_THRE | UART_LSR_TEMT),
              "not ready");
}

Test(console, a_reader_that_sleeps_makes_characters_drop)
{
    for (unsigned i = 0; i < 200000; i++) {
        out(UART_TX, i % 80 ? 'x' : '\n');
        if (i % 1000 == 0)
            run(1);
    }
    cr_assert(losses().slow > 50000, "only %lu dropped", losses().slow);
    uint64_t taken = 0;
    char buffer[65536];
    cr_assert(fcntl(output[0], F_SETFL, O_NONBLOCK) == 0, "not made non-blocking");
    for (unsigned quiet = 0; quiet < 20;) {
        ssize_t n = read(output[0], buffer, sizeof(buffer));
        quiet = n > 0 ? 0 : quiet + 1;
        taken += n > 0 ? (uint64_t)n : 0;
        run(2);
    }
    cr_assert(taken + losses().slow == 200000, "%lu taken and %lu dropped", taken, losses().slow);
}

Test(console, a_reader_that_goes_away_harms_nothing)
{
    signal(SIGPIPE, SIG_IGN);
    close(output[0]);
    say("nobody hears this\n");
    run(20);
    say("nor this\n");
    run(20);
    cr_assert(in(UART_LSR)&UART_LSR_THRE, "the transmitter hangs");
    cr_assert(losses().error == -EPIPE && losses().slow == 0, "a reader that is gone is no slow one");
    cr_assert(losses().failed == strlen("nobody hears this\nnor this\n"), "%lu lost", losses().failed);
}

Test(console, a_full_disk_is_no_slow_reader)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    cr_assert(full >= 0, "no /dev/full");
    close_console();
    console_free(console);
    start(-1, full);
    say("a line\n");
    run(20);
    say("and one");
    run(20);
    cr_assert(losses().error == -ENOSPC && losses().slow == 0 && losses().failed == 14, "%d, %lu, %lu",
              losses().error, losses().slow, losses().failed);
    close(full);
}

Test(console, the_last_words_go_out_at_the_end)
{
    say("the end");
    close_console();
    heard("the end");
    console_free(console);
    start(-1, -1); /* for the tear-down */
}

Test(console, the_end_does_not_wait_for_a_sleeping_reader)
{
    for (unsigned i = 0; i < 100000; i++)
        out(UART_TX, 'x');
    close_console(); /* the suite's timeout is the assertion */
    cr_assert(losses().slow > 0 && losses().error == 0, "nothing was dropped");
    console_free(console);
    start(-1, -1); /* for the tear-down */
}

Test(console, a_panic_is_noticed_when_its_line_is_complete)
{
    say("[    1.000000] Kernel panic - not syncing");
    cr_assert(!console_saw_panic(console), "too early");
    say(": VFS\r\n");
    cr_assert(console_saw_panic(console), "missed");
    say("$ ls\n");
    cr_assert(!console_saw_panic(console), "a shell after a panic");
}

/* --- input --- */

Test(console, nothing_is_read_before_the_guest_listens)
{
    type("typed ahead");
    run(20);
    out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
    cr_assert(!(in(UART_LSR)&UART_LSR_DR) && in(UART_RX) == 0, "data before RTS");
    out(UART_MCR, UART_MCR_RTS);
    run(20);
    cr_assert(in(UART_LSR)&UART_LSR_DR, "no data after RTS");
    char text[16] = "";
    for (unsigned i = 0; i < 11; i++)
        text[i] = (char)in(UART_RX);
    cr_assert(strcmp(text, "typed ahead") == 0, "read '%s'", text);
    cr_assert(!(in(UART_LSR)&UART_LSR_DR), "more data");
}

Test(console, what_waits_survives_a_close_and_an_open)
{
    out(UART_IER, UART_IER_RDI);
    type("0123456789abcdefghijklmnopqrstuvwxyz");
    run(20);
    cr_assert(in(UART_RX) == '0', "first");
    out(UART_IER, 0);
    out(UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
    (void)in(UART_RX);
    out(UART_IER, UART_IER_RDI);
    cr_assert(in(UART_RX) == '1', "second");
}

Test(console, input_stops_when_the_ring_is_full_and_goes_on)
{
    static uint8_t sent[8192];
    for (unsigned i = 0; i < sizeof(sent); i++)
        sent[i] = (uint8_t)(i * 7);
    cr_assert(write(input[1], sent, sizeof(sent)) == sizeof(sent), "not typed");
    out(UART_IER, UART_IER_RDI);
    for (unsigned i = 0; i < sizeof(sent); i++) {
        for (unsigned wait = 0; !(in(UART_LSR)&UART_LSR_DR) && wait < 500; wait++)
            run(1);
        cr_assert(in(UART_RX) == sent[i], "byte %u", i);
    }
}

static uint8_t flood[200000], flooded[200000];
static size_t flood_sent, flood_count;

/* The other end of the pipe writes as much as it holds, and the loop reads. */
static bool send_more(void)
{
    ssize_t n = write(input[1], flood + flood_sent, sizeof(flood) - flood_sent);
    flood_sent += n > 0 ? (size_t)n : 0;
    run(0);
    return n > 0;
}

/* Linux's interrupt handler (drivers/tty/serial/8250): rounds until no interrupt is pending, 512 at most, and
 * in each 256 characters at most. More arrives meanwhile. */
static void linux_handler(void)
{
    for (unsigned pass = 0; pass < 512; pass++) {
        if (in(UART_IIR)&UART_IIR_NO_INT)
            return;
        unsigned max_count = 256;
        do {
            uint8_t byte = in(UART_RX);
            if (flood_count < sizeof(flooded))
                flooded[flood_count] = byte;
            flood_count++;
        } while ((in(UART_LSR)&UART_LSR_DR) && --max_count);
        send_more();
    }
}

/* Only an edge calls the handler: characters that wait without one wait for ever. */
Test(console, much_input_at_once_does_not_stall)
{
    for (size_t i = 0; i < sizeof(flood); i++)
        flood[i] = (uint8_t)(i * 31 + i / 256);
    cr_assert(fcntl(input[1], F_SETFL, O_NONBLOCK) == 0, "not made non-blocking");
    out(UART_IER, UART_IER_RDI);
    unsigned handled = edges;
    for (unsigned quiet = 0; quiet < 50 && flood_count < sizeof(flood);) {
        bool more = send_more(), called = edges != handled;
        handled = edges;
        if (called)
            linux_handler();
        quiet = called || more ? 0 : quiet + 1;
    }
    cr_assert(flood_count == sizeof(flood), "%zu characters came, then nothing", flood_count);
    cr_assert(memcmp(flood, flooded, sizeof(flood)) == 0, "other characters");
}

Test(console, a_driver_that_never_reads_iir_gets_all_input_too)
{
    char text[100] = "",
         sent[] = "sixteen bytes and then some more, which a handler reads until LSR says no\n";
    out(UART_IER, UART_IER_RDI);
    unsigned handled = edges, count = 0;
    type(sent);
    for (unsigned i = 0; i < 50; i++) {
        run(1);
        if (edges == handled)
            continue;
        handled = edges;
        while (in(UART_LSR)&UART_LSR_DR)
            text[count++] = (char)in(UART_RX);
    }
    cr_assert(strcmp(text, sent) == 0, "read '%s'", text);
}

Test(console, quiet_means_that_input_stays_in_the_kernel)
{
    bool quiet = false;
    out(UART_IER, UART_IER_RDI);
    run(5);
    console_quiesce(console, set_true, &quiet);
    while (!quiet)
        run(1);
    type("later");
    run(20);
    cr_assert(!(in(UART_LSR)&UART_LSR_DR), "input came in");
    say("but output goes out\n");
    run(20);
    heard("but output goes out\n");
    console_resume(console);
    run(20);
    cr_assert(in(UART_RX) == 'l', "no input after the resume");
}

Test(console, state_goes_to_another_console)
{
    struct state_writer saved = {0};
    bool quiet = false;
    out(UART_IER, UART_IER_RDI);
    out(UART_SCR, 0xa5);
    type("0123456789abcdefghij");
    run(20);
    cr_assert(in(UART_RX) == '0', "first");
    say("[ 1.0] Kernel panic - not syncing: test\n");
    console_quiesce(console, set_true, &quiet);
    while (!quiet)
        run(1);
    cr_assert(state_save(&console_state, 1, console, &saved) == 0, "%s", fail_text());
    close_console();
    console_free(console);
    start(input[0], output[1]);
    struct state_reader from = {.bytes = saved.bytes, .length = saved.length};
    cr_assert(state_load(&console_state, 1, console, from) == 0, "%s", fail_text());
    cr_assert(in(UART_SCR) == 0xa5 && *line->pending && console_saw_panic(console), "the registers");
    for (const char *at = "123456789abcdefghij"; *at; at++) {
        cr_assert(in(UART_LSR)&UART_LSR_DR || in(UART_LSR)&UART_LSR_DR, "no '%c'", *at);
        cr_assert(in(UART_RX) == *at, "not '%c'", *at);
    }
    state_writer_free(&saved);
}

Test(console, the_end_of_input_is_quiet)
{
    out(UART_IER, UART_IER_RDI);
    type("x");
    close(input[1]);
    run(20);
    cr_assert(in(UART_RX) == 'x' && !(in(UART_LSR)&UART_LSR_DR), "wrong data");
    run(20);
}

/* --- interrupts --- */

Test(console, receive_interrupt_stands_until_all_is_read)
{
    out(UART_IER, UART_IER_RDI);
    type("ab");
    run(20);
    cr_assert(*line->pending && edges == 1, "no interrupt");
    cr_assert((in(UART_IIR)&0x0f) == UART_IIR_RDI, "the wrong one");
    (void)in(UART_RX);
    cr_assert((in(UART_IIR)&0x0f) == UART_IIR_RDI, "gone with data left");
    (void)in(UART_RX);
    cr_assert((in(UART_IIR)&0x0f) == UART_IIR_NO_INT && !*line->pending, "still there");
    type("c");
    run(20);
    cr_assert(edges == 2, "no new edge for new data");
}

Test(console, transmit_interrupt_comes_when_it_is_enabled)
{
    out(UART_IER, UART_IER_THRI);
    cr_assert(*line->pending, "no interrupt: the driver would wait for ever");
    cr_assert((in(UART_IIR)&0x0f) == UART_IIR_THRI, "the wrong one");
    cr_assert((in(UART_IIR)&0x0f) == UART_IIR_NO_INT && !*line->pending, "reading it does not take it back");
    for (unsigned burst = 0; burst < 3; burst++) {
        unsigned before = edges;
        say("0123456789abcdef");
        cr_assert(*line->pending && edges == before + 1, "no interrupt after a burst");
        cr_assert((in(UART_IIR)&0x0f) == UART_IIR_THRI, "the wrong one");
    }
    out(UART_IER, 0);
    say("x");
    cr_assert(!*line->pending, "an interrupt that is disabled");
    out(UART_IER, UART_IER_THRI);
    cr_assert(*line->pending, "no interrupt when it is enabled again");
}

Test(console, received_data_comes_before_the_transmitter)
{
    out(UART_IER, UART_IER_THRI | UART_IER_RDI);
    type("x");
    run(20);
    cr_assert((in(UART_IIR)&0x0f) == UART_IIR_RDI, "not first");
    (void)in(UART_RX);
    cr_assert((in(UART_IIR)&0x0f) == UART_IIR_THRI, "not second");
}

/* --- the other registers --- */

Test(console, is_a_16550a)
{
    /* What Linux's autoconfig() asks. */
    out(UART_IER, 0x0f);
    cr_assert(in(UART_IER) == 0x0f, "IER does not hold");
    out(UART_IER, 0);
    out(UART_MCR, UART_MCR_LOOP | 0x0a);
    cr_assert((in(UART_MSR)&0xf0) == 0x90, "loopback of the modem lines: 0x%x", in(UART_MSR));
    out(UART_MCR, 0);
    out(UART_FCR, UART_FCR_ENABLE_FIFO);
    cr_assert(in(UART_IIR) >> 6 == 3, "no FIFO");
    out(UART_SCR, 0xa5);
    cr_assert(in(UART_SCR) == 0xa5, "scratch");
}

Test(console, divisor_does_not_go_out_as_a_character)
{
    out(UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
    out(UART_DLL, 'Z');
    out(UART_DLM, 1);
    cr_assert(in(UART_DLL) == 'Z' && in(UART_DLM) == 1, "divisor");
    out(UART_LCR, UART_LCR_WLEN8);
    say("y\n");
    run(20);
    heard("y\n");
    cr_assert(in(UART_IER) == 0, "the divisor is in IER");
}

Test(console, loopback_comes_back_and_does_not_go_out)
{
    out(UART_MCR, UART_MCR_LOOP | UART_MCR_RTS);
    say("L");
    cr_assert((in(UART_LSR)&UART_LSR_DR) && in(UART_RX) == 'L', "not back");
    out(UART_MCR, UART_MCR_RTS);
    say("x\n");
    run(20);
    heard("x\n");
}

Test(console, wide_accesses_are_bytes)
{
    ops->write(opaque, UART_LCR, 2, 0x0903);
    cr_assert(in(UART_LCR) == 3 && in(UART_MCR) == 9, "LCR 0x%x, MCR 0x%x", in(UART_LCR), in(UART_MCR));
    cr_assert(ops->read(opaque, 6, 4) >> 16 == 0xffff, "beyond the last register");
}
