/* The kinds of threads that the monitor has, each with a filter of its own. */
#pragma once

enum sandbox_role { SANDBOX_LOOP, SANDBOX_VCPU, SANDBOX_OPENER, SANDBOX_ROLES };

/* Stands in the filters where this process's number is put when they are loaded. */
#define SANDBOX_OWN_PID 0x7650564d
