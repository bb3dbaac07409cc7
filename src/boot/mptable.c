/*
 * Chapter 4 of the specification. Lines are described as KVM's default routing has them, GSI n on pin n; the
 * timer too (arch/x86/kvm/irq_comm.c, default_routing): a PC has it on pin 2, where nothing is here. Pins
 * from 16 up are the same ISA bus' interrupts 16 and on: ISA has no such lines, but Linux reads the number as
 * it is and makes an IRQ of that number for the pin (arch/x86/kernel/apic/io_apic.c, mp_map_pin_to_irq),
 * which is what virtio_mmio.device= names.
 */
#include "boot/mptable.h"

#include "boot/checksum.h"
#include "vcpu/layout.h"
#include "vcpu/vcpu.h"

#include <string.h>

#define SPEC_REVISION  4 /* 1.4 */
#define LAPIC_VERSION  0x14
#define IOAPIC_VERSION 0x11
#define ISA_BUS        0
#define ALL_LAPICS     0xff

enum entry_type { ENTRY_CPU, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_IO_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum interrupt_type { INTERRUPT_INT = 0, INTERRUPT_NMI = 1, INTERRUPT_EXTINT = 3 };

/* Polarity in bits 0 and 1, trigger in bits 2 and 3; 0 is what the bus has: edge, active high for ISA. */
#define INTERRUPT_AS_BUS 0x0

#define CPU_ENABLED 0x1
#define CPU_BOOT    0x2
/* What kernels look at if they look at all: family 6; FPU and APIC on the chip. CPUID has the truth. */
#define CPU_SIGNATURE 0x600
#define CPU_FEATURES  0x201

struct mp_floating {
    char signature[4];
    uint32_t table;
    uint8_t length; /* of this, in 16 bytes */
    uint8_t revision;
    uint8_t checksum;
    uint8_t features[5]; /* all 0: there is a table, and no PIC mode to leave */
};

struct mp_header {
    char signature[4];
    uint16_t length;
    uint8_t revision;
    uint8_t checksum;
    char oem[8];
    char product[12];
    uint32_t oem_table;
    uint16_t oem_table_size;
    uint16_t entry_count;
    uint32_t lapic;
    uint32_t extended;
};

struct mp_cpu {
    uint8_t type;
    uint8_t apic_id;
    uint8_t apic_version;
    uint8_t flags;
    uint32_t signature;
    uint32_t features;
    uint32_t reserved[2];
};

struct mp_bus {
    uint8_t type;
    uint8_t id;
    char name[6];
};

struct mp_ioapic {
    uint8_t type;
    uint8_t apic_id;
    uint8_t apic_version;
    uint8_t flags;
    uint32_t address;
};

/* An interrupt of a bus at a pin of an IOAPIC, or at LINT0 or LINT1 of a local APIC. */
struct mp_interrupt {
    uint8_t type;
    uint8_t interrupt;
    uint16_t flags;
    uint8_t bus;
    uint8_t bus_irq;
    uint8_t apic_id;
    uint8_t pin;
};

_Static_assert(sizeof(struct mp_floating) == 16 && sizeof(struct mp_header) == 44 &&
                   sizeof(struct mp_cpu) == 20 && sizeof(struct mp_bus) == 8 &&
                   sizeof(struct mp_ioapic) == 8 && sizeof(struct mp_interrupt) == 8,
               "the specification's sizes");

struct mp_table {
    struct mp_header header;
    uint8_t entries[VM_CPUS_MAX * sizeof(struct mp_cpu) + (2 + LAYOUT_IOAPIC_PINS + 2) * 8];
};
_Static_assert(LAYOUT_MPCONFIG_GPA + sizeof(struct mp_table) <= LAYOUT_MPCONFIG_END, "fits its place");

static void add_entry(struct mp_table *table, const void *entry, size_t size)
{
    CHECK(table->header.length + size <= sizeof(*table));
    memcpy((uint8_t *)table + table->header.length, entry, size);
    table->header.length = (uint16_t)(table->header.length + size);
    table->header.entry_count++;
}

static void add_cpus(struct mp_table *table, unsigned cpu_count)
{
    for (unsigned i = 0; i < cpu_count; i++) {
        struct mp_cpu cpu = {
            .type = ENTRY_CPU,
            .apic_id = (uint8_t)i,
            .apic_version = LAPIC_VERSION,
            .flags = (uint8_t)(CPU_ENABLED | (i == 0 ? CPU_BOOT : 0)),
            .signature = CPU_SIGNATURE,
            .features = CPU_FEATURES,
        };
        add_entry(table, &cpu, sizeof(cpu));
    }
}

static void add_lines(struct mp_table *table, uint8_t ioapic_id)
{
    static const struct mp_interrupt local_interrupts[] = {
        {.type = ENTRY_LOCAL_INTERRUPT,
         .interrupt = INTERRUPT_EXTINT,
         .bus = ISA_BUS,
         .apic_id = ALL_LAPICS,
         .pin = 0},
        {.type = ENTRY_LOCAL_INTERRUPT,
         .interrupt = INTERRUPT_NMI,
         .bus = ISA_BUS,
         .apic_id = ALL_LAPICS,
         .pin = 1},
    };
    for (unsigned pin = 0; pin < LAYOUT_IOAPIC_PINS; pin++) {
        struct mp_interrupt line = {
            .type = ENTRY_IO_INTERRUPT,
            .interrupt = INTERRUPT_INT,
            .flags = INTERRUPT_AS_BUS,
            .bus = ISA_BUS,
            .bus_irq = (uint8_t)pin,
            .apic_id = ioapic_id,
            .pin = (uint8_t)pin,
        };
        if (pin != 2) /* the cascade of the two PICs: ISA devices cannot have it */
            add_entry(table, &line, sizeof(line));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(local_interrupts); i++)
        add_entry(table, &local_interrupts[i], sizeof(local_interrupts[i]));
}

int mptable_write(const struct guest_mem *mem, unsigned cpu_count)
{
    if (cpu_count == 0 || cpu_count > VM_CPUS_MAX)
        return fail(-EINVAL, "a guest cannot have %u CPUs (give 1 to %u)", cpu_count, VM_CPUS_MAX);
    struct mp_table table = {
        .header =
            {
                .signature = {'P', 'C', 'M', 'P'},
                .length = sizeof(table.header),
                .revision = SPEC_REVISION,
                .oem = {'S', 'T', 'A', 'R', 'D', 'U', 'S', 'T'},
                .product = {'V', 'O', 'L', 'T', ' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '},
                .lapic = LAYOUT_LAPIC_GPA,
            },
    };
    struct mp_floating floating = {
        .signature = {'_', 'M', 'P', '_'},
        .table = LAYOUT_MPCONFIG_GPA,
        .length = 1,
        .revision = SPEC_REVISION,
    };
    struct mp_bus bus = {.type = ENTRY_BUS, .id = ISA_BUS, .name = {'I', 'S', 'A', ' ', ' ', ' '}};
    struct mp_ioapic ioapic = {
        .type = ENTRY_IOAPIC,
        .apic_id = (uint8_t)cpu_count, /* the first that no CPU has */
        .apic_version = IOAPIC_VERSION,
        .flags = 1, /* usable */
        .address = LAYOUT_IOAPIC_GPA,
    };

    add_cpus(&table, cpu_count);
    add_entry(&table, &bus, sizeof(bus));
    add_entry(&table, &ioapic, sizeof(ioapic));
    add_lines(&table, ioapic.apic_id);
    table.header.checksum = checksum_make(&table, table.header.length);
    floating.checksum = checksum_make(&floating, sizeof(floating));

    int error = guest_mem_write(mem, gpa(LAYOUT_MPCONFIG_GPA), &table, table.header.length);
    return error ? error : guest_mem_write(mem, gpa(LAYOUT_MPTABLE_GPA), &floating, sizeof(floating));
}
