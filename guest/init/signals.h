/* The action of PID 1 at each signal. Pure. */
#pragma once

#include "base/base.h"

enum signal_action {
    SIGNAL_IGNORE,    /* nothing */
    SIGNAL_REAP,      /* a child ended */
    SIGNAL_FORWARD,   /* to the main command's process group */
    SIGNAL_POWER_OFF, /* end in order and power off */
    SIGNAL_REBOOT,    /* end in order and reboot */
};

/* The kernel's number for the power button where CONFIG_ACPI_TINY_POWER_BUTTON signals init (its default:
 * systemd's SIGRTMIN+4, counted from the kernel's own 34; a C library may keep the first few for itself). */
#define SIGNAL_POWER_BUTTON 38

/* Follows the conventions of busybox and SysV, so that their poweroff and reboot work. Takes any number. */
enum signal_action signal_action(int number);

/* The signal that a program of this name (argv[0], with or without folders) sends to PID 1; 0 for other
 * names. */
int signal_of_client(const char *program);
