/*
 * The confinement of the monitor: what a guest that has taken the process over can still do. The stages,
 * their order and their reasons are sandbox.c; the calls of each thread are generate/filters.c.
 *
 * Knows nothing of VMs. A step that fails ends the start; nothing is tried again with less.
 */
#pragma once

#include "base/base.h"
#include "sec/roles.h"

#include <sys/types.h>

/* What can be left out with --sandbox. */
enum sandbox_layer {
    SANDBOX_SECCOMP,      /* a filter of system calls for each role of a thread */
    SANDBOX_RING,         /* the ring takes only the operations that are used: they pass no filter */
    SANDBOX_LANDLOCK,     /* of files only the configuration's; no TCP, no signals and sockets of others */
    SANDBOX_CAPABILITIES, /* none left, the bounding set empty */
    SANDBOX_LIMITS,       /* no core, no more descriptors, no ptrace by others */
    SANDBOX_LAYERS,
};
#define SANDBOX_ALL ((1u << SANDBOX_LAYERS) - 1)

#define SANDBOX_PATHS_MAX 96u

struct sandbox_path {
    const char *path; /* lent until sandbox_close(), which keeps a copy */
    bool writable;    /* of a folder: its files, and new ones may be made in it */
    bool removes;     /* a folder whose files may be removed */
    bool device;      /* its ioctls are wanted */
};

struct sandbox_config {
    unsigned layers;   /* a bit each; SANDBOX_ALL if not chosen otherwise */
    unsigned demanded; /* those named by --sandbox: not to have one ends the start */
    struct sandbox_path paths[SANDBOX_PATHS_MAX];
    unsigned path_count;
    bool opens_files;      /* the loop opens files later, or has a control socket */
    bool forks;            /* a copy of the process writes snapshots */
    bool copies;           /* and others go on as VMs of their own */
    bool connects;         /* to Unix sockets of the host's programs, for its guest */
    unsigned user, group;  /* to become; 0: as it is */
    bool net;              /* its network cards come and go on the host */
    int trap_status;       /* the process's exit status after a call that is not allowed */
    void (*trapped)(void); /* before that, on the thread that called. Optional. */
};

void sandbox_init(struct sandbox_config *config);

/* --sandbox=off|LIST. -EINVAL with a message that lists the layers. */
int sandbox_parse(const char *text, struct sandbox_config *config);

/* --allow-path DIR[,ro]; `text` is kept and changed. -EINVAL, -ENOSPC with a message. */
int sandbox_allow(char *text, struct sandbox_config *config);

/* --uid and --gid: any but root's. -EINVAL with a message. */
int sandbox_parse_id(const char *option, const char *text, unsigned *ret_id);

/* What one option needs of another. -EINVAL with a message. */
int sandbox_check(const struct sandbox_config *config);

/* -ENOSPC with a message. */
int sandbox_add_path(struct sandbox_config *config, const struct sandbox_path *path);

/* Stage 1, before anything that others made is read. */
int sandbox_early(const struct sandbox_config *config);

/* Stages 2 and on, when all that was configured is open and before there is another thread. Negative errno
 * with a message that names the layer: end the process. */
int sandbox_close(const struct sandbox_config *config);

/* The last stage, of the calling thread; `name` is for the line that a trapped call is told by, and is
 * copied. Ends the process if it fails. Nothing before sandbox_close(). */
void sandbox_thread(enum sandbox_role role, const char *name);

/* In a copy of a process that is confined, before it makes a thread: it is confined as well, and what it
 * knows of the other one's threads is forgotten. */
void sandbox_copied(void);

/* ---- What is in force ---- */

struct sandbox_layer_report {
    const char *name;
    bool in_force;
    char detail[160]; /* what it allows, or why it is not in force */
};

/* As the stages left it; `ret_reports` has SANDBOX_LAYERS. */
void sandbox_report(struct sandbox_layer_report *ret_reports);

/* A thread, as the kernel shows it in /proc. */
struct sandbox_thread_report {
    pid_t thread;
    char name[16];
    unsigned seccomp, filters; /* 2: a filter is in force; how many */
    bool no_new_privs;
    uint64_t inheritable, permitted, effective, bounding, ambient;
};

/* What is left, after sandbox_close(): a copy of this process can be made (fork); files can be made, in the
 * folders that Landlock leaves. */
bool sandbox_may_fork(void);
bool sandbox_may_copy(void); /* and the copy can be a VM of its own */
bool sandbox_may_make_files(void);

/* Path `index` of those that were left, or NULL: there are no more. */
const struct sandbox_path *sandbox_path(unsigned index);

/* Calls `told` for each thread of the process. -errno without /proc. */
int sandbox_each_thread(void (*told)(void *context, const struct sandbox_thread_report *report),
                        void *context);

/* The calls that a thread with `role` may do, ending with NULL; NULL before sandbox_close(). */
const char *const *sandbox_calls(enum sandbox_role role);

const char *sandbox_role_name(enum sandbox_role role);
