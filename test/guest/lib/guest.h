/*
 * What every tiny guest has: a console, an end, a command line, memory. It runs in 32-bit protected mode
 * without paging and without interrupts, one CPU; memory at 2 MiB and up is its own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Xen's start info (xen/include/public/arch-x86/hvm/start_info.h), version 1. */
struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, cmdline, rsdp, memmap;
    uint32_t memmap_entries, reserved;
};
#define START_INFO_MAGIC 0x336ec578u

struct memmap_entry {
    uint64_t start, size;
    uint32_t type, reserved; /* type 1: RAM */
};

/* Each guest has one. When it returns, the guest says OK and powers off. */
void guest_main(const struct start_info *info);

/* %s %u %x (with l for 64 bits) %c. Lines end with \n. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Says the place and what was expected, and ends the guest by a reboot: the test sees no OK. */
#define EXPECT(condition) ((condition) ? (void)0 : expect_failed(__FILE__, __LINE__, #condition))
_Noreturn void expect_failed(const char *file, int line, const char *condition);

_Noreturn void guest_poweroff(void); /* ACPI S5 of a hardware-reduced machine */
_Noreturn void guest_reboot(void);   /* the keyboard controller's reset line */

/* The value of `key=` on the command line, or NULL. Ends at a space; the copy lives until the next call. */
const char *option(const char *key);
uint32_t option_number(const char *key, uint32_t otherwise);

/* `size` zeroed bytes, aligned to a page. */
void *pages(uint32_t size);

void *memset(void *to, int value, size_t size);
void *memcpy(void *to, const void *from, size_t size);
int memcmp(const void *a, const void *b, size_t size);
bool same_text(const char *a, const char *b);

static inline void port_write8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline uint8_t port_read8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline void barrier(void)
{
    __asm__ volatile("lock orl $0, (%%esp)" : : : "memory");
}
