#include "devices.h"

const struct device_kind *const device_kinds[] = {&device_drive,   &device_entropy, &device_net,
                                                  &device_balloon, &device_vsock,   NULL};

_Static_assert(ARRAY_SIZE(device_kinds) <= DEVICE_KINDS_MAX, "DEVICE_KINDS_MAX");
