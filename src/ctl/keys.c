#include "ctl/keys.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define VARIANTS(...)                                                                                        \
    (const char *const[])                                                                                    \
    {                                                                                                        \
        __VA_ARGS__, NULL                                                                                    \
    }

/* A row of the table of struct `s`. What else a kind needs (variants, of, check, fallback) follows the
 * presence. */
#define FIELD(s, member, kind_, presence_, ...)                                                              \
    {                                                                                                        \
        .name = #member, .kind = (kind_), .presence = (presence_), .offset = offsetof(struct s, member),     \
        __VA_ARGS__                                                                                          \
    }

#define STRUCT(s, rust_name, ...)                                                                            \
    static const struct json_field s##_fields[] = {__VA_ARGS__};                                             \
    const struct json_struct s##_struct = {.name = (rust_name),                                              \
                                           .fields = s##_fields,                                             \
                                           .count = ARRAY_SIZE(s##_fields),                                  \
                                           .size = sizeof(struct s)}

/* One whose unknown keys are passed over, as Firecracker does it for these. */
#define OPEN_STRUCT(s, rust_name, ...)                                                                       \
    static const struct json_field s##_fields[] = {__VA_ARGS__};                                             \
    const struct json_struct s##_struct = {.name = (rust_name),                                              \
                                           .fields = s##_fields,                                             \
                                           .count = ARRAY_SIZE(s##_fields),                                  \
                                           .size = sizeof(struct s),                                         \
                                           .others = true}
/* ---- What is checked inside strings, with Firecracker's words ---- */

static char *check_mac(const char *text)
{
    size_t length = strlen(text);
    bool good = length == 17;
    for (size_t i = 0; good && i < length; i++)
        good = i % 3 == 2 ? text[i] == ':' : isxdigit((unsigned char)text[i]) != 0;
    return good ? NULL : strdup("The provided MAC address is invalid.");
}

static char *check_level(const char *text)
{
    static const char *const levels[] = {"off", "trace", "debug", "info", "warn", "warning", "error"};
    for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
        if (strcasecmp(text, levels[i]) == 0)
            return NULL;
    return strdup("Invalid LevelFilter");
}

static char *complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *complain(const char *format, ...)
{
    char *message = NULL;
    va_list arguments;
    va_start(arguments, format);
    int r = vasprintf(&message, format, arguments);
    va_end(arguments);
    return r < 0 ? NULL : message;
}

/* "0b101", "0xff": 32 bits. */
static char *check_prefixed_u32(const char *text)
{
    int base = strncmp(text, "0b", 2) == 0 ? 2 : strncmp(text, "0x", 2) == 0 ? 16 : 0;
    if (!base)
        return complain(
            "No supported number system prefix found in value [%s]. Make sure to prefix the number with "
            "'0x' for hexadecimal numbers or '0b' for binary numbers.",
            text);
    const char *digits = text + 2 + (text[2] == '+'), *why = NULL;
    char *end = NULL;
    errno = 0;
    unsigned long long value = isxdigit((unsigned char)*digits) ? strtoull(digits, &end, base) : 0;
    if (!text[2])
        why = "Empty";
    else if (!end || *end)
        why = "InvalidDigit";
    else if (errno || value > UINT32_MAX)
        why = "PosOverflow";
    return why ? complain(
                     "Failed to parse string [%s] as a number for CPU template - ParseIntError { kind: %s }",
                     text, why)
               : NULL;
}

static char *check_bitmap(const char *text, unsigned bits)
{
    const char *digits = strncmp(text, "0b", 2) == 0 ? text + 2 : text;
    unsigned count = 0;
    for (size_t i = strlen(digits); i > 0; i--) {
        char digit = digits[i - 1];
        if (count == bits)
            return complain("Failed to parse string [%s] as a bitmap - string is too long", text);
        if (digit != '_' && digit != 'x' && digit != '0' && digit != '1')
            return complain("Failed to parse string [%s] as a bitmap - unknown character: %u", text,
                            (unsigned char)digit);
        count += digit != '_';
    }
    return NULL;
}

static char *check_bitmap_u32(const char *text)
{
    return check_bitmap(text, 32);
}

static char *check_bitmap_u64(const char *text)
{
    return check_bitmap(text, 64);
}

static char *check_register(const char *text)
{
    if (strlen(text) == 3 && text[0] == 'e' && strchr("abcd", text[1]) && text[2] == 'x')
        return NULL;
    return strdup("Invalid CPUID register. Must be one of [eax, ebx, ecx, edx]");
}

/* ---- The tables ---- */

OPEN_STRUCT(keys_token_bucket, "TokenBucketConfig", FIELD(keys_token_bucket, size, JSON_U64, JSON_REQUIRED),
            FIELD(keys_token_bucket, one_time_burst, JSON_U64, JSON_OPTIONAL),
            FIELD(keys_token_bucket, refill_time, JSON_U64, JSON_REQUIRED));

STRUCT(keys_rate_limiter, "RateLimiterConfig",
       FIELD(keys_rate_limiter, bandwidth, JSON_STRUCT, JSON_OPTIONAL, .of = &keys_token_bucket_struct),
       FIELD(keys_rate_limiter, ops, JSON_STRUCT, JSON_OPTIONAL, .of = &keys_token_bucket_struct));

#define LIMITER(s, member) FIELD(s, member, JSON_STRUCT, JSON_OPTIONAL, .of = &keys_rate_limiter_struct)

static const char *const huge_pages[] = {"None", "Transparent", "2M", NULL};
static const char *const templates[] = {"C3", "T2", "T2S", "None", "T2CL", "T2A", NULL};

STRUCT(keys_machine, "MachineConfig", FIELD(keys_machine, vcpu_count, JSON_U8, JSON_REQUIRED),
       FIELD(keys_machine, mem_size_mib, JSON_USIZE, JSON_REQUIRED),
       FIELD(keys_machine, smt, JSON_BOOL, JSON_DEFAULTED),
       FIELD(keys_machine, cpu_template, JSON_ENUM, JSON_HIDDEN, .variants = templates),
       FIELD(keys_machine, track_dirty_pages, JSON_BOOL, JSON_DEFAULTED),
       FIELD(keys_machine, huge_pages, JSON_ENUM, JSON_DEFAULTED, .variants = huge_pages));

static const struct json_field keys_machine_update_fields[] = {
    FIELD(keys_machine, vcpu_count, JSON_U8, JSON_HIDDEN),
    FIELD(keys_machine, mem_size_mib, JSON_USIZE, JSON_HIDDEN),
    FIELD(keys_machine, smt, JSON_BOOL, JSON_HIDDEN),
    FIELD(keys_machine, cpu_template, JSON_ENUM, JSON_HIDDEN, .variants = templates),
    FIELD(keys_machine, track_dirty_pages, JSON_BOOL, JSON_HIDDEN),
    FIELD(keys_machine, huge_pages, JSON_ENUM, JSON_HIDDEN, .variants = huge_pages),
};
const struct json_struct keys_machine_update_struct = {
    .name = "MachineConfigUpdate",
    .fields = keys_machine_update_fields,
    .count = ARRAY_SIZE(keys_machine_update_fields),
    .size = sizeof(struct keys_machine),
};

STRUCT(keys_boot_source, "BootSourceConfig",
       FIELD(keys_boot_source, kernel_image_path, JSON_STRING, JSON_REQUIRED),
       FIELD(keys_boot_source, initrd_path, JSON_STRING, JSON_OPTIONAL),
       FIELD(keys_boot_source, boot_args, JSON_STRING, JSON_OPTIONAL));

STRUCT(keys_drive, "BlockDeviceConfig", FIELD(keys_drive, drive_id, JSON_STRING, JSON_REQUIRED),
       FIELD(keys_drive, partuuid, JSON_STRING, JSON_OPTIONAL),
       FIELD(keys_drive, is_root_device, JSON_BOOL, JSON_REQUIRED),
       FIELD(keys_drive, cache_type, JSON_ENUM, JSON_DEFAULTED, .variants = VARIANTS("Unsafe", "Writeback")),
       FIELD(keys_drive, is_read_only, JSON_BOOL, JSON_OPTIONAL),
       FIELD(keys_drive, path_on_host, JSON_STRING, JSON_OPTIONAL), LIMITER(keys_drive, rate_limiter),
       FIELD(keys_drive, io_engine, JSON_ENUM, JSON_OPTIONAL, .variants = VARIANTS("Async", "Sync")),
       FIELD(keys_drive, socket, JSON_STRING, JSON_OPTIONAL));

STRUCT(keys_drive_update, "BlockDeviceUpdateConfig",
       FIELD(keys_drive_update, drive_id, JSON_STRING, JSON_REQUIRED),
       FIELD(keys_drive_update, path_on_host, JSON_STRING, JSON_OPTIONAL),
       LIMITER(keys_drive_update, rate_limiter));

STRUCT(keys_net, "NetworkInterfaceConfig", FIELD(keys_net, iface_id, JSON_STRING, JSON_REQUIRED),
       FIELD(keys_net, host_dev_name, JSON_STRING, JSON_REQUIRED),
       FIELD(keys_net, guest_mac, JSON_STRING, JSON_OPTIONAL, .check = check_mac),
       FIELD(keys_net, mtu, JSON_U16, JSON_OPTIONAL), LIMITER(keys_net, rx_rate_limiter),
       LIMITER(keys_net, tx_rate_limiter));

STRUCT(keys_net_update, "NetworkInterfaceUpdateConfig",
       FIELD(keys_net_update, iface_id, JSON_STRING, JSON_REQUIRED),
       LIMITER(keys_net_update, rx_rate_limiter), LIMITER(keys_net_update, tx_rate_limiter));

STRUCT(keys_entropy, "EntropyDeviceConfig", LIMITER(keys_entropy, rate_limiter));

STRUCT(keys_serial, "SerialConfig", FIELD(keys_serial, serial_out_path, JSON_PATH, JSON_OPTIONAL),
       FIELD(keys_serial, rate_limiter, JSON_STRUCT, JSON_OPTIONAL, .of = &keys_token_bucket_struct));

STRUCT(keys_logger, "LoggerConfig", FIELD(keys_logger, log_path, JSON_PATH, JSON_OPTIONAL),
       FIELD(keys_logger, level, JSON_STRING, JSON_OPTIONAL, .check = check_level),
       FIELD(keys_logger, show_level, JSON_BOOL, JSON_OPTIONAL),
       FIELD(keys_logger, show_log_origin, JSON_BOOL, JSON_OPTIONAL),
       FIELD(keys_logger, module, JSON_STRING, JSON_OPTIONAL));

OPEN_STRUCT(keys_metrics, "MetricsConfig", FIELD(keys_metrics, metrics_path, JSON_PATH, JSON_REQUIRED),
            FIELD(keys_metrics, emit_id, JSON_BOOL, JSON_DEFAULTED),
            FIELD(keys_metrics, properties, JSON_MAP, JSON_HIDDEN));

STRUCT(keys_action, "ActionBody",
       FIELD(keys_action, action_type, JSON_ENUM, JSON_REQUIRED,
             .variants = VARIANTS("FlushMetrics", "InstanceStart", "SendCtrlAltDel")));

STRUCT(keys_vm, "Vm",
       FIELD(keys_vm, state, JSON_ENUM, JSON_REQUIRED, .variants = VARIANTS("Paused", "Resumed")));

STRUCT(keys_shutdown, "Shutdown",
       FIELD(keys_shutdown, timeout_ms, JSON_U32, JSON_DEFAULTED, .fallback = 30000));

STRUCT(keys_mmds_config, "MmdsConfig",
       FIELD(keys_mmds_config, version, JSON_ENUM, JSON_DEFAULTED, .variants = VARIANTS("V1", "V2")),
       FIELD(keys_mmds_config, network_interfaces, JSON_STRINGS, JSON_REQUIRED),
       FIELD(keys_mmds_config, ipv4_address, JSON_IPV4, JSON_OPTIONAL),
       FIELD(keys_mmds_config, imds_compat, JSON_BOOL, JSON_DEFAULTED));

STRUCT(keys_vsock, "VsockDeviceConfig", FIELD(keys_vsock, vsock_id, JSON_STRING, JSON_HIDDEN),
       FIELD(keys_vsock, guest_cid, JSON_U32, JSON_REQUIRED),
       FIELD(keys_vsock, uds_path, JSON_STRING, JSON_REQUIRED));

STRUCT(keys_balloon, "BalloonDeviceConfig", FIELD(keys_balloon, amount_mib, JSON_U32, JSON_REQUIRED),
       FIELD(keys_balloon, deflate_on_oom, JSON_BOOL, JSON_REQUIRED),
       FIELD(keys_balloon, stats_polling_interval_s, JSON_U16, JSON_DEFAULTED),
       FIELD(keys_balloon, free_page_hinting, JSON_BOOL, JSON_DEFAULTED),
       FIELD(keys_balloon, free_page_reporting, JSON_BOOL, JSON_DEFAULTED));

STRUCT(keys_balloon_update, "BalloonUpdateConfig",
       FIELD(keys_balloon_update, amount_mib, JSON_U32, JSON_REQUIRED));

STRUCT(keys_balloon_stats, "BalloonUpdateStatsConfig",
       FIELD(keys_balloon_stats, stats_polling_interval_s, JSON_U16, JSON_REQUIRED));

OPEN_STRUCT(keys_hinting, "StartHintingCmd",
            FIELD(keys_hinting, acknowledge_on_stop, JSON_BOOL, JSON_DEFAULTED, .fallback = true));

STRUCT(keys_pmem, "PmemConfig", FIELD(keys_pmem, id, JSON_STRING, JSON_REQUIRED),
       FIELD(keys_pmem, path_on_host, JSON_STRING, JSON_REQUIRED),
       FIELD(keys_pmem, root_device, JSON_BOOL, JSON_DEFAULTED),
       FIELD(keys_pmem, read_only, JSON_BOOL, JSON_DEFAULTED), LIMITER(keys_pmem, rate_limiter));

STRUCT(keys_pmem_update, "PmemDeviceUpdateConfig", FIELD(keys_pmem_update, id, JSON_STRING, JSON_REQUIRED),
       LIMITER(keys_pmem_update, rate_limiter));

STRUCT(keys_memory_hotplug, "MemoryHotplugConfig",
       FIELD(keys_memory_hotplug, total_size_mib, JSON_U32, JSON_REQUIRED),
       FIELD(keys_memory_hotplug, block_size_mib, JSON_U32, JSON_DEFAULTED, .fallback = 2),
       FIELD(keys_memory_hotplug, slot_size_mib, JSON_U32, JSON_DEFAULTED, .fallback = 128));

STRUCT(keys_memory_hotplug_update, "MemoryHotplugSizeUpdate",
       FIELD(keys_memory_hotplug_update, requested_size_mib, JSON_U32, JSON_REQUIRED));

STRUCT(keys_snapshot_create, "CreateSnapshotParams",
       FIELD(keys_snapshot_create, snapshot_type, JSON_ENUM, JSON_DEFAULTED, .fallback = 1,
             .variants = VARIANTS("Diff", "Full")),
       FIELD(keys_snapshot_create, snapshot_path, JSON_PATH, JSON_REQUIRED),
       FIELD(keys_snapshot_create, mem_file_path, JSON_PATH, JSON_REQUIRED));

STRUCT(keys_mem_backend, "MemBackendConfig", FIELD(keys_mem_backend, backend_path, JSON_PATH, JSON_REQUIRED),
       FIELD(keys_mem_backend, backend_type, JSON_ENUM, JSON_REQUIRED, .variants = VARIANTS("File", "Uffd")));

OPEN_STRUCT(keys_network_override, "NetworkOverride",
            FIELD(keys_network_override, iface_id, JSON_STRING, JSON_REQUIRED),
            FIELD(keys_network_override, host_dev_name, JSON_STRING, JSON_REQUIRED));

OPEN_STRUCT(keys_vsock_override, "VsockOverride",
            FIELD(keys_vsock_override, uds_path, JSON_STRING, JSON_REQUIRED));

STRUCT(keys_snapshot_load, "LoadSnapshotConfig",
       FIELD(keys_snapshot_load, snapshot_path, JSON_PATH, JSON_REQUIRED),
       FIELD(keys_snapshot_load, mem_file_path, JSON_PATH, JSON_OPTIONAL),
       FIELD(keys_snapshot_load, mem_backend, JSON_STRUCT, JSON_OPTIONAL, .of = &keys_mem_backend_struct),
       FIELD(keys_snapshot_load, enable_diff_snapshots, JSON_BOOL, JSON_DEFAULTED),
       FIELD(keys_snapshot_load, track_dirty_pages, JSON_BOOL, JSON_DEFAULTED),
       FIELD(keys_snapshot_load, resume_vm, JSON_BOOL, JSON_DEFAULTED),
       FIELD(keys_snapshot_load, network_overrides, JSON_STRUCTS, JSON_DEFAULTED,
             .of = &keys_network_override_struct),
       FIELD(keys_snapshot_load, vsock_override, JSON_STRUCT, JSON_OPTIONAL,
             .of = &keys_vsock_override_struct),
       FIELD(keys_snapshot_load, clock_realtime, JSON_BOOL, JSON_DEFAULTED),
       FIELD(keys_snapshot_load, huge_pages, JSON_ENUM, JSON_DEFAULTED,
             .variants = VARIANTS("Snapshot", "None", "Transparent", "2M")));

STRUCT(keys_fork, "ForkConfig", FIELD(keys_fork, count, JSON_U32, JSON_DEFAULTED, .fallback = 1),
       FIELD(keys_fork, ids, JSON_STRINGS, JSON_DEFAULTED),
       FIELD(keys_fork, resume_vm, JSON_BOOL, JSON_DEFAULTED, .fallback = 1));

static const struct json_field keys_cpuid_register_fields[] = {
    {.name = "register",
     .kind = JSON_STRING,
     .presence = JSON_REQUIRED,
     .offset = offsetof(struct keys_cpuid_register, reg),
     .check = check_register},
    FIELD(keys_cpuid_register, bitmap, JSON_STRING, JSON_REQUIRED, .check = check_bitmap_u32),
};
static const struct json_struct keys_cpuid_register_struct = {
    .name = "CpuidRegisterModifier",
    .fields = keys_cpuid_register_fields,
    .count = ARRAY_SIZE(keys_cpuid_register_fields),
    .size = sizeof(struct keys_cpuid_register),
    .others = true,
};

OPEN_STRUCT(keys_cpuid_leaf, "CpuidLeafModifier",
            FIELD(keys_cpuid_leaf, leaf, JSON_STRING, JSON_REQUIRED, .check = check_prefixed_u32),
            FIELD(keys_cpuid_leaf, subleaf, JSON_STRING, JSON_REQUIRED, .check = check_prefixed_u32),
            FIELD(keys_cpuid_leaf, flags, JSON_U32, JSON_REQUIRED),
            FIELD(keys_cpuid_leaf, modifiers, JSON_STRUCTS, JSON_REQUIRED,
                  .of = &keys_cpuid_register_struct));

OPEN_STRUCT(keys_msr, "RegisterModifier",
            FIELD(keys_msr, addr, JSON_STRING, JSON_REQUIRED, .check = check_prefixed_u32),
            FIELD(keys_msr, bitmap, JSON_STRING, JSON_REQUIRED, .check = check_bitmap_u64));

/* "123", or "!123" for a capability that need not be there. */
static char *check_capability(const char *text)
{
    const char *digits = text + (text[0] == '!'), *why = NULL;
    digits += *digits == '+' && digits[1];
    char *end = NULL;
    errno = 0;
    unsigned long long value = isdigit((unsigned char)*digits) ? strtoull(digits, &end, 10) : 0;
    if (!*digits)
        why = "cannot parse integer from empty string";
    else if (!end || *end)
        why = "invalid digit found in string";
    else if (errno || value > UINT32_MAX)
        why = "number too large to fit in target type";
    return why ? complain("Failed to parse string [%s] as a kvm capability - can not convert to numeric: %s",
                          text, why)
               : NULL;
}

STRUCT(keys_cpu, "CustomCpuTemplate",
       FIELD(keys_cpu, kvm_capabilities, JSON_STRINGS, JSON_DEFAULTED, .check = check_capability),
       FIELD(keys_cpu, cpuid_modifiers, JSON_STRUCTS, JSON_DEFAULTED, .of = &keys_cpuid_leaf_struct),
       FIELD(keys_cpu, msr_modifiers, JSON_STRUCTS, JSON_DEFAULTED, .of = &keys_msr_struct));

/* The configuration's keys have hyphens. */
#define SECTION(key, member_, kind_, presence_, of_)                                                         \
    {                                                                                                        \
        .name = (key), .kind = (kind_), .presence = (presence_),                                             \
        .offset = offsetof(struct keys_config, member_), .of = &(of_)                                        \
    }

static const struct json_field keys_config_fields[] = {
    SECTION("balloon", balloon, JSON_STRUCT, JSON_OPTIONAL, keys_balloon_struct),
    SECTION("drives", drives, JSON_STRUCTS, JSON_REQUIRED, keys_drive_struct),
    SECTION("boot-source", boot_source, JSON_STRUCT, JSON_REQUIRED, keys_boot_source_struct),
    SECTION("cpu-config", cpu_config, JSON_STRUCT, JSON_OPTIONAL, keys_cpu_struct),
    SECTION("logger", logger, JSON_STRUCT, JSON_OPTIONAL, keys_logger_struct),
    SECTION("machine-config", machine_config, JSON_STRUCT, JSON_OPTIONAL, keys_machine_struct),
    SECTION("metrics", metrics, JSON_STRUCT, JSON_OPTIONAL, keys_metrics_struct),
    SECTION("mmds-config", mmds_config, JSON_STRUCT, JSON_OPTIONAL, keys_mmds_config_struct),
    SECTION("network-interfaces", network_interfaces, JSON_STRUCTS, JSON_DEFAULTED, keys_net_struct),
    SECTION("vsock", vsock, JSON_STRUCT, JSON_OPTIONAL, keys_vsock_struct),
    SECTION("entropy", entropy, JSON_STRUCT, JSON_OPTIONAL, keys_entropy_struct),
    SECTION("pmem", pmem, JSON_STRUCTS, JSON_DEFAULTED, keys_pmem_struct),
    SECTION("memory-hotplug", memory_hotplug, JSON_STRUCT, JSON_OPTIONAL, keys_memory_hotplug_struct),
    SECTION("serial", serial, JSON_STRUCT, JSON_HIDDEN, keys_serial_struct),
};
const struct json_struct keys_config_struct = {
    .name = "VmmConfig",
    .fields = keys_config_fields,
    .count = ARRAY_SIZE(keys_config_fields),
    .size = sizeof(struct keys_config),
    .others = true,
};
