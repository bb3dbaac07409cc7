/* Between the files of sec/ only. */
#pragma once

#include "sec/sandbox.h"

/* The filter of this thread. Negative errno. */
int filter_load(enum sandbox_role role);
/* Which filters the loop gets; `makes`: it may make files. */
void filter_choose(const struct sandbox_config *config, bool makes);
/* The name of a system call, or NULL. */
const char *filter_call_name(int number);
/* Takes SIGSYS: a call that is not allowed ends the process. */
int filter_catch(const struct sandbox_config *config);
/* The name of this thread in the line that tells of one. */
void filter_name_thread(const char *name);

/* /proc/self/task, for the report: opens it, and gives it or -1. */
void tasks_open(void);
int tasks_fd(void);
void tasks_forget(void); /* it is closed */

/* The ABI of Landlock that this kernel has, 0: none. */
unsigned landlock_abi(void);
/* Confines this thread and those that it makes; -errno with a message. `tasks` is /proc/self/task or -1. */
int landlock_restrict(const struct sandbox_config *config, int tasks, unsigned abi);
