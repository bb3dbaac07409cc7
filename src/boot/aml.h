/*
 * Writing AML, the byte code of ACPI's DSDT (ACPI 6.4, chapter 20): one function for a term, in the order in
 * which the terms stand in ASL. Constructs with a length are opened and closed.
 */
#pragma once

#include "base/base.h"

/* Bytes are appended at `length`; running over `capacity` is a broken invariant, since no guest or file sizes
 * this. */
struct aml {
    uint8_t *bytes;
    size_t length;
    size_t capacity;
};

/* What aml_open() began, for aml_close(). */
struct aml_scope {
    size_t length_at;
};

void aml_bytes(struct aml *aml, const void *bytes, size_t length);
void aml_byte(struct aml *aml, unsigned value);
void aml_word(struct aml *aml, unsigned value); /* 16 bits */
void aml_dword(struct aml *aml, uint32_t value);

/* A name of up to 4 characters, optionally behind a "\\"; shorter ones are filled with '_' (section
 * 20.2.2). */
void aml_name(struct aml *aml, const char *name);

/* An integer, a string, a compressed EISA ID ("PNP0501") as a term. */
void aml_integer(struct aml *aml, uint32_t value);
void aml_string(struct aml *aml, const char *text);
void aml_eisa_id(struct aml *aml, const char *id);

/* Name (name, ...): the term that follows is its value. */
void aml_name_is(struct aml *aml, const char *name);

struct aml_scope aml_open_scope(struct aml *aml, const char *name);
struct aml_scope aml_open_device(struct aml *aml, const char *name);
struct aml_scope aml_open_package(struct aml *aml, unsigned element_count);
struct aml_scope aml_open_if(struct aml *aml);
/* Method (name, arguments, Serialized) */
struct aml_scope aml_open_method(struct aml *aml, const char *name, unsigned arguments);
void aml_close(struct aml *aml, struct aml_scope scope);

/* OperationRegion (name, SystemIO, port, bytes) and in it one field of 32 bits with its own name. */
void aml_port_register(struct aml *aml, const char *region, const char *field, unsigned port);

/* Resources (section 6.4): between open and close of the template, any number of them. */
struct aml_resources {
    struct aml_scope scope;
    size_t size_at;
};
struct aml_resources aml_open_resources(struct aml *aml);
void aml_close_resources(struct aml *aml, struct aml_resources resources);
void aml_ports(struct aml *aml, unsigned base, unsigned count);
void aml_memory(struct aml *aml, uint32_t base, uint32_t size);
enum aml_sharing { AML_EXCLUSIVE, AML_SHARED };
/* Edge-triggered, active high. */
void aml_interrupt(struct aml *aml, enum aml_sharing sharing, unsigned gsi);
