#include "dev/cmos.h"
#include "vcpu/layout.h"

#include <time.h>

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
/* And BCD: Linux takes it for BCD on x86 whatever is said here (RTC_ALWAYS_BCD). */
#define CMOS_B_24_HOURS 0x02u
#define CMOS_D_VALID    0x80u /* the battery is good */
/* The update flag precedes the update by this much. A reader that sees it clear has that long (MC146818,
 * table 8). */
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

static uint64_t cmos_read(void *device, uint64_t offset, unsigned length)
{
    struct cmos *cmos = device;
    (void)length;
    return offset == 0 ? 0xff : cmos_value(atomic_load(&cmos->index));
}

static void cmos_write(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    struct cmos *cmos = device;
    (void)length;
    if (offset == 0)
        atomic_store(&cmos->index, value & 0x7f); /* bit 7 masks the NMI, which nothing here raises */
}

int cmos_attach(struct cmos *cmos, struct bus *bus)
{
    static const struct bus_ops ops = {.read = cmos_read, .write = cmos_write};
    *cmos = (struct cmos){0};
    return bus_add(bus, VCPU_PORT, LAYOUT_CMOS_INDEX, 2, &ops, cmos);
}

static int save_cmos(const void *owner, struct state_writer *to)
{
    const struct cmos *cmos = owner;
    uint8_t index = atomic_load(&cmos->index);
    state_put(to, &index, sizeof(index));
    return 0;
}

static int load_cmos(void *owner, struct state_reader *from, uint16_t version)
{
    struct cmos *cmos = owner;
    uint8_t index;
    (void)version;
    int r = state_get(from, &index, sizeof(index));
    if (r == 0)
        atomic_store(&cmos->index, index & 0x7f);
    return r;
}

const struct state_part cmos_state = {"CMOS", 1, STATE_REQUIRED, save_cmos, load_cmos};
