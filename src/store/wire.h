/* Little-endian integers at any alignment, and the sizes of manifest.h and volume.h. */
#pragma once

#include "base/base.h"

#include <endian.h>
#include <string.h>

#define MANIFEST_MAGIC     "STELMANI"
#define MANIFEST_VERSION   1u
#define MANIFEST_HEADER    64u
#define MANIFEST_OBJECT    40u
#define MANIFEST_EXTENT    16u
#define MANIFEST_IMAGE_MAX (UINT64_C(1) << 50) /* 1 PiB: page numbers stay far from the end of 64 bits */
#define MANIFEST_FILE_MAX  (1 << 30)           /* what one is read into memory for */

static inline uint16_t get16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return le16toh(value);
}
static inline uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return le32toh(value);
}
static inline uint64_t get64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return le64toh(value);
}
static inline void put16(uint8_t *at, uint16_t value)
{
    value = htole16(value);
    memcpy(at, &value, sizeof(value));
}
static inline void put32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof(value));
}
static inline void put64(uint8_t *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof(value));
}
