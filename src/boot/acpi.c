#include "boot/acpi.h"

#include "boot/checksum.h"
#include "boot/dsdt.h"
#include "vcpu/layout.h"
#include "vcpu/vcpu.h"

#include <string.h>
#include <sys/random.h>

/* Sections below are those of ACPI 6.4. */
struct rsdp { /* 5.2.5.3 */
    char signature[8];
    uint8_t checksum; /* of the first 20 bytes */
    char oem[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t length;
    uint64_t xsdt;
    uint8_t checksum_whole;
    uint8_t reserved[3];
} __attribute__((packed));

struct table_header { /* 5.2.6 */
    char signature[4];
    uint32_t length;
    uint8_t revision;
    uint8_t checksum;
    char oem[6];
    char oem_table[8];
    uint32_t oem_revision;
    char creator[4];
    uint32_t creator_revision;
} __attribute__((packed));

struct xsdt { /* 5.2.8 */
    struct table_header header;
    uint64_t tables[2];
} __attribute__((packed));

struct address { /* generic address structure, 5.2.3.2 */
    uint8_t space;
    uint8_t bits;
    uint8_t offset;
    uint8_t access;
    uint64_t value;
} __attribute__((packed));

struct fadt { /* 5.2.9; only what hardware-reduced machines have is named */
    struct table_header header;
    uint32_t firmware_control;
    uint32_t dsdt;
    uint8_t reserved;
    uint8_t profile;
    uint8_t legacy_hardware[109 - 46];
    uint16_t boot_architecture;
    uint8_t reserved2;
    uint32_t flags;
    struct address reset;
    uint8_t reset_value;
    uint16_t arm_boot_architecture;
    uint8_t minor_revision;
    uint64_t x_firmware_control;
    uint64_t x_dsdt;
    uint8_t legacy_blocks[244 - 148];
    struct address sleep_control;
    struct address sleep_status;
    uint64_t hypervisor; /* 0: says nothing */
} __attribute__((packed));

struct madt { /* 5.2.12 */
    struct table_header header;
    uint32_t lapic;
    uint32_t flags;
} __attribute__((packed));

struct madt_lapic { /* 5.2.12.2 */
    uint8_t type;
    uint8_t length;
    uint8_t uid;
    uint8_t apic_id;
    uint32_t flags;
} __attribute__((packed));

struct madt_ioapic { /* 5.2.12.3 */
    uint8_t type;
    uint8_t length;
    uint8_t id;
    uint8_t reserved;
    uint32_t address;
    uint32_t first_gsi;
} __attribute__((packed));

struct madt_lapic_nmi { /* 5.2.12.7 */
    uint8_t type;
    uint8_t length;
    uint8_t uid;
    uint16_t flags;
    uint8_t lint;
} __attribute__((packed));

_Static_assert(sizeof(struct rsdp) == 36 && sizeof(struct table_header) == 36 && sizeof(struct fadt) == 276 &&
                   sizeof(struct madt) == 44,
               "the specification's sizes");

enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_LAPIC_NMI = 4 };

#define LAPIC_ENABLED  0x1u
#define ALL_PROCESSORS 0xffu

/*
 * IA-PC boot architecture flags (5.2.9.3). Clear: no legacy devices on an LPC bus, and no 8042, so that
 * kernels do not probe for a keyboard; the reset line at port 0x64 works all the same.
 */
#define BOOT_NO_VGA (1u << 2)
#define BOOT_NO_RTC (1u << 5) /* kernels ask the paravirtual clock for the time; the CMOS' costs exits */

/* FADT flags (5.2.9, table 5.10). */
#define FADT_WBINVD           (1u << 0)
#define FADT_NO_FIXED_POWER   (1u << 4) /* the power button is a device of the DSDT */
#define FADT_NO_FIXED_SLEEP   (1u << 5)
#define FADT_RESET_REGISTER   (1u << 10)
#define FADT_HARDWARE_REDUCED (1u << 20)

static struct table_header header_of(const char signature[static 4], uint8_t revision)
{
    struct table_header header = {
        .revision = revision,
        .oem = {'S', 'T', 'R', 'D', 'S', 'T'},
        .oem_table = {'S', 'T', 'A', 'R', 'D', 'U', 'S', 'T'},
        .oem_revision = 1,
        .creator = {'V', 'O', 'L', 'T'},
        .creator_revision = 1,
    };
    memcpy(header.signature, signature, sizeof(header.signature));
    return header;
}

/* Starts a table at the end of the area, on a multiple of 16 bytes; returns its offset. */
static size_t open_table(struct aml *area, const void *table, size_t size)
{
    size_t begin = align_up(area->length, 16);
    area->length = begin;
    aml_bytes(area, table, size);
    return begin;
}

/* Ends it: length and checksum. Returns its guest address. */
static uint64_t close_table(struct aml *area, size_t begin)
{
    struct table_header *header = (struct table_header *)(area->bytes + begin);
    header->length = (uint32_t)(area->length - begin);
    header->checksum = checksum_make(header, header->length);
    return LAYOUT_ACPI_GPA + begin;
}

static uint64_t write_dsdt(struct aml *area, const struct boot_config *config)
{
    struct table_header header = header_of("DSDT", 2); /* 2: integers have 64 bits */
    size_t begin = open_table(area, &header, sizeof(header));
    dsdt_write(area, config);
    return close_table(area, begin);
}

static struct address port(unsigned number)
{
    return (struct address){.space = 1, .bits = 8, .access = 1, .value = number};
}

static uint64_t write_fadt(struct aml *area, uint64_t dsdt)
{
    struct fadt fadt = {
        .header = header_of("FACP", 6),
        .boot_architecture = BOOT_NO_VGA | BOOT_NO_RTC,
        .flags = FADT_WBINVD | FADT_NO_FIXED_POWER | FADT_NO_FIXED_SLEEP | FADT_RESET_REGISTER |
                 FADT_HARDWARE_REDUCED,
        .reset = port(LAYOUT_ACPI_SLEEP + 2),
        .reset_value = ACPI_RESET_VALUE,
        .minor_revision = 4,
        .x_dsdt = dsdt,
        .sleep_control = port(LAYOUT_ACPI_SLEEP),
        .sleep_status = port(LAYOUT_ACPI_SLEEP + 1),
    };
    return close_table(area, open_table(area, &fadt, sizeof(fadt)));
}

static uint64_t write_madt(struct aml *area, unsigned cpu_count)
{
    struct madt madt = {.header = header_of("APIC", 5), .lapic = LAYOUT_LAPIC_GPA};
    struct madt_ioapic ioapic = {
        .type = MADT_IOAPIC,
        .length = sizeof(ioapic),
        .id = (uint8_t)cpu_count, /* the first that no CPU has */
        .address = LAYOUT_IOAPIC_GPA,
    };
    struct madt_lapic_nmi nmi = {
        .type = MADT_LAPIC_NMI, .length = sizeof(nmi), .uid = ALL_PROCESSORS, .lint = 1};

    size_t begin = open_table(area, &madt, sizeof(madt));
    for (unsigned i = 0; i < cpu_count; i++) {
        struct madt_lapic lapic = {
            .type = MADT_LAPIC,
            .length = sizeof(lapic),
            .uid = (uint8_t)i,
            .apic_id = (uint8_t)i,
            .flags = LAPIC_ENABLED,
        };
        aml_bytes(area, &lapic, sizeof(lapic));
    }
    /* No overrides: ISA's lines are edges if nothing else is said, and that is what ours are (dev/irq.h). */
    aml_bytes(area, &ioapic, sizeof(ioapic));
    aml_bytes(area, &nmi, sizeof(nmi));
    return close_table(area, begin);
}

int acpi_write(const struct guest_mem *mem, const struct boot_config *config)
{
    if (config->cpu_count == 0 || config->cpu_count > VM_CPUS_MAX)
        return fail(-EINVAL, "a guest cannot have %u CPUs (give 1 to %u)", config->cpu_count, VM_CPUS_MAX);
    if (config->virtio_count > LAYOUT_VIRTIO_MAX)
        return fail(-EINVAL, "a guest cannot have %u virtio devices (give at most %u)", config->virtio_count,
                    LAYOUT_VIRTIO_MAX);
    /* Written in place: no vCPU runs yet. */
    struct aml area = {.capacity = LAYOUT_ACPI_END - LAYOUT_ACPI_GPA};
    area.bytes = guest_mem_at(mem, gpa(LAYOUT_ACPI_GPA), area.capacity);
    if (!area.bytes)
        return fail(-EFBIG, "the guest's memory ends below 1 MiB (give it more, with --memory)");

    struct rsdp rsdp = {
        .signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '},
        .oem = {'S', 'T', 'R', 'D', 'S', 'T'},
        .revision = 2,
        .length = sizeof(rsdp),
    };
    aml_bytes(&area, &rsdp, sizeof(rsdp));
    struct xsdt xsdt = {.header = header_of("XSDT", 1)};
    xsdt.tables[0] = write_fadt(&area, write_dsdt(&area, config));
    xsdt.tables[1] = write_madt(&area, config->cpu_count);
    rsdp.xsdt = close_table(&area, open_table(&area, &xsdt, sizeof(xsdt)));
    rsdp.checksum = checksum_make(&rsdp, offsetof(struct rsdp, length));
    rsdp.checksum_whole = checksum_make(&rsdp, sizeof(rsdp));
    memcpy(area.bytes, &rsdp, sizeof(rsdp));
    return acpi_write_generation(mem);
}

int acpi_write_generation(const struct guest_mem *mem)
{
    uint8_t id[16];
    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        return fail_errno(-errno, "random bytes");
    int r = guest_mem_write(mem, gpa(LAYOUT_GENERATION_GPA), id, sizeof(id));
    return r < 0 ? fail_errno(r, "the VM generation ID") : 0;
}
