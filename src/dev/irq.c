#include "dev/irq.h"
#include "dev/layout.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>

struct irq_line {
    int vm_fd;
    uint32_t gsi;
    struct irq_source *sources;
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
    struct irq_line *line = &lines->lines[gsi];
    source->line = line;
    source->next = line->sources;
    line->sources = source;
}

static bool line_pending(const struct irq_line *line)
{
    for (const struct irq_source *source = line->sources; source; source = source->next)
        if (atomic_load(&source->pending))
            return true;
    return false;
}

/*
 * Brings the line to what its sources say. Two threads may be here at once; whoever set the line last looks
 * at the sources after that, and corrects a level that has become stale. So when all have left, level and
 * sources agree.
 */
static void line_settle(const struct irq_line *line)
{
    bool up;
    do {
        up = line_pending(line);
        struct kvm_irq_level level = {.irq = line->gsi, .level = up};
        CHECK(ioctl(line->vm_fd, KVM_IRQ_LINE, &level) == 0);
    } while (up != line_pending(line));
}

void irq_raise(struct irq_source *source, uint32_t bits)
{
    if (atomic_fetch_or(&source->pending, bits) == 0)
        line_settle(source->line);
}

void irq_ack(struct irq_source *source, uint32_t bits)
{
    uint32_t before = atomic_fetch_and(&source->pending, ~bits);
    if (before && !(before & ~bits))
        line_settle(source->line);
}
