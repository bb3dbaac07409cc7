/* What is in the DSDT behind its header: the devices that no bus would tell of. */
#pragma once

#include "boot/aml.h"
#include "boot/boot.h"

void dsdt_write(struct aml *aml, const struct boot_config *config);
