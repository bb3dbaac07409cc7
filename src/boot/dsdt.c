#include "boot/dsdt.h"

#include "vcpu/layout.h"

/* The few terms of AML that only the event method needs (ACPI 6.4, section 20.3). */
enum {
    OP_LOCAL0 = 0x60,
    OP_STORE = 0x70,
    OP_AND = 0x7b,
    OP_NOTIFY = 0x86,
    NO_TARGET = 0x00,
};

/* The only sleep type there is, so the registers need not tell it from others; not 0, which is running. */
#define SLEEP_TYPE_OFF 5u

#define EVENT_POWER_BUTTON   0x1u
#define NOTIFY_POWER_PRESSED 0x80u /* "S0 power button pressed" (section 4.8.3.1.1.2) */
#define EVENT_GENERATION     0x2u
#define NOTIFY_GENERATION    0x80u /* "the generation ID has changed" (its paper, see below) */

static void serial_port(struct aml *aml)
{
    struct aml_scope device = aml_open_device(aml, "COM1");
    aml_name_is(aml, "_HID");
    aml_eisa_id(aml, "PNP0501"); /* 16550A */
    aml_name_is(aml, "_UID");
    aml_integer(aml, 0);
    aml_name_is(aml, "_CRS");
    struct aml_resources resources = aml_open_resources(aml);
    aml_ports(aml, LAYOUT_COM1_PORT, 8);
    aml_interrupt(aml, AML_EXCLUSIVE, LAYOUT_COM1_GSI);
    aml_close_resources(aml, resources);
    aml_close(aml, device);
}

static void virtio_device(struct aml *aml, unsigned slot)
{
    const char name[] = {'V', 'I', (char)('0' + slot / 10), (char)('0' + slot % 10), '\0'};
    struct aml_scope device = aml_open_device(aml, name);
    aml_name_is(aml, "_HID");
    aml_string(aml, "LNRO0005"); /* drivers/virtio/virtio_mmio.c, virtio_mmio_acpi_match */
    aml_name_is(aml, "_UID");
    aml_integer(aml, slot);
    aml_name_is(aml, "_CCA"); /* its DMA is coherent with the caches */
    aml_integer(aml, 1);
    aml_name_is(aml, "_CRS");
    struct aml_resources resources = aml_open_resources(aml);
    aml_memory(aml, (uint32_t)layout_virtio_gpa(slot).value, LAYOUT_VIRTIO_SIZE);
    aml_interrupt(aml, AML_SHARED, layout_virtio_gsi(slot));
    aml_close_resources(aml, resources);
    aml_close(aml, device);
}

static void power_button(struct aml *aml)
{
    struct aml_scope device = aml_open_device(aml, "PWRB");
    aml_name_is(aml, "_HID");
    aml_eisa_id(aml, "PNP0C0C");
    aml_close(aml, device);
}

/*
 * Tells a guest that it is another machine now than it was: one that was restored. Linux mixes the new bytes
 * into its random numbers (drivers/virt/vmgenid.c). Microsoft's paper "Virtual Machine Generation ID" has the
 * names: a _CID of its own, _DDN, and ADDR with the halves of the address.
 */
static void generation(struct aml *aml)
{
    struct aml_scope device = aml_open_device(aml, "VGEN");
    aml_name_is(aml, "_HID");
    aml_string(aml, "VOLT0001");
    aml_name_is(aml, "_CID");
    aml_string(aml, "VM_Gen_Counter");
    aml_name_is(aml, "_DDN");
    aml_string(aml, "VM_Gen_Counter");
    aml_name_is(aml, "ADDR");
    struct aml_scope package = aml_open_package(aml, 2);
    aml_integer(aml, LAYOUT_GENERATION_GPA);
    aml_integer(aml, 0);
    aml_close(aml, package);
    aml_close(aml, device);
}

/* If (Local0 & event) { Notify (device, value) } */
static void notify_if(struct aml *aml, unsigned event, const char *device, unsigned value)
{
    struct aml_scope happened = aml_open_if(aml);
    aml_byte(aml, OP_AND);
    aml_byte(aml, OP_LOCAL0);
    aml_integer(aml, event);
    aml_byte(aml, NO_TARGET);
    aml_byte(aml, OP_NOTIFY);
    aml_name(aml, device);
    aml_integer(aml, value);
    aml_close(aml, happened);
}

/* The generic event device (section 5.6.9) stands in for the general purpose events that this kind of ACPI
 * lacks. */
static void event_device(struct aml *aml)
{
    struct aml_scope device = aml_open_device(aml, "GED");
    aml_name_is(aml, "_HID");
    aml_string(aml, "ACPI0013");
    aml_name_is(aml, "_UID");
    aml_integer(aml, 0);
    aml_name_is(aml, "_CRS");
    struct aml_resources resources = aml_open_resources(aml);
    aml_interrupt(aml, AML_EXCLUSIVE, LAYOUT_GED_GSI);
    aml_close_resources(aml, resources);
    aml_port_register(aml, "EVTR", "EVTS", LAYOUT_ACPI_EVENTS);

    /* Local0 = EVTS, read once since reading clears. */
    struct aml_scope method = aml_open_method(aml, "_EVT", 1);
    aml_byte(aml, OP_STORE);
    aml_name(aml, "EVTS");
    aml_byte(aml, OP_LOCAL0);
    notify_if(aml, EVENT_POWER_BUTTON, "PWRB", NOTIFY_POWER_PRESSED);
    notify_if(aml, EVENT_GENERATION, "VGEN", NOTIFY_GENERATION);
    aml_close(aml, method);
    aml_close(aml, device);
}

/* S5 is "off": the value of SLP_TYP for it (section 7.4.2.6); the rest is for other kinds of ACPI. */
static void soft_off(struct aml *aml)
{
    aml_name_is(aml, "_S5");
    struct aml_scope package = aml_open_package(aml, 4);
    aml_integer(aml, SLEEP_TYPE_OFF);
    for (unsigned i = 0; i < 3; i++)
        aml_integer(aml, 0);
    aml_close(aml, package);
}

void dsdt_write(struct aml *aml, const struct boot_config *config)
{
    struct aml_scope system_bus = aml_open_scope(aml, "\\_SB");
    if (config->serial)
        serial_port(aml);
    for (unsigned slot = 0; slot < config->virtio_count; slot++)
        virtio_device(aml, slot);
    power_button(aml);
    generation(aml);
    event_device(aml);
    aml_close(aml, system_bus);
    soft_off(aml);
}
