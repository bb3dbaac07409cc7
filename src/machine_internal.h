/* Between the machine*.c files only. */
#pragma once

#include "boot/boot.h"
#include "dev/acpi_pm.h"
#include "dev/boot_timer.h"
#include "dev/cmos.h"
#include "dev/console.h"
#include "dev/i8042.h"
#include "loop/mailbox.h"
#include "machine.h"
#include "vcpu/layout.h"

#include <ev.h>
#include <time.h>

struct machine {
    const struct config *config;
    struct machine_observer observer;
    enum machine_state state;
    bool broken; /* a failed start has left things behind */
    char *command_line;
    int kvm_fd, kernel_fd, initrd_fd, serial_fd;
    struct timespec started;

    struct guest_mem mem;
    struct boot_entry entry;
    struct vm vm;
    struct loop *loop;
    struct bus *bus;
    struct irq_lines *lines;
    struct console *console;
    struct i8042 i8042;
    struct cmos cmos;
    struct acpi_pm acpi_pm;
    struct boot_timer boot_timer;
    struct virtio_device *devices[LAYOUT_VIRTIO_MAX];
    unsigned slots;        /* virtio devices so far */
    unsigned busy_devices; /* at a pause and at the end: not yet quiet */
    unsigned parked;       /* vCPUs, of a machine that is pausing */

    /* What machine.c has the parts do. */
    struct shutdown_handler shutdown;
    mailbox_deliver *deliver_news;
    size_t (*filter_input)(void *machine, uint8_t *bytes, size_t length); /* what was typed */

    struct vcpu_callbacks callbacks;
    struct machine_saving *saving; /* the snapshot that is being written, or NULL */
    char *saved_as;                /* cas:NAME of the last one in the store; NULL: there was none */
    struct disk_opener *opener;    /* of disks that replace others; NULL: nobody can ask for one */
    struct mailbox *news;          /* from vCPU threads: one has parked, or stopped and why */
    ev_signal signals[3];
    bool console_closed;   /* at the end: all that the guest said is written */
    bool powered_off;      /* a kernel that panics does not power off */
    char end_message[256]; /* why it ended; empty while it runs */
};

/* machine_assemble.c: from machine->config to a machine that can run, its vCPUs not started. On failure
 * *ret_blame says whose fault it is, with a message. */
int machine_assemble(struct machine *machine, enum machine_status *ret_blame);

/* machine_snapshot.c: what a snapshot has beside the memory: its sections CONF and MACH. */
int machine_collect(const struct machine *machine, struct state_writer *to);

/* A file that was handed in for `name` must have nothing in it that would shine through the holes. -EINVAL
 * with a message. */
int machine_check_empty(const char *name, int fd);

/*
 * machine_state.c: the state of a paused machine beside its memory, and back into one that was just put
 * together and has its memory. It is then as after a pause. Errors as state_load() and vm_load() have them.
 */
int machine_save(const struct machine *machine, struct state_writer *to);
int machine_load(struct machine *machine, struct state_reader from);
int machine_load_snapshot(
    struct machine *machine); /* config->snapshot, and it is told that it is another one */
int machine_save_config(const struct machine *machine, struct state_writer *to);
