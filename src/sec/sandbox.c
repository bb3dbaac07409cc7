/*
 * The doors, in the order in which they close.
 *
 *   1  early         before a file or a request of others is read: no new privileges, no core
 *   2  Landlock      all that was configured is open: paths, as far as some must be reached later
 *   3  limits        no more descriptors than now, hidden from ptrace
 *   4  the user      another one, if that was asked for: needs root's capabilities
 *   5  capabilities  none
 *   6  the handler   of calls that a filter traps
 *   7  filters       each thread puts on its own, vCPUs first: the loop makes them and then needs no clone
 *
 * A ring is restricted when it is made (loop_restrict()), since one that has been used can no longer be.
 *
 * Each stage says what it should do, and what it mustn't.
 */
#include "sec/internal.h"

#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static const char *const layer_names[SANDBOX_LAYERS] = {
    [SANDBOX_SECCOMP] = "seccomp",           [SANDBOX_RING] = "ring",     [SANDBOX_LANDLOCK] = "landlock",
    [SANDBOX_CAPABILITIES] = "capabilities", [SANDBOX_LIMITS] = "limits",
};

static struct {
    bool closed;
    unsigned layers; /* that are to be in force */
    unsigned abi;    /* of Landlock */
    bool net;
    bool forks; /* a copy of the process writes snapshots */
    bool copies;
    bool makes; /* and files may be made in one of the paths */
    struct sandbox_path paths[SANDBOX_PATHS_MAX];
    unsigned path_count;
} state;

static bool has(const struct sandbox_config *config, enum sandbox_layer layer)
{
    return config->layers & (1u << layer);
}

/* ---- 1: early ---- */

/*
 * Should: see to it that no program that is started gets rights by its file, that no other process of the
 * user looks into this one, and that guests' memory is not written to a core.
 * Mustn't: need anything of the configuration.
 */
int sandbox_early(const struct sandbox_config *config)
{
    const struct rlimit none = {0, 0};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail_errno(-errno, "the sandbox: no new privileges");
    if (!has(config, SANDBOX_LIMITS))
        return 0;
    if (setrlimit(RLIMIT_CORE, &none) < 0)
        return fail_errno(-errno, "the sandbox: no core files");
    return 0;
}

/* ---- 2: Landlock ---- */

/*
 * Should: leave of the file system what is opened after the start: objects of the store, disks that may be
 * exchanged, and the folder from which the socket's file is removed.
 * Mustn't: run on a thread after others were made, who would keep their rights.
 */
static int close_paths(const struct sandbox_config *config)
{
    state.abi = landlock_abi();
    if (state.abi == 0 && (config->demanded & (1u << SANDBOX_LANDLOCK)))
        return fail(-EOPNOTSUPP,
                    "the sandbox: this kernel has no Landlock, or it is switched off (Linux 5.13 with "
                    "lsm=landlock; --sandbox without it accepts less)");
    return state.abi ? landlock_restrict(config, tasks_fd(), state.abi) : 0;
}

/* ---- 3: limits ---- */

/*
 * Should: make the limits those of now: who needed more has asked for it. A file's length is not limited:
 * disks are as long as they are.
 * Mustn't: come before a last descriptor is opened by way of /proc/self/fd, which is root's from here on.
 */
static int close_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return fail_errno(-errno, "the sandbox: the limit of descriptors");
    files.rlim_max = files.rlim_cur;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        return fail_errno(-errno, "the sandbox: the limit of descriptors");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return fail_errno(-errno, "the sandbox: hiding from ptrace");
    return 0;
}

/* ---- 4: the user ---- */

/*
 * Should: leave root, and its files, behind for who was told of a user.
 * Mustn't: keep a group of before. It comes after the bounding set was emptied, which needs root's rights,
 * and takes the other sets with it.
 */
static int change_user(const struct sandbox_config *config)
{
    if (!config->user)
        return 0;
    if (setgroups(0, NULL) < 0 || setresgid(config->group, config->group, config->group) < 0 ||
        setresuid(config->user, config->user, config->user) < 0)
        return fail_errno(-errno, "the sandbox: becoming user %u of group %u (only root can)", config->user,
                          config->group);
    return 0;
}

/* ---- 5: capabilities ---- */

static int empty_bounding_set(void)
{
    cap_flag_value_t may = CAP_CLEAR;
    cap_t now = cap_get_proc();
    int r = now ? cap_get_flag(now, CAP_SETPCAP, CAP_EFFECTIVE, &may) : -1;
    cap_free(now);
    for (cap_value_t cap = 0; r == 0 && may == CAP_SET && cap < cap_max_bits(); cap++)
        r = cap_get_bound(cap) > 0 ? cap_drop_bound(cap) : 0;
    if (r == 0 && CAP_AMBIENT_SUPPORTED())
        r = cap_reset_ambient();
    return r < 0 ? fail_errno(-errno, "the sandbox: emptying the bounding set") : 0;
}

/*
 * Should: leave none, in no set. A process with network cards of the host that may change links keeps that
 * right: a bridge or a TAP that comes back is joined to again, and the report says so. Who has none to begin
 * with, or becomes another user, has none.
 * Mustn't: leave one in the bounding set: no exec brings it back.
 */
static int drop_capabilities(const struct sandbox_config *config)
{
    const cap_value_t net = CAP_NET_ADMIN;
    cap_flag_value_t had = CAP_CLEAR;
    cap_t before = cap_get_proc(), wanted = cap_init();
    int r = before && wanted ? cap_get_flag(before, net, CAP_EFFECTIVE, &had) : -1;
    if (r == 0 && config->net && had == CAP_SET) {
        r = cap_set_flag(wanted, CAP_PERMITTED, 1, &net, CAP_SET);
        if (r == 0)
            r = cap_set_flag(wanted, CAP_EFFECTIVE, 1, &net, CAP_SET);
    }
    if (r == 0)
        r = cap_set_proc(wanted);
    int error = errno;
    cap_free(before);
    cap_free(wanted);
    return r < 0 ? fail_errno(-error, "the sandbox: dropping the capabilities") : 0;
}

static int close_rights(const struct sandbox_config *config, bool capabilities)
{
    int r = capabilities ? empty_bounding_set() : 0;
    if (r == 0)
        r = change_user(config);
    if (r == 0 && capabilities)
        r = drop_capabilities(config);
    return r;
}

/* ---- All of them ---- */

/* For the report. */
static int keep_paths(const struct sandbox_config *config)
{
    for (unsigned i = 0; i < config->path_count; i++) {
        struct sandbox_path *path = &state.paths[i];
        struct stat status;
        *path = config->paths[i];
        if (config->forks && path->writable && stat(path->path, &status) == 0)
            state.makes = state.makes || S_ISDIR(status.st_mode);
        path->path = strdup(config->paths[i].path);
        if (!path->path)
            return fail(-ENOMEM, "the sandbox: no memory");
        state.path_count++;
    }
    return 0;
}

const struct sandbox_path *sandbox_path(unsigned index)
{
    return index < state.path_count ? &state.paths[index] : NULL;
}

bool sandbox_may_fork(void)
{
    return state.forks || !(state.layers & (1u << SANDBOX_SECCOMP));
}

bool sandbox_may_copy(void)
{
    return state.copies || !(state.layers & (1u << SANDBOX_SECCOMP));
}

bool sandbox_may_make_files(void)
{
    return state.makes || !(state.layers & (1u << SANDBOX_SECCOMP));
}

int sandbox_close(const struct sandbox_config *config)
{
    state.layers = config->layers;
    state.net = config->net;
    state.forks = config->forks;
    state.copies = config->copies;
    state.closed = true;
    if (SANITIZED) /* its run-time needs calls, files and memory that no list of ours has */
        state.layers &= 1u << SANDBOX_RING;
    if (config->opens_files)
        tasks_open();
    int r = keep_paths(config);
    if (r == 0 && state.layers & (1u << SANDBOX_LANDLOCK))
        r = close_paths(config);
    if (r == 0 && state.layers & (1u << SANDBOX_LIMITS))
        r = close_limits();
    if (r == 0)
        r = close_rights(config, state.layers & (1u << SANDBOX_CAPABILITIES));
    if (r == 0 && state.layers & (1u << SANDBOX_SECCOMP)) {
        filter_choose(config, state.makes);
        r = filter_catch(config);
    }
    return r;
}

void sandbox_copied(void)
{
    tasks_forget();
}

/* ---- 7: filters ---- */

/*
 * Should: be the last thing before a thread does what the guest wants.
 * Mustn't: come on the loop before all threads are made: it may make none afterwards.
 */
void sandbox_thread(enum sandbox_role role, const char *name)
{
    if (!(state.layers & (1u << SANDBOX_SECCOMP)))
        return;
    sigset_t trap; /* blocked, it would end the process without a word */
    sigemptyset(&trap);
    sigaddset(&trap, SIGSYS);
    pthread_sigmask(SIG_UNBLOCK, &trap, NULL);
    filter_name_thread(name);
    int r = filter_load(role);
    if (r == 0)
        return;
    fprintf(stderr, "volt-vmm: the sandbox: the filter of thread %s: %s\n", name, strerror(-r));
    _exit(2);
}

const char *sandbox_role_name(enum sandbox_role role)
{
    static const char *const names[SANDBOX_ROLES] = {
        [SANDBOX_LOOP] = "loop", [SANDBOX_VCPU] = "vcpu", [SANDBOX_OPENER] = "opener"};
    return names[role];
}

/* ---- Options ---- */

void sandbox_init(struct sandbox_config *config)
{
    *config = (struct sandbox_config){.layers = SANDBOX_ALL, .trap_status = 128 + 31 /* SIGSYS */};
}

static int parse_layer(const char *word, size_t length, unsigned *layers)
{
    for (unsigned i = 0; i < SANDBOX_LAYERS; i++)
        if (strlen(layer_names[i]) == length && strncmp(layer_names[i], word, length) == 0) {
            *layers |= 1u << i;
            return 0;
        }
    return fail(-EINVAL,
                "--sandbox '%.*s': give off, or a list of seccomp, ring, landlock, capabilities, limits",
                (int)length, word);
}

int sandbox_parse(const char *text, struct sandbox_config *config)
{
    unsigned layers = 0;
    int r = 0;
    if (strcmp(text, "off") != 0)
        for (const char *at = text; r == 0; at += strcspn(at, ",") + 1) {
            r = parse_layer(at, strcspn(at, ","), &layers);
            if (!at[strcspn(at, ",")])
                break;
        }
    if (r < 0)
        return r;
    config->layers = config->demanded = layers;
    return 0;
}

int sandbox_add_path(struct sandbox_config *config, const struct sandbox_path *path)
{
    if (config->path_count == SANDBOX_PATHS_MAX)
        return fail(-ENOSPC, "%s: the sandbox keeps at most %u paths open", path->path, SANDBOX_PATHS_MAX);
    config->paths[config->path_count++] = *path;
    return 0;
}

int sandbox_allow(char *text, struct sandbox_config *config)
{
    struct sandbox_path path = {.path = text, .writable = true};
    size_t length = strlen(text);
    if (length > 3 && strcmp(text + length - 3, ",ro") == 0) {
        text[length - 3] = '\0';
        path.writable = false;
    }
    if (!text[0])
        return fail(-EINVAL, "--allow-path: the name is empty");
    return sandbox_add_path(config, &path);
}

int sandbox_parse_id(const char *option, const char *text, unsigned *ret_id)
{
    char *end = NULL;
    errno = 0;
    unsigned long id = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || id == 0 || id >= UINT32_MAX)
        return fail(-EINVAL, "--%s '%s': give a number that is not root's", option, text);
    *ret_id = (unsigned)id;
    return 0;
}

int sandbox_check(const struct sandbox_config *config)
{
    if (!config->user != !config->group)
        return fail(-EINVAL, "--uid and --gid: give both or none");
    return 0;
}

/* ---- The report ---- */

static const char *detail_of(enum sandbox_layer layer, char *buffer, size_t size)
{
    if (SANITIZED && layer != SANDBOX_RING)
        return "this is a build with a sanitizer";
    switch (layer) {
    case SANDBOX_LANDLOCK:
        if (state.abi == 0)
            return "this kernel has none";
        snprintf(buffer, size, "ABI %u: files%s%s", state.abi, state.abi >= 4 ? ", TCP" : "",
                 state.abi >= 6 ? ", signals, abstract sockets" : "");
        return buffer;
    case SANDBOX_CAPABILITIES:
        return state.net ? "none, or CAP_NET_ADMIN for network cards that come back" : "none";
    case SANDBOX_SECCOMP: return "a filter for each thread";
    case SANDBOX_RING: return "only operations that are used";
    default: return "no core, no ptrace, no more descriptors";
    }
}

void sandbox_report(struct sandbox_layer_report *ret_reports)
{
    for (unsigned i = 0; i < SANDBOX_LAYERS; i++) {
        struct sandbox_layer_report *report = &ret_reports[i];
        bool wanted = state.layers & (1u << i);
        *report = (struct sandbox_layer_report){
            .name = layer_names[i],
            .in_force = state.closed && wanted && (i != SANDBOX_LANDLOCK || state.abi),
        };
        char buffer[sizeof(report->detail)];
        snprintf(report->detail, sizeof(report->detail), "%s",
                 !state.closed         ? "in force when the VM is started"
                 : wanted || SANITIZED ? detail_of(i, buffer, sizeof(buffer))
                                       : "left out by --sandbox");
    }
}
