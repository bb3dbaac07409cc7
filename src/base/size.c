#include "base/base.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

int size_parse(const char *text, uint64_t *ret_bytes)
{
    static const char suffixes[] = "KMGT";
    char *end = NULL;
    if (!isdigit((unsigned char)text[0]))
        return fail(-EINVAL, "'%s' is not a size; write digits and K, M or G, as in 128M", text);
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno == ERANGE)
        return fail(-ERANGE, "'%s' does not fit 64 bits", text);

    unsigned shift = 0;
    const char *suffix = *end ? strchr(suffixes, toupper((unsigned char)*end)) : NULL;
    if (suffix) {
        shift = 10 * (unsigned)(suffix - suffixes + 1);
        end++;
    }
    if (*end && strcasecmp(end, "B") != 0 && !(suffix && strcasecmp(end, "iB") == 0))
        return fail(-EINVAL, "'%s' is not a size; write digits and K, M or G, as in 128M", text);
    uint64_t bytes;
    if (mul_overflows(number, UINT64_C(1) << shift, &bytes))
        return fail(-ERANGE, "'%s' does not fit 64 bits", text);
    *ret_bytes = bytes;
    return 0;
}

char *size_text(uint64_t bytes, char buffer[SIZE_TEXT_MAX])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;
    double value = (double)bytes;
    while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(buffer, SIZE_TEXT_MAX, unit && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return buffer;
}
