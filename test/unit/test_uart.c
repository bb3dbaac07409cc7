/* The UART's registers alone, and the panic watch. */
#include "dev/panic_watch.h"
#include "dev/uart.h"

#include <criterion/criterion.h>
#include <linux/serial_reg.h>
#include <string.h>

static struct uart uart;

static void set_up(void)
{
    uart_reset(&uart);
}

TestSuite(uart, .timeout = 10, .init = set_up);

static void receive(const void *bytes, size_t length)
{
    cr_assert(uart_receive(&uart, bytes, length) == length, "no room for %zu", length);
}

Test(uart, received_bytes_fill_empty_and_wrap)
{
    static uint8_t bytes[UART_RECEIVED_SIZE];
    uint8_t next_in = 0, next_out = 0;
    uart_write(&uart, UART_MCR, UART_MCR_RTS);
    for (unsigned round = 0; round < 200; round++) {
        size_t count = round * 37 % (UART_RECEIVED_SIZE + 1);
        for (size_t i = 0; i < count; i++)
            bytes[i] = next_in++;
        receive(bytes, count);
        cr_assert(uart_room(&uart) == UART_RECEIVED_SIZE - count, "round %u: room", round);
        cr_assert(count < UART_RECEIVED_SIZE || uart_receive(&uart, bytes, 1) == 0, "round %u: more", round);
        for (size_t i = 0; i < count; i++) {
            if (!(uart_read(&uart, UART_LSR) & UART_LSR_DR))
                cr_assert(uart_read(&uart, UART_LSR) & UART_LSR_DR, "round %u: no byte %zu", round, i);
            cr_assert(uart_read(&uart, UART_RX) == next_out++, "round %u: byte %zu", round, i);
        }
        cr_assert(!(uart_read(&uart, UART_LSR) & UART_LSR_DR), "round %u: one more", round);
    }
}

Test(uart, positions_wrap)
{
    /* As after 2^32 - 8 bytes, were they counted for ever. */
    uart.head = UART_RECEIVED_SIZE - 3;
    uart_write(&uart, UART_MCR, UART_MCR_RTS);
    for (unsigned i = 0; i < 100; i++) {
        receive(&(uint8_t){(uint8_t)i}, 1);
        cr_assert(uart_read(&uart, UART_RX) == (uint8_t)i, "byte %u", i);
    }
}

Test(uart, each_fifo_of_input_makes_an_interrupt_of_its_own)
{
    uint8_t bytes[40] = {0};
    uart_write(&uart, UART_IER, UART_IER_RDI);
    receive(bytes, sizeof(bytes));
    for (unsigned left = 40; left > 0;) {
        unsigned burst = MIN(left, UART_FIFO_DEPTH);
        cr_assert(uart_interrupts(&uart) == UART_IRQ_RECEIVED, "no interrupt with %u left", left);
        for (unsigned i = 0; i < burst; i++, left--)
            uart_read(&uart, UART_RX);
        cr_assert(uart_interrupts(&uart) == 0, "the interrupt stands");
        cr_assert((uart_read(&uart, UART_IIR) & 0x0f) == UART_IIR_NO_INT, "and is reported");
    }
    cr_assert(uart_interrupts(&uart) == 0, "an interrupt for nothing");
}

Test(uart, clearing_the_fifo_loses_what_is_in_it)
{
    uint8_t bytes[UART_FIFO_DEPTH + 1] = {[UART_FIFO_DEPTH] = 'x'};
    uart_write(&uart, UART_MCR, UART_MCR_RTS);
    receive(bytes, sizeof(bytes));
    uart_write(&uart, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
    cr_assert(uart_read(&uart, UART_RX) == 'x', "more or less was lost");
}

Test(uart, any_register_access_is_harmless)
{
    uint32_t random = 1;
    for (unsigned i = 0; i < 2000000; i++) {
        random = random * 1664525 + 1013904223;
        unsigned reg = random >> 28;
        if (random & 0x1000)
            uart_write(&uart, reg, (uint8_t)(random >> 16));
        else
            uart_read(&uart, reg);
        if (random % 64 == 0)
            uart_receive(&uart, (const uint8_t[3]){1, 2, 3}, 3);
        cr_assert(uart.fifo <= uart.count && uart.fifo <= UART_FIFO_DEPTH &&
                      uart.count <= UART_RECEIVED_SIZE && uart.head < UART_RECEIVED_SIZE,
                  "after access %u", i);
    }
}

Test(uart, hostile_state_is_refused)
{
    struct state_writer saved = {0};
    receive("abc", 3);
    uart_save(&uart, &saved);
    struct uart loaded = {0};
    struct state_reader whole = {.bytes = saved.bytes, .length = saved.length};
    cr_assert(uart_load(&loaded, &whole) == 0 && whole.length == 0 && loaded.count == 3, "%s", fail_text());
    for (size_t length = 0; length < saved.length; length++) {
        struct state_reader cut = {.bytes = saved.bytes, .length = length};
        cr_assert(uart_load(&loaded, &cut) == -EBADMSG, "%zu bytes", length);
    }
    static const struct {
        size_t at;
        uint8_t value;
    } damage[] = {{0, 0x10}, {2, 0x20}, {7, 2}, {8, 4}, {8, 17}, {13, 4}, {15, 1}};
    for (size_t i = 0; i < ARRAY_SIZE(damage); i++) {
        uint8_t before = saved.bytes[damage[i].at];
        saved.bytes[damage[i].at] = damage[i].value;
        struct state_reader damaged = {.bytes = saved.bytes, .length = saved.length};
        cr_assert(uart_load(&loaded, &damaged) == -EBADMSG, "damage %zu", i);
        saved.bytes[damage[i].at] = before;
    }
    state_writer_free(&saved);
}

/* --- what is a panic, and what only looks like one --- */

static bool panicked(const char *text)
{
    struct panic_watch watch = {0};
    for (; *text; text++)
        panic_watch_byte(&watch, (uint8_t)*text);
    return panic_watch_panicked(&watch);
}

#define PANIC "Kernel panic - not syncing: VFS: Unable to mount root fs"

Test(uart, panics)
{
    static const char *const texts[] = {
        PANIC "\n",
        "[    1.234567] " PANIC "\r\n",
        "[    1.234567][    T1] " PANIC "\n",
        "login: [  123.456789] " PANIC "\n",
        "[12345.678901] " PANIC "\n[12345.678902] CPU: 0 PID: 1\n\n[12345.7] Rebooting in 1 seconds..\n",
        PANIC "\nCPU: 0 PID: 1\nKernel Offset: disabled\n",
        "[    1.0] " PANIC "\n$ dmesg\n[    1.0] " PANIC "\n",
        "[ [    1.0] " PANIC "\n",
    };
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        cr_assert(panicked(texts[i]), "missed: %s", texts[i]);
}

Test(uart, what_only_looks_like_a_panic)
{
    static const char *const texts[] = {
        "the log says: " PANIC "\n",
        "log[1]: " PANIC "\n",
        "grep '" PANIC "' log\n",
        "[    1.0] KKernel panic - not syncing\n",
        "[    1.0] Kernel panic - not syncin\n",
        "[    1.0] " PANIC, /* not yet complete */
        "[    1.0] " PANIC "\n$ ",
        "[    1.0] " PANIC "\nwelcome\n",
        "[    1.0] " PANIC "\n[  500.0] reboot: Restarting system\n",
        PANIC "\nreboot: Power down\n",
        "[] " PANIC "\n",
    };
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        cr_assert(!panicked(texts[i]), "wrong: %s", texts[i]);
}

Test(uart, endless_lines_are_cut)
{
    struct panic_watch watch = {0};
    for (unsigned i = 0; i < 100000; i++)
        panic_watch_byte(&watch, '[');
    panic_watch_byte(&watch, '\n');
    cr_assert(!watch.panicked && watch.length == 0, "length %u", watch.length);
}
