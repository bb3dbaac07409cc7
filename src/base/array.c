#include "base/base.h"

#define ARRAY_FIRST 8u /* elements */

void *array_grow(void *array, size_t wanted, size_t *capacity, size_t element_size)
{
    if (array && wanted <= *capacity)
        return array;
    size_t larger = MAX(MAX(wanted, 2 * *capacity), ARRAY_FIRST);
    uint64_t bytes;
    void *grown = mul_overflows(larger, element_size, &bytes) ? NULL : realloc(array, bytes);
    if (!grown) {
        fail_message("no memory for a list of %zu", larger);
        return NULL;
    }
    *capacity = larger;
    return grown;
}
