#include "boot/aml.h"

#include <string.h>

/* Section 20.3, "AML Byte Stream Byte Values". */
enum {
    OP_NAME = 0x08,
    OP_BYTE_PREFIX = 0x0a,
    OP_WORD_PREFIX = 0x0b,
    OP_DWORD_PREFIX = 0x0c,
    OP_STRING_PREFIX = 0x0d,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_EXTENDED = 0x5b, /* the next byte is one of those below */
    OP_IF = 0xa0,
};
enum { EXTENDED_REGION = 0x80, EXTENDED_FIELD = 0x81, EXTENDED_DEVICE = 0x82 };

void aml_bytes(struct aml *aml, const void *bytes, size_t length)
{
    CHECK(length <= aml->capacity - aml->length);
    memcpy(aml->bytes + aml->length, bytes, length);
    aml->length += length;
}

void aml_byte(struct aml *aml, unsigned value)
{
    CHECK(aml->length < aml->capacity && value <= UINT8_MAX);
    aml->bytes[aml->length++] = (uint8_t)value;
}

void aml_word(struct aml *aml, unsigned value)
{
    uint16_t word = (uint16_t)value;
    aml_bytes(aml, &word, sizeof(word));
}

void aml_dword(struct aml *aml, uint32_t value)
{
    aml_bytes(aml, &value, sizeof(value));
}

void aml_name(struct aml *aml, const char *name)
{
    char segment[4] = {'_', '_', '_', '_'};
    if (*name == '\\') {
        aml_byte(aml, '\\');
        name++;
    }
    CHECK(strlen(name) <= sizeof(segment));
    memcpy(segment, name, strlen(name));
    aml_bytes(aml, segment, sizeof(segment));
}

void aml_integer(struct aml *aml, uint32_t value)
{
    if (value <= 1) { /* ZeroOp and OneOp are their own values */
        aml_byte(aml, value);
    } else if (value <= UINT8_MAX) {
        aml_byte(aml, OP_BYTE_PREFIX);
        aml_byte(aml, value);
    } else if (value <= UINT16_MAX) {
        aml_byte(aml, OP_WORD_PREFIX);
        aml_word(aml, value);
    } else {
        aml_byte(aml, OP_DWORD_PREFIX);
        aml_dword(aml, value);
    }
}

void aml_string(struct aml *aml, const char *text)
{
    aml_byte(aml, OP_STRING_PREFIX);
    aml_bytes(aml, text, strlen(text) + 1);
}

static unsigned hex_digit(char digit)
{
    return (unsigned)(digit <= '9' ? digit - '0' : digit - 'A' + 10);
}

void aml_eisa_id(struct aml *aml, const char *id)
{
    /* Three letters of 5 bits and four hexadecimal digits, the most significant byte first (section
     * 19.3.4). */
    CHECK(strlen(id) == 7);
    unsigned letters = 0, digits = 0;
    for (unsigned i = 0; i < 3; i++)
        letters = letters << 5 | (unsigned)(id[i] - 'A' + 1);
    for (unsigned i = 3; i < 7; i++)
        digits = digits << 4 | hex_digit(id[i]);
    aml_byte(aml, OP_DWORD_PREFIX);
    aml_dword(aml, __builtin_bswap32(letters << 16 | digits));
}

void aml_name_is(struct aml *aml, const char *name)
{
    aml_byte(aml, OP_NAME);
    aml_name(aml, name);
}

/* A package length is written when it is known: always in the form of three bytes, which any length may
 * take. */
static struct aml_scope open_length(struct aml *aml)
{
    struct aml_scope scope = {.length_at = aml->length};
    aml_bytes(aml, "\0\0", 3);
    return scope;
}

void aml_close(struct aml *aml, struct aml_scope scope)
{
    /* Section 20.2.4: bits 6 and 7 say that two bytes follow; the length counts itself; its low 4 bits come
     * first. */
    size_t length = aml->length - scope.length_at;
    uint8_t *at = aml->bytes + scope.length_at;
    CHECK(length < (1u << 20));
    at[0] = (uint8_t)(2u << 6 | (length & 0xf));
    at[1] = (uint8_t)(length >> 4);
    at[2] = (uint8_t)(length >> 12);
}

struct aml_scope aml_open_scope(struct aml *aml, const char *name)
{
    aml_byte(aml, OP_SCOPE);
    struct aml_scope scope = open_length(aml);
    aml_name(aml, name);
    return scope;
}

struct aml_scope aml_open_device(struct aml *aml, const char *name)
{
    aml_byte(aml, OP_EXTENDED);
    aml_byte(aml, EXTENDED_DEVICE);
    struct aml_scope scope = open_length(aml);
    aml_name(aml, name);
    return scope;
}

struct aml_scope aml_open_package(struct aml *aml, unsigned element_count)
{
    aml_byte(aml, OP_PACKAGE);
    struct aml_scope scope = open_length(aml);
    aml_byte(aml, element_count);
    return scope;
}

struct aml_scope aml_open_if(struct aml *aml)
{
    aml_byte(aml, OP_IF);
    return open_length(aml);
}

struct aml_scope aml_open_method(struct aml *aml, const char *name, unsigned arguments)
{
    aml_byte(aml, OP_METHOD);
    struct aml_scope scope = open_length(aml);
    aml_name(aml, name);
    aml_byte(aml, 1u << 3 | arguments); /* bit 3: serialized */
    return scope;
}

void aml_port_register(struct aml *aml, const char *region, const char *field, unsigned port)
{
    aml_byte(aml, OP_EXTENDED);
    aml_byte(aml, EXTENDED_REGION);
    aml_name(aml, region);
    aml_byte(aml, 1); /* SystemIO */
    aml_integer(aml, port);
    aml_integer(aml, 4);

    aml_byte(aml, OP_EXTENDED);
    aml_byte(aml, EXTENDED_FIELD);
    struct aml_scope fields = open_length(aml);
    aml_name(aml, region);
    aml_byte(aml, 3); /* DWordAcc, NoLock, Preserve */
    aml_name(aml, field);
    aml_byte(aml, 32); /* bits, as a package length */
    aml_close(aml, fields);
}

struct aml_resources aml_open_resources(struct aml *aml)
{
    aml_byte(aml, OP_BUFFER);
    struct aml_resources resources = {.scope = open_length(aml)};
    aml_byte(aml, OP_WORD_PREFIX);
    resources.size_at = aml->length;
    aml_word(aml, 0);
    return resources;
}

void aml_close_resources(struct aml *aml, struct aml_resources resources)
{
    aml_byte(aml, 0x79); /* end tag (section 6.4.2.9); a checksum of 0 says that there is none */
    aml_byte(aml, 0);
    size_t size = aml->length - resources.size_at - sizeof(uint16_t);
    CHECK(size <= UINT16_MAX);
    aml->bytes[resources.size_at] = (uint8_t)size;
    aml->bytes[resources.size_at + 1] = (uint8_t)(size >> 8);
    aml_close(aml, resources.scope);
}

void aml_ports(struct aml *aml, unsigned base, unsigned count)
{
    aml_byte(aml, 0x47); /* I/O port descriptor (section 6.4.2.5) */
    aml_byte(aml, 1);    /* decodes 16 bits */
    aml_word(aml, base); /* lowest and highest base */
    aml_word(aml, base);
    aml_byte(aml, 1); /* alignment */
    aml_byte(aml, count);
}

void aml_memory(struct aml *aml, uint32_t base, uint32_t size)
{
    aml_byte(aml, 0x86); /* 32-bit fixed memory range (section 6.4.3.4) */
    aml_word(aml, 9);
    aml_byte(aml, 1); /* writeable */
    aml_dword(aml, base);
    aml_dword(aml, size);
}

void aml_interrupt(struct aml *aml, enum aml_sharing sharing, unsigned gsi)
{
    unsigned flags = 1u << 0 | 1u << 1; /* consumer, edge; active high is bit 2 clear */
    if (sharing == AML_SHARED)
        flags |= 1u << 3;
    aml_byte(aml, 0x89); /* extended interrupt (section 6.4.3.6) */
    aml_word(aml, 6);
    aml_byte(aml, flags);
    aml_byte(aml, 1); /* one interrupt */
    aml_dword(aml, gsi);
}
