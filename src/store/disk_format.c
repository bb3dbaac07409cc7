#include "store/disk_format.h"

#include "base/base.h"

#include <string.h>

const char *disk_format(int fd)
{
    static const struct {
        unsigned at, length;
        const char *magic, *name;
    } formats[] = {
        {0, 4, "QFI\xfb", "qcow2"},
        {0, 4, "KDMV", "vmdk"},
        {0, 21, "# Disk DescriptorFile", "vmdk"},
        {64, 4, "\x7f\x10\xda\xbe", "vdi"},
        {0, 8, "vhdxfile", "vhdx"},
        {0, 8, "conectix", "vpc"},
        {0, 4, "PK\x03\x04", "zip"},
    };
    char head[512] = {0};
    if (pread(fd, head, sizeof(head), 0) <= 0)
        return NULL;
    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
        if (memcmp(head + formats[i].at, formats[i].magic, formats[i].length) == 0)
            return formats[i].name;
    return NULL;
}
