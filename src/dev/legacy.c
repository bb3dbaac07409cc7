#include "dev/legacy.h"
#include "vcpu/layout.h"

#include <time.h>

struct legacy {
    struct legacy_config config;
    struct irq_source irq;
    _Atomic uint32_t events;    /* irq.pending: what LAYOUT_ACPI_EVENTS reads as */
    _Atomic uint8_t cmos_index; /* which CMOS register port 0x71 is; set and used on vCPU threads alone */
};

/* --- i8042: no keyboard, only the line that resets the machine --- */

/*
 * Status: output buffer full, for ever, input buffer empty. Linux drains the output buffer before it believes
 * in a controller, and gives up at once on one that never empties (drivers/input/serio/i8042.c, i8042_flush);
 * one that stays silent costs it five time-outs of half a second. And its reboot waits for an empty input
 * buffer (kb_wait in arch/x86/kernel/reboot.c), 131 ms if that never comes, as with an open bus.
 */
#define I8042_STATUS 0x01u

static bool i8042_fast_read(void *device, uint64_t offset, unsigned length, uint64_t *ret_value)
{
    (void)device, (void)offset, (void)length;
    *ret_value = I8042_STATUS; /* the data port reads the same: nobody's scan code */
    return true;
}

static uint64_t i8042_read(void *device, uint64_t offset, unsigned length)
{
    uint64_t value;
    i8042_fast_read(device, offset, length, &value);
    return value;
}

static void i8042_command(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    struct legacy *legacy = device;
    (void)offset, (void)length;
    /* 0xf0 to 0xff pulse the output lines whose bits are zero; line 0 is the reset (IBM PC AT, keyboard
     * controller). */
    if ((value & 0xf1) == 0xf0)
        legacy->config.shutdown(legacy->config.context, MACHINE_REBOOT_I8042);
}

static void i8042_data(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    (void)device, (void)offset, (void)length, (void)value;
}

/* --- CMOS clock (MC146818): read on vCPU threads, cannot be set --- */

enum cmos_register {
    CMOS_SECONDS = 0x00,
    CMOS_MINUTES = 0x02,
    CMOS_HOURS = 0x04,
    CMOS_WEEKDAY = 0x06,
    CMOS_DAY = 0x07,
    CMOS_MONTH = 0x08,
    CMOS_YEAR = 0x09,
    CMOS_A = 0x0a,
    CMOS_B = 0x0b,
    CMOS_D = 0x0d,
    CMOS_CENTURY = 0x32, /* where PCs have it, and where Linux looks without a FADT */
};

#define CMOS_A_UPDATING 0x80u
#define CMOS_A_32KHZ    0x26u /* the usual divider and rate */
#define CMOS_B_24_HOURS                                                                                      \
    0x02u                  /* and BCD: Linux takes it for BCD on x86 whatever is said here (RTC_ALWAYS_BCD) */
#define CMOS_D_VALID 0x80u /* the battery is good */
/* The update flag precedes the update by this much: who sees it clear has so long to read (MC146818, table
 * 8). */
#define CMOS_NOTICE_NS 244000

struct civil {
    int year, month, day; /* 1 is January, 1 is the first */
};

/* Days since 1970-01-01 as a date. gmtime_r() would open the host's time zone file, in a thread that may not
 * open any. Years are counted from March, so that the leap day is a year's last; an era is 400 years, 146097
 * days. */
static struct civil civil_of_days(int64_t days)
{
    int64_t since_era_start = days + 719468; /* 0000-03-01 to 1970-01-01 */
    int64_t era = since_era_start / 146097;
    int64_t day_of_era = since_era_start % 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month_from_march = (5 * day_of_year + 2) / 153;
    int month = (int)(month_from_march < 10 ? month_from_march + 3 : month_from_march - 9);
    return (struct civil){
        .year = (int)(era * 400 + year_of_era) + (month <= 2),
        .month = month,
        .day = (int)(day_of_year - (153 * month_from_march + 2) / 5 + 1),
    };
}

static uint8_t bcd(int64_t number)
{
    return (uint8_t)(number / 10 % 10 << 4 | number % 10);
}

static uint8_t cmos_value(uint8_t reg)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t days = now.tv_sec / 86400, second = now.tv_sec % 86400;
    struct civil date = civil_of_days(days);
    switch ((enum cmos_register)reg) {
    case CMOS_SECONDS: return bcd(second % 60);
    case CMOS_MINUTES: return bcd(second / 60 % 60);
    case CMOS_HOURS: return bcd(second / 3600);
    case CMOS_WEEKDAY: return (uint8_t)((days + 4) % 7 + 1); /* 1 is Sunday; 1970 began on a Thursday */
    case CMOS_DAY: return bcd(date.day);
    case CMOS_MONTH: return bcd(date.month);
    case CMOS_YEAR: return bcd(date.year % 100);
    case CMOS_CENTURY: return bcd(date.year / 100);
    case CMOS_A: return CMOS_A_32KHZ | (now.tv_nsec >= 1000000000 - CMOS_NOTICE_NS ? CMOS_A_UPDATING : 0);
    case CMOS_B: return CMOS_B_24_HOURS;
    case CMOS_D: return CMOS_D_VALID;
    }
    return 0; /* alarms, interrupt flags, and memory that a BIOS would have used */
}

static bool cmos_fast_read(void *device, uint64_t offset, unsigned length, uint64_t *ret_value)
{
    struct legacy *legacy = device;
    (void)length;
    *ret_value = offset == 0 ? 0xff : cmos_value(atomic_load(&legacy->cmos_index));
    return true;
}

static bool cmos_fast_write(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    struct legacy *legacy = device;
    (void)length;
    if (offset == 0)
        atomic_store(&legacy->cmos_index, value & 0x7f); /* bit 7 masks the NMI, which nothing here raises */
    return true;
}

static uint64_t cmos_read(void *device, uint64_t offset, unsigned length)
{
    uint64_t value;
    cmos_fast_read(device, offset, length, &value);
    return value;
}

static void cmos_write(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    cmos_fast_write(device, offset, length, value);
}

/* --- ACPI, hardware-reduced (ACPI 6.4, 4.8.3.6 and .7): sleep control, sleep status, reset, events --- */

#define ACPI_REGISTERS   8u /* LAYOUT_ACPI_SLEEP to the end of LAYOUT_ACPI_EVENTS */
#define ACPI_SLEEP_RESET 2u
#define ACPI_SLP_EN      0x20u
#define EVENT_POWER      1u

static uint64_t acpi_read(void *device, uint64_t offset, unsigned length)
{
    struct legacy *legacy = device;
    (void)length;
    if (offset != LAYOUT_ACPI_EVENTS - LAYOUT_ACPI_SLEEP)
        return 0; /* sleep status: no wake-up has happened */
    uint32_t events = atomic_load(&legacy->events);
    irq_ack(&legacy->irq, events);
    return events;
}

static bool acpi_fast_read(void *device, uint64_t offset, unsigned length, uint64_t *ret_value)
{
    *ret_value = acpi_read(device, offset, length);
    return true;
}

static void acpi_write(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    struct legacy *legacy = device;
    (void)length;
    /* S5 is the only state that the DSDT offers, so which one SLP_TYP names needs no look. */
    if (offset == 0 && (value & ACPI_SLP_EN))
        legacy->config.shutdown(legacy->config.context, MACHINE_POWEROFF);
    else if (offset == ACPI_SLEEP_RESET)
        legacy->config.shutdown(legacy->config.context, MACHINE_REBOOT_ACPI);
}

/* --- life --- */

int legacy_new(const struct legacy_config *config, struct legacy **ret_legacy)
{
    struct legacy *legacy = calloc(1, sizeof(*legacy));
    if (!legacy)
        return fail(-ENOMEM, "no memory for the legacy devices");
    legacy->config = *config;
    legacy->irq.pending = &legacy->events;
    *ret_legacy = legacy;
    return 0;
}

int legacy_attach(struct legacy *legacy, struct bus *bus, struct irq_lines *lines)
{
    static const struct bus_ops data = {
        .read = i8042_read, .write = i8042_data, .fast_read = i8042_fast_read};
    static const struct bus_ops command = {
        .read = i8042_read, .write = i8042_command, .fast_read = i8042_fast_read};
    static const struct bus_ops cmos = {
        .read = cmos_read, .write = cmos_write, .fast_read = cmos_fast_read, .fast_write = cmos_fast_write};
    static const struct bus_ops acpi = {.read = acpi_read, .write = acpi_write, .fast_read = acpi_fast_read};

    int r = irq_connect(lines, LAYOUT_GED_GSI, &legacy->irq);
    if (r == 0)
        r = bus_add(bus, VCPU_PORT, LAYOUT_I8042_DATA, 1, &data, legacy);
    if (r == 0)
        r = bus_add(bus, VCPU_PORT, LAYOUT_I8042_COMMAND, 1, &command, legacy);
    if (r == 0)
        r = bus_add(bus, VCPU_PORT, LAYOUT_CMOS_INDEX, 2, &cmos, legacy);
    if (r == 0)
        r = bus_add(bus, VCPU_PORT, LAYOUT_ACPI_SLEEP, ACPI_REGISTERS, &acpi, legacy);
    return r;
}

void legacy_power_button(struct legacy *legacy)
{
    irq_raise(&legacy->irq, EVENT_POWER);
}

void legacy_free(struct legacy *legacy)
{
    free(legacy);
}
