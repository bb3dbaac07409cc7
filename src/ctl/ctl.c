#include "ctl/api.h"
#include "ctl/firecracker.h"

#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A configuration or metadata file is read as a whole. */
#define FILE_MAX (16 * MIB)

int ctl_check_id(const char *id)
{
    size_t length = strlen(id);
    if (length == 0 || length > 64)
        return fail(-EINVAL, "--id: Invalid len (%zu);  the length must be between 1 and 64", length);
    for (size_t i = 0; i < length; i++)
        if (id[i] != '-' && !isalnum((unsigned char)id[i]))
            return fail(-EINVAL, "--id: Invalid char (%c) at position %zu", id[i], i);
    return 0;
}

struct machine *ctl_machine(const struct ctl *ctl)
{
    return ctl->machine;
}

void ctl_log(struct ctl *ctl, bool is_error, const char *format, ...)
{
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    logger_say(&ctl->logger, is_error ? LOGGER_ERROR : LOGGER_INFO, ctl->config.firecracker ? "main" : "vm",
               "%s", message);
}

/* ---- Files ---- */

/* `what` is how Firecracker speaks of it when it cannot be opened. */
static int read_file(const char *path, const char *what, struct text *text)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    char buffer[16384];
    ssize_t length;
    if (fd < 0)
        return fail_errno(-errno, "Unable to open or read from %s: %s", what, path);
    while ((length = read(fd, buffer, sizeof(buffer))) > 0 && text->length <= FILE_MAX)
        text_add(text, buffer, (size_t)length);
    if (length < 0)
        return fail_errno(-errno, "%s", path);
    if (text->length > FILE_MAX)
        return fail(-EFBIG, "%s: has more than %llu MiB", path, (unsigned long long)(FILE_MAX / MIB));
    return text->failed ? fail(-ENOMEM, "%s: no memory for it", path) : 0;
}

/* Firecracker's words before those of an error that ends it; none under our own name. */
static const char *ending_words(const struct ctl *ctl)
{
    if (!ctl->config.firecracker)
        return "";
    return ctl->config.socket_path ? "RunWithApiError error: " : "RunWithoutApiError error: ";
}

/* An error of the configuration file. `kind` and `words` are what requests are told, where Firecracker says
 * it in other words for a file. */
static void file_fault(const struct ctl *ctl, const char *path, int error, const char *kind,
                       const char *words)
{
    static const char *const other[][2] = {{"Machine config error:", "VM config error:"},
                                           {"Drive config error:", "Block device error:"},
                                           {"Network config error:", "Network device error:"},
                                           {"MMMDS config error:", "MMDS config error:"}};
    if (!ctl->config.firecracker) {
        (void)fail(error, "%s: %s", path, words);
        return;
    }
    const char *first = "";
    for (size_t i = 0; i < ARRAY_SIZE(other); i++)
        if (strncmp(words, other[i][0], strlen(other[i][0])) == 0) {
            words += strlen(other[i][0]);
            first = other[i][1];
        }
    (void)fail(error,
               "%sFailed to build MicroVM from Json: Configuration for VMM from one single json failed: "
               "%s%s%s",
               ending_words(ctl), kind, first, words);
}

/* Has one section of the file go through the function of its request; its words become the file's. */
static int apply(struct ctl *ctl, const char *path, api_function *run, void *object)
{
    struct api_call call = {.ctl = ctl};
    if (!object)
        return 0;
    int r = run(&call, object);
    if (r < 0)
        file_fault(ctl, path, r, "", call.fault.at ? call.fault.at : "");
    text_free(&call.fault);
    return r;
}

static int apply_file(struct ctl *ctl, const char *path, struct keys_config *file)
{
    int r = apply(ctl, path, api_put_logger, file->logger);
    if (r == 0)
        r = apply(ctl, path, api_put_metrics, file->metrics);
    if (r == 0)
        r = apply(ctl, path, api_put_machine_config, file->machine_config);
    if (r == 0)
        r = apply(ctl, path, api_put_cpu_config, file->cpu_config);
    if (r == 0)
        r = apply(ctl, path, api_put_boot_source, file->boot_source);
    for (size_t i = 0; r == 0 && i < file->drives.count; i++)
        r = apply(ctl, path, api_put_drive, (struct keys_drive *)file->drives.items + i);
    for (size_t i = 0; r == 0 && i < file->network_interfaces.count; i++)
        r = apply(ctl, path, api_put_net, (struct keys_net *)file->network_interfaces.items + i);
    if (r == 0)
        r = apply(ctl, path, api_put_vsock, file->vsock);
    if (r == 0)
        r = apply(ctl, path, api_put_balloon, file->balloon);
    if (r == 0)
        r = apply(ctl, path, api_put_mmds_config, file->mmds_config);
    if (r == 0)
        r = apply(ctl, path, api_put_entropy, file->entropy);
    for (size_t i = 0; r == 0 && i < file->pmem.count; i++)
        r = apply(ctl, path, api_put_pmem, (struct keys_pmem *)file->pmem.items + i);
    if (r == 0)
        r = apply(ctl, path, api_put_memory_hotplug, file->memory_hotplug);
    if (r == 0)
        r = apply(ctl, path, api_put_serial, file->serial);
    return r;
}

static int read_config_file(struct ctl *ctl)
{
    const char *path = ctl->config.config_file;
    CLEANUP_TEXT struct text text = {0};
    struct json_error error = {0};
    struct keys_config file;
    int r = read_file(path, "the configuration file", &text);
    if (r < 0)
        return r;
    r = json_read(text.at, text.length, &keys_config_struct, &file, &error);
    if (r < 0)
        file_fault(ctl, path, r, "Invalid JSON: ", error.message.at ? error.message.at : "out of memory");
    else
        r = apply_file(ctl, path, &file);
    json_free(&keys_config_struct, &file);
    text_free(&error.message);
    return r;
}

static int read_metadata(struct ctl *ctl)
{
    const char *path = ctl->config.metadata_file;
    CLEANUP_TEXT struct text text = {0};
    struct json_error error = {0};
    int r = read_file(path, "the mmds content file", &text);
    if (r < 0)
        return r;
    r = json_value_read(text.at, text.length, &ctl->metadata, &error);
    if (r < 0)
        r = fail(r, "%s: MMDS error: metadata provided not valid json: %s", path,
                 error.message.at ? error.message.at : "out of memory");
    else if (text.length > ctl->config.metadata_max)
        r = fail(-EFBIG, "%s: Populating MMDS from file failed: The MMDS patch request doesn't fit.", path);
    else
        ctl_log(ctl, false, "Successfully added metadata to mmds from file");
    text_free(&error.message);
    return r;
}

/* ---- Life ---- */

static void changed(void *context, enum machine_state state)
{
    api_state_changed(context, state);
}

/* From the launcher's clock to a socket that answers. */
static void note_startup(struct ctl *ctl)
{
    const struct ctl_config *config = &ctl->config;
    if (config->start_us)
        ctl->metrics.startup_us = api_now_us() - config->start_us;
    if (config->start_cpu_us)
        ctl->metrics.startup_cpu_us = metrics_cpu_us() - config->start_cpu_us + config->parent_cpu_us;
}

/* SIGTERM and SIGINT are no surprise. */
static void signalled(void *context, int number)
{
    struct ctl *ctl = context;
    if (ctl->config.firecracker && number == SIGHUP)
        api_signalled(ctl, number);
}

static void booted(void *context)
{
    struct ctl *ctl = context;
    uint64_t us = machine_age(ctl->machine) / 1000;
    uint64_t cpu_us = metrics_cpu_us() - ctl->start_cpu_us;
    logger_say(&ctl->logger, LOGGER_INFO, ctl->config.firecracker ? "fc_vcpu 0" : "vm",
               "Guest-boot-time = %6llu us %llu ms, %6llu CPU us %llu CPU ms", (unsigned long long)us,
               (unsigned long long)us / 1000, (unsigned long long)cpu_us, (unsigned long long)cpu_us / 1000);
}

static void connected(void *context, pid_t pid, uid_t uid)
{
    struct ctl *ctl = context;
    logger_say_limited(&ctl->logger, LOGGER_DEBUG, api_log_name(ctl), "Process %d of user %u has connected.",
                       pid, uid);
}

static int open_log(struct ctl *ctl)
{
    struct logger *logger = &ctl->logger;
    if (ctl->config.log_level && !logger_level_of(ctl->config.log_level, &logger->level))
        return fail(-EINVAL, "--level '%s': give Off, Error, Warn, Info, Debug or Trace",
                    ctl->config.log_level);
    if (ctl->config.firecracker)
        logger->fd = STDOUT_FILENO; /* until it is told another place */
    logger->show_level = ctl->config.log_show_level;
    logger->show_origin = ctl->config.log_show_origin;
    int r = api_set_text(&logger->module, ctl->config.log_module);
    if (r == 0 && ctl->config.log_path) {
        r = logger_open(logger, ctl->config.log_path);
        if (r < 0 && ctl->config.firecracker)
            return fail(r, "Could not initialize logger: Failed to open target file: %s", api_os_error(r));
        if (r < 0)
            return fail_errno(r, "--log-path %s", ctl->config.log_path);
    }
    return r;
}

static int open_metrics(struct ctl *ctl)
{
    struct keys_metrics wanted = {.emit_id = {false, true}};
    struct api_call call = {.ctl = ctl};
    int r = api_set_text(&wanted.metrics_path, ctl->config.metrics_path);
    if (r == 0)
        r = api_put_metrics(&call, &wanted);
    if (r < 0 && call.fault.at) { /* without the "Metrics error: " of a request's words */
        const char *words = strchr(call.fault.at, ':') + 2;
        r = ctl->config.firecracker ? fail(r, "Could not initialize metrics: %s", words)
                                    : fail(r, "--metrics-path %s: %s", ctl->config.metrics_path, words);
    }
    text_free(&call.fault);
    json_free(&keys_metrics_struct, &wanted);
    return r;
}

static int open_socket(struct ctl *ctl)
{
    const struct ctl_config *config = &ctl->config;
    int r = config->copy ? unix_listener_adopt(config->copy->listen_fd, &ctl->socket)
                         : unix_listener_open(config->socket_path, !config->firecracker, &ctl->socket);
    if (r == -EADDRINUSE && config->firecracker)
        return fail(r, "%sFailed to open the API socket at: %s. Check that it is not already used.",
                    ending_words(ctl), config->socket_path);
    if (r < 0 && config->firecracker)
        return fail(r, "%sFailed to bind and run the HTTP server: IO error: %s", ending_words(ctl),
                    api_os_error(r));
    if (r < 0)
        return r;
    const struct http_config http = {
        .listen_fd = ctl->socket.fd,
        .body_max = config->payload_max,
        .handle = api_handle,
        .connected = connected,
        .context = ctl,
        .server = config->firecracker ? "Firecracker API" : "Stardust",
        .raw_errors = config->firecracker,
    };
    r = http_server_new(ctl->loop, &http, &ctl->http);
    if (r == 0)
        ctl_log(ctl, false, "Listening on API socket (\"%s\").", ctl->socket.path);
    return r;
}

int ctl_new(struct loop *loop, const struct ctl_config *config, const struct config *base,
            struct ctl **ret_ctl, enum machine_status *ret_blame)
{
    static struct ctl ctl; /* the machine's observer, to the end of the process */
    const struct machine_observer observer = {
        .changed = changed, .signalled = signalled, .booted = booted, .context = &ctl};
    ctl = (struct ctl){
        .config = *config, .loop = loop, .base = base, .metrics = {.fd = -1}, .socket = {.fd = -1}};
    config_init(&ctl.built);
    api_name_rows(&ctl.metrics);
    api_init_timers(&ctl);
    logger_init(&ctl.logger, config->id);
    *ret_ctl = &ctl;
    *ret_blame = MACHINE_BAD_CONFIG;
    int r = open_log(&ctl);
    if (r == 0)
        ctl_log(&ctl, false,
                config->firecracker ? "Running Firecracker v%s" : "Running Stardust (API of Firecracker %s)",
                CTL_FIRECRACKER_VERSION);
    if (r == 0)
        r = api_take_config(base, &ctl.keys);
    if (r == 0) {
        *ret_blame = MACHINE_HOST_FAILED;
        r = machine_new(loop, &observer, &ctl.machine);
    }
    if (r < 0)
        return r;
    *ret_blame = MACHINE_BAD_CONFIG;
    r = config->metrics_path ? open_metrics(&ctl) : 0;
    if (r == 0 && config->socket_path)
        r = open_socket(&ctl);
    metrics_open();
    note_startup(&ctl);
    if (r == 0 && config->socket_path)
        logger_say(&ctl.logger, LOGGER_INFO, api_log_name(&ctl), "API server started.");
    if (r == 0 && config->metadata_file)
        r = read_metadata(&ctl);
    if (r == 0 && config->config_file)
        r = read_config_file(&ctl);
    if (r == 0 && config->firecracker)
        r = firecracker_watch_signals(loop, api_signalled, &ctl);
    if (r == 0 && config->pci_wanted)
        logger_say(&ctl.logger, LOGGER_WARN, "main", "There is no PCI: devices are on virtio-mmio.");
    return r;
}

/* The words of a start that failed, without those that say it is one. */
static const char *without_start_words(const char *words)
{
    static const char *const prefixes[] = {"Start microvm error: ", "Load snapshot error: "};
    for (size_t i = 0; words && i < ARRAY_SIZE(prefixes); i++)
        if (strncmp(words, prefixes[i], strlen(prefixes[i])) == 0)
            return words + strlen(prefixes[i]);
    return words ? words : "";
}

int ctl_start(struct ctl *ctl, enum machine_status *ret_blame)
{
    bool restores = ctl->base->restore, copy = ctl->config.copy;
    if (!ctl->keys.boot_source && !restores && !copy)
        return 0;
    struct api_call call = {.ctl = ctl};
    int r = copy ? api_start_copy(&call) : restores ? api_restore_base(&call) : api_start(&call);
    *ret_blame = MACHINE_BAD_CONFIG;
    if (r < 0)
        (void)fail(r, "%s%s%s", ending_words(ctl),
                   ctl->config.firecracker
                       ? "Failed to build MicroVM from Json: Could not Start MicroVM from one single json: "
                       : "",
                   without_start_words(call.fault.at));
    else
        ctl_log(ctl, false, "Successfully started microvm that was configured from one single json");
    text_free(&call.fault);
    return r;
}

void ctl_free(struct ctl *ctl, int status)
{
    char more[48];
    snprintf(more, sizeof(more), ",\"status\":%d", status);
    events_send(&ctl->events, "ended", more);
    (void)api_write_metrics(ctl);
    if (ctl->socket.path)
        unix_listener_remove(&ctl->socket);
    http_server_free(ctl->http);
    json_free(&keys_config_struct, &ctl->keys);
    json_free(&keys_serial_struct, &ctl->serial);
    json_free(&keys_metrics_struct, &ctl->metrics_keys);
    json_value_free(ctl->metadata);
    cleanup_fd(&ctl->metrics.fd);
    free(ctl->metrics.told);
    logger_free(&ctl->logger);
}
