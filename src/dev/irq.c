#include "dev/irq.h"
#include "vcpu/layout.h"
#include "vcpu/vcpu.h"

#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

struct irq_line {
    struct vm *vm;
    uint32_t gsi;
    unsigned sources;
    int event_fd; /* of an exclusive line; -1 for one that is raised by KVM_IRQ_LINE */
};

struct irq_lines {
    struct irq_line lines[LAYOUT_IOAPIC_PINS];
};

int irq_lines_new(struct vm *vm, struct irq_lines **ret_lines)
{
    struct irq_lines *lines = calloc(1, sizeof(*lines));
    if (!lines)
        return fail(-ENOMEM, "no memory for the interrupt lines");
    for (uint32_t gsi = 0; gsi < LAYOUT_IOAPIC_PINS; gsi++)
        lines->lines[gsi] = (struct irq_line){.vm = vm, .gsi = gsi, .event_fd = -1};
    *ret_lines = lines;
    return 0;
}

void irq_lines_free(struct irq_lines *lines)
{
    if (!lines)
        return;
    for (uint32_t gsi = 0; gsi < LAYOUT_IOAPIC_PINS; gsi++)
        cleanup_fd(&lines->lines[gsi].event_fd);
    free(lines);
}

static void connect_source(struct irq_line *line, struct irq_source *source)
{
    line->sources++;
    source->line = line;
    atomic_fetch_or(source->pending, source->always);
}

int irq_connect(struct irq_lines *lines, unsigned gsi, struct irq_source *source)
{
    CHECK(gsi < LAYOUT_IOAPIC_PINS);
    struct irq_line *line = &lines->lines[gsi];
    if (line->event_fd >= 0)
        return fail(-EBUSY, "interrupt line %u belongs to a vhost device (fewer devices fit beside it)", gsi);
    connect_source(line, source);
    return 0;
}

int irq_connect_exclusive(struct irq_lines *lines, unsigned gsi, struct irq_source *source)
{
    CHECK(gsi < LAYOUT_IOAPIC_PINS);
    struct irq_line *line = &lines->lines[gsi];
    if (line->sources > 0)
        return fail(-EBUSY,
                    "interrupt line %u is shared, and a vhost device needs one alone (fewer devices fit)",
                    gsi);
    CLEANUP_FD int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event_fd < 0)
        return fail_errno(-errno, "eventfd");
    int r = vm_add_irqfd(line->vm, gsi, event_fd);
    if (r < 0)
        return r;
    line->event_fd = fd_steal(&event_fd);
    connect_source(line, source);
    return 0;
}

int irq_event_fd(const struct irq_source *source)
{
    return source->line->event_fd;
}

static void set_level(const struct irq_line *line, uint32_t level)
{
    struct kvm_irq_level set = {.irq = line->gsi, .level = level};
    CHECK(ioctl(line->vm->fd, KVM_IRQ_LINE, &set) == 0);
}

void irq_raise(struct irq_source *source, uint32_t bits)
{
    static const uint64_t one = 1;
    const struct irq_line *line = source->line;
    uint32_t before = atomic_fetch_or(source->pending, bits);
    if (!(bits & ~before))
        return;
    if (line->event_fd >= 0) {
        CHECK(write(line->event_fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN);
        return;
    }
    /* Down, then up, and it stays up. In this order two threads may do it at once: if our "up" finds the line
     * up and makes no edge, another's made one after our "down", and so after our bits were set. */
    set_level(line, 0);
    set_level(line, 1);
}

void irq_ack(struct irq_source *source, uint32_t bits)
{
    atomic_fetch_and(source->pending, ~(bits & ~source->always));
}
