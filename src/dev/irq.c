#include "dev/irq.h"
#include "dev/layout.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>

struct irq_line {
    int vm_fd;
    uint32_t gsi;
};

struct irq_lines {
    struct irq_line lines[LAYOUT_IOAPIC_PINS];
};

int irq_lines_new(int vm_fd, struct irq_lines **ret_lines)
{
    struct irq_lines *lines = calloc(1, sizeof(*lines));
    if (!lines)
        return fail(-ENOMEM, "no memory for the interrupt lines");
    for (uint32_t gsi = 0; gsi < LAYOUT_IOAPIC_PINS; gsi++)
        lines->lines[gsi] = (struct irq_line){.vm_fd = vm_fd, .gsi = gsi};
    *ret_lines = lines;
    return 0;
}

void irq_lines_free(struct irq_lines *lines)
{
    free(lines);
}

void irq_connect(struct irq_lines *lines, unsigned gsi, struct irq_source *source)
{
    CHECK(gsi < LAYOUT_IOAPIC_PINS);
    source->line = &lines->lines[gsi];
}

static void set_level(const struct irq_line *line, uint32_t level)
{
    struct kvm_irq_level set = {.irq = line->gsi, .level = level};
    CHECK(ioctl(line->vm_fd, KVM_IRQ_LINE, &set) == 0);
}

void irq_raise(struct irq_source *source, uint32_t bits)
{
    uint32_t before = atomic_fetch_or(source->pending, bits);
    if (!(bits & ~before))
        return;
    /* Down, then up, and up it stays. In this order two threads may do it at once: if our "up" finds the line
     * up and makes no edge, another's made one after our "down", and so after our bits were set. */
    set_level(source->line, 0);
    set_level(source->line, 1);
}

void irq_ack(struct irq_source *source, uint32_t bits)
{
    atomic_fetch_and(source->pending, ~bits);
}
