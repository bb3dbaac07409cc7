/* The checksum of firmware tables: all bytes, it among them, add up to 0 modulo 256. */
#pragma once

#include "base/base.h"

/* What the checksum byte of a table has to be. It must still be 0 in `table`. */
static inline uint8_t checksum_make(const void *table, size_t length)
{
    const uint8_t *bytes = table;
    unsigned sum = 0;
    for (size_t i = 0; i < length; i++)
        sum += bytes[i];
    return (uint8_t)(0u - sum);
}
