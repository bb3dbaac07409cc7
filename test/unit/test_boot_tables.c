/* What a guest reads before it runs, looked at as a guest would: by the offsets of the specifications. */
#include "elf_file.h"

#include "boot/boot.h"
#include "boot/pvh.h"
#include "vcpu/layout.h"

#include <stdio.h>

TestSuite(boot_tables, .timeout = 20);

struct machine {
    struct guest_mem mem;
    struct boot_entry entry;
};

static struct boot_config config_of(unsigned cpus, unsigned devices)
{
    struct elf_file file = elf_file_valid();
    return (struct boot_config){
        .kernel_fd = file_of(&file, sizeof(file)),
        .kernel_name = "vmlinux",
        .initrd_fd = -1,
        .initrd_name = "initrd",
        .cmdline = "quiet",
        .cpu_count = cpus,
        .virtio_count = devices,
        .serial = true,
    };
}

static struct machine boot(uint64_t size, const struct boot_config *config)
{
    struct machine machine;
    cr_assert_eq(guest_mem_new(size, GUEST_PAGES_THP_OFF, &machine.mem), 0, "%s", fail_text());
    cr_assert_eq(boot_load(config, &machine.mem, &machine.entry), 0, "%s", fail_text());
    return machine;
}

static const uint8_t *at(const struct machine *machine, uint64_t address, uint64_t length)
{
    const uint8_t *bytes = guest_mem_at(&machine->mem, gpa(address), length);
    cr_assert_not_null(bytes, "%#lx is memory", address);
    return bytes;
}

static uint64_t number(const struct machine *machine, uint64_t address, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, at(machine, address, size), size);
    return value;
}

static unsigned sum(const struct machine *machine, uint64_t address, uint64_t length)
{
    unsigned total = 0;
    for (uint64_t i = 0; i < length; i++)
        total += *at(machine, address + i, 1);
    return total & 0xff;
}

static struct pvh_start_info start_info(const struct machine *machine)
{
    struct pvh_start_info info;
    memcpy(&info, at(machine, machine->entry.start_info.value, sizeof(info)), sizeof(info));
    return info;
}

Test(boot_tables, start_info)
{
    struct boot_config config = config_of(1, 0);
    struct machine machine = boot(64 * MIB, &config);
    struct pvh_start_info info = start_info(&machine);
    cr_assert_eq(machine.entry.kernel_entry.value, ELF_ENTRY_GPA, "the kernel's entry");
    cr_assert_eq(info.magic, 0x336ec578u, "magic");
    cr_assert_eq(info.version, 1u, "version");
    cr_assert_eq(info.module_count, 0u, "no initrd, no module");
    cr_assert_str_eq((const char *)at(&machine, info.cmdline, 6), "quiet", "command line");
    cr_assert_eq(info.rsdp, 0xe0000u, "RSDP");
    guest_mem_free(&machine.mem);
}

static void check_map(uint64_t size, unsigned count, const struct pvh_memory *expected)
{
    struct boot_config config = config_of(1, 0);
    struct machine machine = boot(size, &config);
    struct pvh_start_info info = start_info(&machine);
    cr_assert_eq(info.memory_map_count, count, "%u ranges", info.memory_map_count);
    for (unsigned i = 0; i < count; i++) {
        struct pvh_memory range;
        memcpy(&range, at(&machine, info.memory_map + i * sizeof(range), sizeof(range)), sizeof(range));
        cr_expect(range.address == expected[i].address && range.size == expected[i].size &&
                      range.type == expected[i].type,
                  "%lu MiB, range %u: %#lx + %#lx, type %u", size / MIB, i, range.address, range.size,
                  range.type);
    }
    guest_mem_free(&machine.mem);
    close(config.kernel_fd);
}

Test(boot_tables, memory_map)
{
    struct pvh_memory map[4] = {
        {.address = 0, .size = 0x9fc00, .type = 1},
        {.address = 0x9fc00, .size = 0x60400, .type = 2},
        {.address = 0x100000, .size = 63 * MIB, .type = 1},
        {.address = 4 * GIB, .size = 2 * GIB, .type = 1},
    };
    check_map(64 * MIB, 3, map);
    map[2].size = 3 * GIB - MIB;
    check_map(3 * GIB, 3, map);
    check_map(5 * GIB, 4, map);
}

Test(boot_tables, initrd_is_behind_the_kernel_and_whole)
{
    static uint8_t initrd[3 * 4096 + 5];
    struct boot_config config = config_of(1, 0);
    memset(initrd, 0x77, sizeof(initrd));
    config.initrd_fd = file_of(initrd, sizeof(initrd));
    struct machine machine = boot(64 * MIB, &config);
    struct pvh_start_info info = start_info(&machine);
    cr_assert_eq(info.module_count, 1u, "one module");
    uint64_t address = number(&machine, info.modules, 8);
    cr_assert_eq(number(&machine, info.modules + 8, 8), sizeof(initrd), "its size");
    cr_assert_eq(address, ELF_DATA_GPA + 0x3000, "behind the kernel's bss, on a page: %#lx", address);
    cr_assert_arr_eq(at(&machine, address, sizeof(initrd)), initrd, sizeof(initrd), "its bytes");
    guest_mem_free(&machine.mem);
}

Test(boot_tables, reset_vector_writes_the_reset_register)
{
    static const uint8_t code[] = {0xb0, 0x01, 0xba, 0x02, 0x06, 0xee, 0xf4, 0xeb, 0xfd};
    struct boot_config config = config_of(254, LAYOUT_VIRTIO_MAX);
    struct machine machine = boot(64 * MIB, &config);
    cr_assert_arr_eq(at(&machine, 0xffff0, sizeof(code)), code, sizeof(code),
                     "the largest tables leave it alone");
    guest_mem_free(&machine.mem);
}

Test(boot_tables, initrd_that_does_not_fit)
{
    struct boot_config config = config_of(1, 0);
    struct machine machine;
    config.initrd_fd = file_of("x", 1);
    cr_assert_eq(ftruncate(config.initrd_fd, (off_t)(64 * MIB - ELF_DATA_GPA - 0x3000 + 1)), 0, "sparse");
    cr_assert_eq(guest_mem_new(64 * MIB, GUEST_PAGES_THP_OFF, &machine.mem), 0, "%s", fail_text());
    cr_assert_eq(boot_load(&config, &machine.mem, &machine.entry), -EFBIG, "one byte more than there is");
    cr_assert(strstr(fail_text(), "initrd: 61.9 MiB") || strstr(fail_text(), "initrd: 62.0 MiB"), "%s",
              fail_text());
    guest_mem_free(&machine.mem);
}

Test(boot_tables, initrd_that_is_no_file)
{
    struct boot_config config = config_of(1, 0);
    struct machine machine;
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0, "pipe");
    config.initrd_fd = pipes[0];
    cr_assert_eq(guest_mem_new(64 * MIB, GUEST_PAGES_THP_OFF, &machine.mem), 0, "%s", fail_text());
    cr_assert_eq(boot_load(&config, &machine.mem, &machine.entry), -EINVAL, "a pipe");
    config.initrd_fd = file_of("", 0);
    cr_assert_eq(boot_load(&config, &machine.mem, &machine.entry), -EINVAL, "an empty file");
    guest_mem_free(&machine.mem);
}

Test(boot_tables, command_line_limit)
{
    struct boot_config config = config_of(1, 0);
    char long_line[BOOT_CMDLINE_SIZE + 1] = "", line[BOOT_CMDLINE_SIZE];
    memset(long_line, 'x', BOOT_CMDLINE_SIZE - 1);
    config.cmdline = long_line;
    cr_assert_eq(boot_cmdline(&config, line), 0, "2047 characters fit");
    cr_assert_str_eq(line, long_line, "and come out as they are");
    long_line[BOOT_CMDLINE_SIZE - 1] = 'x';
    strcpy(line, "untouched");
    cr_assert_eq(boot_cmdline(&config, line), -E2BIG, "2048 do not");
    cr_assert(strstr(fail_text(), "2047"), "the limit is named: %s", fail_text());
    cr_assert_str_eq(line, "untouched", "out-parameter");
}

Test(boot_tables, command_line_words_without_acpi)
{
    static const struct {
        const char *given, *got;
    } rows[] = {
        {"quiet", "quiet"},
        {"acpi=off", "virtio_mmio.device=512@0xc0001fa0:16 virtio_mmio.device=512@0xc0003fa0:17 acpi=off"},
        {"a  acpi=off b",
         "virtio_mmio.device=512@0xc0001fa0:16 virtio_mmio.device=512@0xc0003fa0:17 a  acpi=off b"},
        {"acpi=offline", "acpi=offline"},
        {"noacpi=off pci=acpi=off", "noacpi=off pci=acpi=off"},
        {"quiet -- acpi=off", "quiet -- acpi=off"}, /* init's, not the kernel's */
        {"", ""},
    };
    struct boot_config config = config_of(1, 2);
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        char line[BOOT_CMDLINE_SIZE];
        config.cmdline = rows[i].given;
        cr_assert_eq(boot_cmdline(&config, line), 0, "%s", fail_text());
        cr_expect_str_eq(line, rows[i].got, "row %u: %s", i, line);
    }
    char line[BOOT_CMDLINE_SIZE];
    config.cmdline = "acpi=off";
    config.virtio_count = LAYOUT_VIRTIO_MAX;
    cr_assert_eq(boot_cmdline(&config, line), -E2BIG, "64 message are too many");
    cr_assert(strstr(fail_text(), "acpi=off"), "%s", fail_text());
}

/* MP specification 1.4, chapter 4. */
static void check_mp_table(unsigned cpus)
{
    struct boot_config config = config_of(cpus, 0);
    struct machine machine = boot(64 * MIB, &config);
    cr_assert_arr_eq(at(&machine, 0x9fc00, 4), "_MP_", 4, "pointer in the last KiB of base memory");
    cr_assert_eq(sum(&machine, 0x9fc00, 16), 0u, "its checksum");
    uint64_t table = number(&machine, 0x9fc04, 4), length = number(&machine, table + 4, 2);
    cr_assert(table >= 0xe0000 && table + length <= 0x100000, "the table at %#lx is in reserved memory",
              table);
    cr_assert_arr_eq(at(&machine, table, 4), "PCMP", 4, "signature");
    cr_assert_eq(sum(&machine, table, length), 0u, "checksum of %lu bytes", length);

    unsigned count = 0, lines = 0, seen_cpus = 0;
    uint64_t entry = table + 44;
    for (; entry < table + length; count++) {
        const uint8_t *bytes = at(&machine, entry, 20);
        entry += bytes[0] == 0 ? 20 : 8;
        if (bytes[0] == 0) {
            cr_expect_eq(bytes[1], seen_cpus, "APIC ids count up");
            cr_expect_eq(bytes[3], seen_cpus ? 1 : 3, "enabled, and the first is the boot CPU");
            seen_cpus++;
        } else if (bytes[0] == 2) {
            cr_expect_eq(bytes[1], cpus, "the IOAPIC's id is no CPU's");
            cr_expect_eq(number(&machine, entry - 4, 4), 0xfec00000u, "IOAPIC");
        } else if (bytes[0] == 3) {
            cr_expect_eq(bytes[5], bytes[7], "line %u is pin %u", bytes[5], bytes[7]);
            cr_expect_eq(bytes[2], 0, "line %u is as its bus has it, edge and active high: %#x", bytes[5],
                         bytes[2]);
            cr_expect_eq(bytes[6], cpus, "at our IOAPIC");
            lines++;
        }
    }
    cr_assert_eq(entry, table + length, "the last entry ends where the table does");
    cr_assert_eq(number(&machine, table + 34, 2), count, "entries are counted");
    cr_assert_eq(seen_cpus, cpus, "%u CPUs of %u", seen_cpus, cpus);
    cr_assert_eq(lines, 23u, "all pins but the cascade");
    guest_mem_free(&machine.mem);
    close(config.kernel_fd);
}

Test(boot_tables, mp_table)
{
    check_mp_table(1);
    check_mp_table(2);
    check_mp_table(254);
}

Test(boot_tables, too_many)
{
    static const unsigned counts[] = {0, 255, UINT32_MAX};
    struct machine machine;
    cr_assert_eq(guest_mem_new(64 * MIB, GUEST_PAGES_THP_OFF, &machine.mem), 0, "%s", fail_text());
    for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
        struct boot_config config = config_of(counts[i], 0);
        cr_expect_eq(boot_load(&config, &machine.mem, &machine.entry), -EINVAL, "%u CPUs", counts[i]);
        close(config.kernel_fd);
    }
    struct boot_config config = config_of(1, LAYOUT_VIRTIO_MAX + 1);
    cr_expect_eq(boot_load(&config, &machine.mem, &machine.entry), -EINVAL, "devices");
    guest_mem_free(&machine.mem);
}

/* Checks a table's checksum and returns its length. */
static uint64_t check_table(const struct machine *machine, uint64_t table, const char *signature)
{
    uint64_t length = number(machine, table + 4, 4);
    cr_assert_arr_eq(at(machine, table, 4), signature, 4, "%s at %#lx", signature, table);
    cr_assert(table >= 0xe0000 && table + length <= 0xf0000, "%s is in its place", signature);
    cr_assert_eq(sum(machine, table, length), 0u, "%s: checksum", signature);
    return length;
}

static uint64_t find_table(const struct machine *machine, const char *signature)
{
    uint64_t rsdp = start_info(machine).rsdp;
    cr_assert_arr_eq(at(machine, rsdp, 8), "RSD PTR ", 8, "RSDP");
    cr_assert_eq(sum(machine, rsdp, 20), 0u, "RSDP: first checksum");
    cr_assert_eq(sum(machine, rsdp, 36), 0u, "RSDP: second checksum");
    uint64_t xsdt = number(machine, rsdp + 24, 8), length = check_table(machine, xsdt, "XSDT");
    for (uint64_t i = 36; i < length; i += 8) {
        uint64_t table = number(machine, xsdt + i, 8);
        if (memcmp(at(machine, table, 4), signature, 4) == 0)
            return table;
    }
    cr_assert_fail("no %s", signature);
    return 0;
}

Test(boot_tables, fadt)
{
    struct boot_config config = config_of(1, 0);
    struct machine machine = boot(64 * MIB, &config);
    uint64_t fadt = find_table(&machine, "FACP");
    cr_assert_eq(check_table(&machine, fadt, "FACP"), 276u, "of ACPI 6");
    cr_assert(number(&machine, fadt + 112, 4) & 1u << 20, "hardware-reduced");
    cr_assert(number(&machine, fadt + 112, 4) & 1u << 10, "with a reset register");
    cr_assert_eq(number(&machine, fadt + 120, 8), 0x602u, "reset register");
    cr_assert_eq(number(&machine, fadt + 128, 1), 1u, "reset value");
    cr_assert_eq(number(&machine, fadt + 248, 8), 0x600u, "sleep control");
    cr_assert_eq(number(&machine, fadt + 260, 8), 0x601u, "sleep status");
    check_table(&machine, number(&machine, fadt + 140, 8), "DSDT");
    guest_mem_free(&machine.mem);
}

static void check_madt(unsigned cpus)
{
    struct boot_config config = config_of(cpus, 0);
    struct machine machine = boot(64 * MIB, &config);
    uint64_t madt = find_table(&machine, "APIC"), length = check_table(&machine, madt, "APIC"),
             entry = madt + 44;
    unsigned seen_cpus = 0, ioapics = 0;
    while (entry < madt + length) {
        const uint8_t *bytes = at(&machine, entry, 8);
        if (bytes[0] == 0 && bytes[3] == seen_cpus && bytes[4] == 1)
            seen_cpus++;
        else if (bytes[0] == 1)
            ioapics++;
        cr_assert_gt(bytes[1], 0, "entries have a length");
        entry += bytes[1];
    }
    cr_assert_eq(entry, madt + length, "the last entry ends where the table does");
    cr_assert_eq(seen_cpus, cpus, "%u CPUs of %u", seen_cpus, cpus);
    cr_assert_eq(ioapics, 1u, "one IOAPIC");
    guest_mem_free(&machine.mem);
    close(config.kernel_fd);
}

Test(boot_tables, madt)
{
    check_madt(1);
    check_madt(2);
    check_madt(254);
}

/* The DSDT goes through iasl's disassembler and compiler: both understand all of it and have nothing to
 * object to. */
Test(boot_tables, dsdt_is_what_iasl_understands)
{
    char folder[] = "/tmp/volt-dsdt-XXXXXX", path[64], command[256];
    if (system("command -v iasl >/dev/null 2>&1") != 0)
        cr_skip_test("iasl is not installed (package acpica-tools)");
    struct boot_config config = config_of(4, LAYOUT_VIRTIO_MAX);
    struct machine machine = boot(64 * MIB, &config);
    uint64_t dsdt = number(&machine, find_table(&machine, "FACP") + 140, 8);
    uint64_t length = check_table(&machine, dsdt, "DSDT");
    cr_assert_not_null(mkdtemp(folder), "a folder");
    snprintf(path, sizeof(path), "%s/dsdt.aml", folder);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file, "%s", path);
    cr_assert_eq(fwrite(at(&machine, dsdt, length), 1, length, file), length, "written");
    fclose(file);
    snprintf(command, sizeof(command),
             "cd %s && iasl -d dsdt.aml >log 2>&1 && test $(grep -c LNRO0005 dsdt.dsl) = 64 && test $(grep "
             "-c VM_Gen_Counter dsdt.dsl) = 2 && grep -q "
             "PNP0501 dsdt.dsl && "
             "iasl -p again dsdt.dsl >>log 2>&1 && grep -q '0 Errors, 0 Warnings' log",
             folder);
    int failed = system(command);
    snprintf(command, sizeof(command), "cat %s/log >&2", folder);
    if (failed && system(command) != 0)
        cr_log_warn("iasl left no log");
    snprintf(command, sizeof(command), "rm -r %s", folder);
    cr_assert_eq(system(command), 0, "%s is removed", folder);
    cr_assert_eq(failed, 0, "iasl understands the DSDT");
    guest_mem_free(&machine.mem);
}
