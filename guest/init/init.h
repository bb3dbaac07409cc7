/* volt-init: what its files that act use of each other. Single-threaded; PID 1 of the guest. */
#pragma once

#include "base/base.h"
#include "cmdline.h"

#include <signal.h>

/* say.c: one line on the console, "volt-init: " before it, in one write. Losing it is no error. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* say() and then reboot, for an init that cannot go on. */
_Noreturn void give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* From now on a crash of volt-init says so and reboots, instead of leaving a kernel panic. Takes the
 * signals of a crash out of `blocked`: the kernel kills a process at once that blocks them. */
void say_crashes(sigset_t *blocked);

/* file.c: the whole of a text file, terminated, at most FILE_TEXT_MAX bytes; files of /proc too. The
 * caller frees it. -EFBIG with a message, -ENOENT and the like without. */
#define FILE_TEXT_MAX (8 * MIB)
int file_text(const char *path, char **ret_text);
/* Takes a line off the text at *cursor, without its outer blanks and #comment; NULL at the end. Skips
 * empty lines. */
char *file_line(char **cursor);

/* mount.c: mounts /proc, /sys and /dev. Says which could not be mounted. */
void mount_first(void);
/* Mounts the other file systems that programs expect. */
void mount_rest(void);
/* Unmounts every file system that keeps data, and makes the root read-only. Says which failed. */
void unmount_all(void);

/* modules.c: loads the modules that /etc/volt/modules names and this kernel has, with what they need. */
void load_modules(void);

/* root.c, in an initramfs: waits for the root device, mounts it, frees the initramfs and starts the
 * root's init. Gives up if one of these fails. */
_Noreturn void root_start(const struct boot_line *boot);

/* network.c: does what the command line's ip=, nameserver= and rd.route= say, and says what cannot be done.
 * May wait: for a card one second, for an address five. */
void network_start(const struct boot_line *boot);
/* As busybox's udhcpc's script: takes the lease that is in the environment for the card `name`, or gives it
 * back. The program's status. */
int network_lease(const char *event, const char *name, const struct boot_line *boot);
/* How udhcpc calls this program, wherever it lies. */
#define NETWORK_LEASE_PROGRAM "/proc/1/exe"

/* button.c: opens the power button of a kernel that reports it as an input device; -1 if there is none. */
int button_open(void);
/* Whether the events waiting at the button say that it was pressed. */
bool button_pressed(int fd);

/* Exit statuses of a shell for a command that it cannot start. */
#define EXIT_CANNOT_RUN 126
#define EXIT_NOT_FOUND  127

/* supervise.c: starts the main command, then reaps children and forwards signals until the command ends
 * or somebody asks for the end. Says how the command ended. */
enum ending { ENDING_POWER_OFF, ENDING_REBOOT };
enum ending supervise(const struct boot_line *boot);

/* end.c: asks every process to end, and kills after END_PATIENCE_SECONDS those that have not. */
#define END_PATIENCE_SECONDS 5
void end_processes(pid_t main_pid);
/* Ends the machine, now. Reboots if the kernel cannot power off. */
_Noreturn void end_machine(enum ending ending);
