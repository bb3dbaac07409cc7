/*
 * What to run: one structure, filled from the command line (config_args.c) or from JSON with the keys of
 * Firecracker's configuration file (config_json.c), and checked in one place. Options and keys of a device
 * are its kind's (devices.h).
 */
#pragma once

#include "base/rate_limiter.h"
#include "net/config.h"
#include "sec/sandbox.h"
#include "vcpu/mem.h"

#define CONFIG_DRIVES_MAX 62u /* virtio slots (vcpu/layout.h) less the entropy device and the balloon */

struct drive_config {
    char *id;   /* the API's drive_id; NULL: none */
    char *path; /* or volume:DIR or cas:NAME, in the store (dev/disk_cas.h) */
    bool read_only;
    bool direct;     /* O_DIRECT: past the host's page cache */
    uint32_t sector; /* logical sector in bytes, 512 or 4096; 0: 512 */
    struct rate_limiter_config limits;
};

struct balloon_config {
    bool off;        /* no such device */
    uint64_t target; /* bytes */
    bool deflate_on_oom, reporting, hinting;
    unsigned stats_seconds; /* 0: no statistics */
};

struct vsock_config {
    char *path;   /* of the Unix socket; NULL: no such device */
    uint32_t cid; /* the guest's address */
    bool has_cid;
};

enum serial_kind { SERIAL_STDIO, SERIAL_FILE, SERIAL_OFF };

struct config {
    char *kernel, *initrd;
    char *cmdline; /* replaces the default command line; NULL: the default */
    char *append;  /* added after it; may be NULL */
    struct drive_config drives[CONFIG_DRIVES_MAX];
    unsigned drive_count;
    struct net_config nets[NET_CONFIG_MAX];
    unsigned net_count;
    struct balloon_config balloon;
    struct vsock_config vsock;
    char *net_backend, *net_bridge; /* of the card that the last two options make together; NULL: not given */
    char *name;                     /* the VM's name; NULL: it has none */
    char *cas_store;                /* the Stellarium store of such drives; NULL: $STELLARIUM_STORE */
    bool has_rootfs;                /* drives[0] is the root file system */
    uint64_t memory;                /* bytes */
    unsigned cpus;
    enum guest_pages pages;
    enum serial_kind serial;
    char *serial_path;
    bool boot_timer; /* dev/boot_timer.h */
    struct sandbox_config sandbox;
    const char *control_socket; /* its file is removed at the end; NULL: there is none. Lent. */
    char *restore;              /* the snapshot that it comes from: a folder or cas:NAME; NULL: none, boot */
    struct snapshot *snapshot;  /* to go on from, in place of a boot; NULL: boot. Lent. */
    struct machine_copy *copy;  /* this process is a copy of another VM's, and goes on from it. Lent. */
    bool stay_paused;           /* do not go on by itself */
    bool clock_catches_up;      /* the guest's clock jumps over the time since it was saved */
    bool same_folders;          /* other disks may be opened later from the folders of those that are given */
};

/* A VM of 128 MiB and one CPU with its console on stdio, and nothing to boot yet. */
void config_init(struct config *config);
void config_free(struct config *config);

struct argp_child;

/*
 * Reads the command line into `config`, and the options of `more` (NULL: none) into `more_input`. Handles
 * --help, --version and wrong usage itself (exit 0 or 1 after message on stderr). Returns 0, or a negative
 * errno with a message for a file or value that cannot be used.
 */
int config_from_args(int argc, char **argv, const struct argp_child *more, void *more_input,
                     struct config *config);

/* Adds what the JSON file says to `config`. -EINVAL names the key or the place in the file. */
int config_from_json(const char *path, struct config *config);

/* An empty balloon, with free page reporting. */
void config_balloon_default(struct balloon_config *balloon);

/* Adds a copy of `drive`; `root` makes it the first. -EEXIST a second root, -ENOSPC too many, -EINVAL a
 * sector of another size. */
int config_add_drive(struct config *config, const struct drive_config *drive, bool root);

/* Puts a copy of `value` in the place of *field. -ENOMEM with a message. */
int config_set_text(char **field, const char *value);

/* Adds a network card as --net says it. -EINVAL with a message, -ENOSPC too many. */
int config_add_net(struct config *config, const char *text);
int config_put_net(struct config *config, const struct net_config *net);

/* What cannot be run although each option by itself is right. */
int config_check(const struct config *config);

/* The guest's command line, made of the default, --append and what the drives call for. The caller frees
 * it. */
int config_command_line(const struct config *config, char **ret_line);

/* The default command line, for --help. */
extern const char config_default_cmdline[];
