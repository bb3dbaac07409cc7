/* The console under four threads that write to it and four that read from it, beside the loop that moves
 * characters: every character that goes in comes out, once, or is counted as lost. */
#include "dev/console.h"
#include "vcpu/layout.h"

#include <fcntl.h>
#include <linux/serial_reg.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define THREADS 4u
#define BYTES   20000u /* of each thread that writes, and from the host in all */

/* The line is not what is tested. */
int irq_connect(struct irq_lines *lines, unsigned gsi, struct irq_source *source)
{
    (void)lines, (void)gsi, (void)source;
    return 0;
}

void irq_raise(struct irq_source *source, uint32_t bits)
{
    atomic_fetch_or(source->pending, bits);
}

void irq_ack(struct irq_source *source, uint32_t bits)
{
    atomic_fetch_and(source->pending, ~bits);
}

static struct loop *loop;
static struct bus *bus;
static struct console *console;
static int input[2], output[2];
static _Atomic uint64_t written[THREADS]; /* came out, by whose they are */
static _Atomic uint64_t received;
static _Atomic unsigned running = 2 * THREADS + 1;

static uint8_t access_register(bool is_write, unsigned reg, uint8_t value)
{
    struct vcpu_access access = {.space = VCPU_PORT,
                                 .is_write = is_write,
                                 .length = 1,
                                 .address = LAYOUT_COM1_PORT + reg,
                                 .value = value};
    bus_access(bus, &access);
    return (uint8_t)access.value;
}

static void *write_some(void *sender)
{
    for (uint32_t i = 0; i < BYTES; i++) {
        access_register(true, UART_TX, (uint8_t)((uintptr_t)sender << 6 | (i & 63)));
        if (i % 256 == 0)
            sched_yield();
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void *read_some(void *nothing)
{
    (void)nothing;
    while (atomic_load(&received) < BYTES) {
        /* Two readers may see one byte: what is sent is never 0, and 0 is nothing. */
        if (!(access_register(false, UART_LSR, 0) & UART_LSR_DR))
            sched_yield();
        else if (access_register(false, UART_RX, 0) != 0)
            atomic_fetch_add(&received, 1);
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

/* The host's side of both pipes. */
static void *host(void *nothing)
{
    (void)nothing;
    uint8_t buffer[4096];
    memset(buffer, 'x', sizeof(buffer));
    for (size_t sent = 0; sent < BYTES;) {
        ssize_t n = write(input[1], buffer, MIN(sizeof(buffer), BYTES - sent));
        CHECK(n > 0);
        sent += (size_t)n;
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void *take_output(void *nothing)
{
    (void)nothing;
    uint8_t buffer[4096];
    for (ssize_t n; (n = read(output[0], buffer, sizeof(buffer))) > 0;)
        for (ssize_t i = 0; i < n; i++)
            atomic_fetch_add(&written[buffer[i] >> 6], 1);
    return NULL;
}

static struct loop_timer timer;

static void look(struct loop_op *op, int result, unsigned flags)
{
    (void)op, (void)result, (void)flags;
    if (atomic_load(&running) == 0)
        loop_stop(loop, 0);
    else
        loop_timer_start(loop, &timer, 10000000);
}

static void closed(void *is_closed)
{
    *(bool *)is_closed = true;
    loop_stop(loop, 0);
}

int main(void)
{
    pthread_t threads[2 * THREADS + 2];
    CHECK(pipe2(input, O_CLOEXEC) == 0 && pipe2(output, O_CLOEXEC) == 0);
    CHECK(loop_new(32, &loop) == 0 && bus_new(loop, NULL, &bus) == 0);
    const struct console_config config = {.input_fd = input[0], .output_fd = output[1]};
    CHECK(console_new(loop, &config, &console) == 0 && console_attach(console, bus, NULL) == 0);
    access_register(true, UART_IER, UART_IER_RDI | UART_IER_THRI);
    for (uintptr_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, write_some, (void *)i) == 0);
        CHECK(pthread_create(&threads[THREADS + i], NULL, read_some, NULL) == 0);
    }
    CHECK(pthread_create(&threads[2 * THREADS], NULL, host, NULL) == 0);
    CHECK(pthread_create(&threads[2 * THREADS + 1], NULL, take_output, NULL) == 0);
    timer.op.done = look;
    loop_timer_start(loop, &timer, 10000000);
    CHECK(loop_run(loop) == 0);
    for (unsigned i = 0; i <= 2 * THREADS; i++)
        pthread_join(threads[i], NULL);
    bus_drain(bus);
    bool is_closed = false;
    console_close(console, closed, &is_closed);
    while (!is_closed)
        CHECK(loop_run(loop) == 0);
    close(output[1]);
    pthread_join(threads[2 * THREADS + 1], NULL);

    struct console_losses losses;
    console_losses(console, &losses);
    uint64_t came = losses.slow;
    for (unsigned i = 0; i < THREADS; i++)
        came += written[i];
    if (came != THREADS * BYTES || received != BYTES || losses.error) {
        printf("%llu of %u characters came out or are counted, %llu of %u came in\n",
               (unsigned long long)came, THREADS * BYTES, (unsigned long long)received, BYTES);
        return 1;
    }
    console_free(console);
    return 0;
}
