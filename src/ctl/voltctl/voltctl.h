/* Inside voltctl: what a command gets, and the commands. */
#pragma once

#include "ctl/keys.h"
#include "ctl/voltctl/client.h"

#include <limits.h>

#define NAME_MAX_BYTES 64 /* as --id of volt-vmm */

struct invocation {
    const char *directory; /* of the sockets */
    const char *name;      /* of the VM, or the path of its socket; NULL for commands without one */
    const char *word;      /* after the name: a size, a snapshot's folder, a drive; NULL: not given */
    const char *store;     /* of snapshots in it; NULL: $STELLARIUM_STORE */
    char **rest;           /* what follows, NULL at the end */
    bool json, force, console, paused;
    unsigned count; /* of copies; 0: not given */
    unsigned timeout_seconds;
};

/* Names of files that belong to the VM. -EINVAL or -ENAMETOOLONG with a message. */
int vm_file(const struct invocation *invocation, const char *suffix, char ret_path[PATH_MAX]);

/* Makes one of them anew, or empties it. -errno with a message. */
int vm_open_file(const struct invocation *invocation, const char *suffix, int *ret_fd);

/* Connects to the VM's socket, or says what is wrong with it. */
int vm_connect(const struct invocation *invocation, struct client *ret_client);

/*
 * Connects, asks, and fails with the words of what is no success. Else 0, the body is in `answer`, and
 * *ret_pid (NULL: not wanted) is the VM's process.
 */
int vm_ask(const struct invocation *invocation, const struct client_request *request, struct text *answer,
           pid_t *ret_pid);

/* Whether its socket answers, and process `pid` is who listens. One that only listens may still fail. */
bool vm_answers(const struct invocation *invocation, pid_t pid);

/* The VM's configuration, which json_free(&keys_config_struct, ...) ends, and the number of its process. */
int vm_config(const struct invocation *invocation, struct keys_config *ret_config, pid_t *ret_pid);

/* The status of a voltctl exec that fails itself. */
#define VOLTCTL_EXEC_FAILED 125

/* Each returns 0, or a negative errno with a message; do_exec() the status of its command. */
typedef int voltctl_command(const struct invocation *invocation);
voltctl_command do_list, do_start, do_stop, do_pause, do_resume, do_config, do_metrics, do_sandbox, do_events,
    do_logs, do_rm, do_balloon, do_snapshot, do_restore, do_reset, do_fork, do_drive, do_exec, do_shutdown;
