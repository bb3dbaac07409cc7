#include "lib/guest.h"

#include <stdarg.h>

#define COM1          0x3f8
#define COM1_LSR      (COM1 + 5)
#define LSR_THR_EMPTY 0x20
#define ACPI_SLEEP    0x600
#define SLEEP_S5      0x34 /* SLP_EN (bit 5), SLP_TYP 5 (bits 2 to 4): ACPI 6.4, 4.8.3.7 */
#define I8042_COMMAND 0x64
#define I8042_RESET   0xfe

static const char *cmdline;
static uint8_t *next_page = (uint8_t *)0x200000;

void guest_start(const struct start_info *info);

void guest_start(const struct start_info *info)
{
    EXPECT(info->magic == START_INFO_MAGIC);
    EXPECT(info->version >= 1);
    cmdline = (const char *)(uintptr_t)info->cmdline;
    guest_main(info);
    say("OK\n");
    if (same_text(option("end"), "reboot"))
        guest_reboot();
    guest_poweroff();
}

static void put(char c)
{
    while (!(port_read8(COM1_LSR) & LSR_THR_EMPTY)) {
    }
    port_write8(COM1, (uint8_t)c);
}

static void put_number(uint64_t value, unsigned base)
{
    char digits[20];
    unsigned count = 0;
    /* 64-bit division needs a library: long division of the two halves instead. */
    do {
        uint32_t high = (uint32_t)(value >> 32), low = (uint32_t)value, rest;
        uint32_t high_quotient = high / base, low_quotient;
        rest = high % base;
        __asm__("divl %4" : "=a"(low_quotient), "=d"(rest) : "a"(low), "d"(rest), "rm"(base));
        digits[count++] = "0123456789abcdef"[rest];
        value = (uint64_t)high_quotient << 32 | low_quotient;
    } while (value && count < sizeof(digits));
    while (count)
        put(digits[--count]);
}

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    for (; *format; format++) {
        if (*format != '%') {
            if (*format == '\n')
                put('\r');
            put(*format);
            continue;
        }
        unsigned longs = 0;
        while (*++format == 'l')
            longs++;
        if (*format == 's') {
            for (const char *text = va_arg(arguments, const char *); *text; text++)
                put(*text);
        } else if (*format == 'c') {
            put((char)va_arg(arguments, int));
        } else {
            uint64_t value = longs >= 2 ? va_arg(arguments, uint64_t) : va_arg(arguments, uint32_t);
            put_number(value, *format == 'x' ? 16 : 10);
        }
    }
    va_end(arguments);
}

void expect_failed(const char *file, int line, const char *condition)
{
    say("FAILED %s:%u: %s\n", file, (unsigned)line, condition);
    guest_reboot();
}

static _Noreturn void stay(void)
{
    for (;;)
        __asm__ volatile("hlt");
}

void guest_poweroff(void)
{
    port_write8(ACPI_SLEEP, SLEEP_S5);
    stay();
}

void guest_reboot(void)
{
    port_write8(I8042_COMMAND, I8042_RESET);
    stay();
}

const char *option(const char *key)
{
    static char value[64];
    for (const char *at = cmdline; at && *at;) {
        const char *k = key;
        while (*k && *at == *k) {
            at++;
            k++;
        }
        if (!*k && *at == '=') {
            unsigned length = 0;
            for (at++; *at && *at != ' ' && length + 1 < sizeof(value); at++)
                value[length++] = *at;
            value[length] = '\0';
            return value;
        }
        while (*at && *at != ' ')
            at++;
        while (*at == ' ')
            at++;
    }
    return NULL;
}

uint32_t option_number(const char *key, uint32_t otherwise)
{
    const char *text = option(key);
    if (!text)
        return otherwise;
    uint32_t number = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        number = number * 10 + (uint32_t)(*text - '0');
    return number;
}

void *pages(uint32_t size)
{
    uint8_t *taken = next_page;
    next_page += (size + 4095) & ~4095u;
    return memset(taken, 0, size);
}

void *memset(void *to, int value, size_t size)
{
    uint8_t *bytes = to;
    while (size--)
        *bytes++ = (uint8_t)value;
    return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
    uint8_t *bytes = to;
    const uint8_t *source = from;
    while (size--)
        *bytes++ = *source++;
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a, *y = b;
    for (; size--; x++, y++)
        if (*x != *y)
            return *x < *y ? -1 : 1;
    return 0;
}

bool same_text(const char *a, const char *b)
{
    if (!a || !b)
        return false;
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}
