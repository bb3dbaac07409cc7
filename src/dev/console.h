/*
 * The console: a UART (uart.h) on COM1, and a terminal, pipe or file behind it.
 *
 *   THR write ──► output ring ──► loop: one write of all there is ──► output_fd
 *   RBR read  ◄── the UART's received[] ◄── loop: read, as much as there is room ◄── input_fd
 *
 * vCPU threads and the loop share the UART and the ring under one lock, which is held for a register access,
 * and over no wait. The loop is woken once per line or per millisecond of output, not per character. A reader
 * that does not drain makes characters drop, counted; the guest never waits for it. Input is taken from the
 * host only when the guest listens (uart_listens) and while the UART has room.
 */
#pragma once

#include "base/state.h"
#include "dev/bus.h"
#include "dev/irq.h"

struct console;

struct console_config {
    int input_fd;  /* or -1; lent. Read by ring ops: a terminal is shared with others, so its flags stay. */
    int output_fd; /* or -1: characters vanish; lent. The process ignores SIGPIPE. */
    /* Loop thread. Sees what was typed before the guest does and may take bytes out (Ctrl-A): returns how
     * many of the bytes in `bytes` are left. Optional. */
    size_t (*filter_input)(void *context, uint8_t *bytes, size_t length);
    void *context;
};

int console_new(struct loop *loop, const struct console_config *config, struct console **ret_console);

/* Before the vCPUs run. Errors as bus_add() and irq_connect() have them. */
int console_attach(struct console *console, struct bus *bus, struct irq_lines *lines);

/* Called on the loop thread. */
typedef void console_done(void *context);

/* No input is taken until the resume: it stays in the kernel. done(context) is called, now or later, when no
 * read is in flight. Output goes on. Loop thread; once until the resume. */
void console_quiesce(struct console *console, console_done *done, void *context);
void console_resume(struct console *console);

/*
 * At the end, when the guest's last characters are in. They are written, for a second at most to a reader
 * that does not drain. Then, now or in a later turn of the loop, nothing is in flight, and done(context) is
 * called. Loop thread.
 */
void console_close(struct console *console, console_done *done, void *context);

/* After console_close(), or when console_attach() was never called. NULL is nothing. */
void console_free(struct console *console);

/* Characters of the guest that are lost, so far, and why. Any thread. */
struct console_losses {
    uint64_t slow;   /* the reader did not take them in time */
    uint64_t failed; /* after the output failed with `error` */
    int error;       /* negative errno: -EPIPE, the reader has gone; -ENOSPC, the disk is full; 0: none */
};
void console_losses(struct console *console, struct console_losses *ret_losses);

/* True once the guest's kernel has said that it panicked, and nothing has come after that (panic_watch.h).
 * Any thread. */
bool console_saw_panic(struct console *console);

/* The UART and what the panic watch knows; the owner is the struct console. While the vCPUs are parked and
 * the console is quiet. */
extern const struct state_part console_state;
