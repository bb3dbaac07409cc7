/*
 * What the control socket's requests say, and the configuration file: one structure and one table each, with
 * Firecracker's names in Firecracker's order of declaration (its messages list them so). Requests, GET
 * /vm/config and the OpenAPI description are held to these tables.
 */
#pragma once

#include "ctl/json.h"

struct drive_config;

struct keys_token_bucket {
    struct json_number size, one_time_burst, refill_time;
};

struct keys_rate_limiter {
    struct keys_token_bucket *bandwidth, *ops;
};

enum { KEYS_HUGE_NONE, KEYS_HUGE_TRANSPARENT, KEYS_HUGE_2M };
enum { KEYS_TEMPLATE_NONE = 3 };

/* PUT and PATCH /machine-config: the same members, of which PATCH may leave all out. */
struct keys_machine {
    struct json_number vcpu_count, mem_size_mib, smt, cpu_template, track_dirty_pages, huge_pages;
};

struct keys_boot_source {
    char *kernel_image_path, *initrd_path, *boot_args;
};

struct keys_drive {
    char *drive_id, *partuuid;
    struct json_number is_root_device, cache_type, is_read_only;
    char *path_on_host;
    struct keys_rate_limiter *rate_limiter;
    struct json_number io_engine;
    char *socket;
    /* Not of a request: what the command line says of it; NULL: a request has put it there. Lent. */
    const struct drive_config *given;
};

struct keys_drive_update {
    char *drive_id, *path_on_host;
    struct keys_rate_limiter *rate_limiter;
};

struct keys_net {
    char *iface_id, *host_dev_name, *guest_mac;
    struct json_number mtu;
    struct keys_rate_limiter *rx_rate_limiter, *tx_rate_limiter;
};

struct keys_net_update {
    char *iface_id;
    struct keys_rate_limiter *rx_rate_limiter, *tx_rate_limiter;
};

struct keys_entropy {
    struct keys_rate_limiter *rate_limiter;
};

struct keys_serial {
    char *serial_out_path;
    struct keys_token_bucket *rate_limiter;
};

struct keys_logger {
    char *log_path, *level;
    struct json_number show_level, show_log_origin;
    char *module;
};

struct keys_metrics {
    char *metrics_path;
    struct json_number emit_id;
    struct json_list properties;
};

enum { KEYS_FLUSH_METRICS, KEYS_INSTANCE_START, KEYS_SEND_CTRL_ALT_DEL };
struct keys_action {
    struct json_number action_type;
};

enum { KEYS_PAUSED, KEYS_RESUMED };
struct keys_vm {
    struct json_number state;
};

/* PUT /vm/shutdown: our own. */
struct keys_shutdown {
    struct json_number timeout_ms;
};

struct keys_mmds_config {
    struct json_number version;
    struct json_list network_interfaces;
    char *ipv4_address;
    struct json_number imds_compat;
};

struct keys_vsock {
    char *vsock_id;
    struct json_number guest_cid;
    char *uds_path;
};

struct keys_balloon {
    struct json_number amount_mib, deflate_on_oom, stats_polling_interval_s, free_page_hinting,
        free_page_reporting;
};

struct keys_balloon_update {
    struct json_number amount_mib;
};

struct keys_balloon_stats {
    struct json_number stats_polling_interval_s;
};

struct keys_hinting {
    struct json_number acknowledge_on_stop;
};

struct keys_pmem {
    char *id, *path_on_host;
    struct json_number root_device, read_only;
    struct keys_rate_limiter *rate_limiter;
};

struct keys_pmem_update {
    char *id;
    struct keys_rate_limiter *rate_limiter;
};

struct keys_memory_hotplug {
    struct json_number total_size_mib, block_size_mib, slot_size_mib;
};

struct keys_memory_hotplug_update {
    struct json_number requested_size_mib;
};

enum { KEYS_DIFF, KEYS_FULL };
struct keys_snapshot_create {
    struct json_number snapshot_type;
    char *snapshot_path, *mem_file_path;
};

enum { KEYS_FILE, KEYS_UFFD };
struct keys_mem_backend {
    char *backend_path;
    struct json_number backend_type;
};

struct keys_network_override {
    char *iface_id, *host_dev_name;
};

struct keys_vsock_override {
    char *uds_path;
};

enum { KEYS_RESTORE_SNAPSHOT, KEYS_RESTORE_NONE, KEYS_RESTORE_TRANSPARENT, KEYS_RESTORE_2M };
struct keys_snapshot_load {
    char *snapshot_path, *mem_file_path;
    struct keys_mem_backend *mem_backend;
    struct json_number enable_diff_snapshots, track_dirty_pages, resume_vm;
    struct json_list network_overrides;
    struct keys_vsock_override *vsock_override;
    struct json_number clock_realtime, huge_pages;
};

struct keys_fork {
    struct json_number count, resume_vm;
    struct json_list ids;
};

struct keys_cpuid_register {
    char *reg, *bitmap;
};

struct keys_cpuid_leaf {
    char *leaf, *subleaf;
    struct json_number flags;
    struct json_list modifiers;
};

struct keys_msr {
    char *addr, *bitmap;
};

struct keys_cpu {
    struct json_list kvm_capabilities, cpuid_modifiers, msr_modifiers;
};

extern const struct json_struct keys_rate_limiter_struct, keys_machine_struct, keys_machine_update_struct,
    keys_boot_source_struct, keys_drive_struct, keys_drive_update_struct, keys_net_struct,
    keys_net_update_struct, keys_entropy_struct, keys_serial_struct, keys_logger_struct, keys_metrics_struct,
    keys_action_struct, keys_vm_struct, keys_shutdown_struct, keys_mmds_config_struct, keys_vsock_struct,
    keys_balloon_struct, keys_balloon_update_struct, keys_balloon_stats_struct, keys_hinting_struct,
    keys_pmem_struct, keys_pmem_update_struct, keys_memory_hotplug_struct, keys_memory_hotplug_update_struct,
    keys_snapshot_create_struct, keys_snapshot_load_struct, keys_fork_struct, keys_cpu_struct;

/* The whole configuration: what a configuration file has and what GET /vm/config shows. */
struct keys_config {
    struct keys_balloon *balloon;
    struct json_list drives; /* of struct keys_drive; the root device, if there is one, is the first */
    struct keys_boot_source *boot_source;
    struct keys_cpu *cpu_config;
    struct keys_logger *logger;
    struct keys_machine *machine_config;
    struct keys_metrics *metrics;
    struct keys_mmds_config *mmds_config;
    struct json_list network_interfaces; /* of struct keys_net */
    struct keys_vsock *vsock;
    struct keys_entropy *entropy;
    struct json_list pmem; /* of struct keys_pmem */
    struct keys_memory_hotplug *memory_hotplug;
    struct keys_serial *serial; /* our own; not shown when absent */
};

extern const struct json_struct keys_config_struct;
