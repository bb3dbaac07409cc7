/* Log, metrics, events. */
#include "ctl/api.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>

/* ---- The log ---- */

int api_put_logger(struct api_call *call, void *object)
{
    struct keys_logger *wanted = object;
    struct logger *logger = &call->ctl->logger;
    int r = wanted->log_path ? logger_open(logger, wanted->log_path) : 0;
    if (r < 0)
        return api_fault(call, -EINVAL, "Logger error: Failed to open target file: %s", api_os_error(r));
    logger->level = LOGGER_INFO;
    if (wanted->level)
        (void)logger_level_of(wanted->level, &logger->level); /* checked when it was read */
    if (wanted->show_level.present)
        logger->show_level = wanted->show_level.value;
    if (wanted->show_log_origin.present)
        logger->show_origin = wanted->show_log_origin.value;
    if (wanted->module) {
        free(logger->module);
        logger->module = wanted->module;
        wanted->module = NULL;
    }
    return 0;
}

/* ---- Metrics ---- */

/* `ids` has room for the drives' names, which stay the configuration's. */
static struct metrics_view view_of(const struct ctl *ctl, const char *ids[CONFIG_DRIVES_MAX])
{
    const struct keys_machine *machine = ctl->keys.machine_config;
    const struct keys_drive *drives = ctl->keys.drives.items;
    for (size_t i = 0; i < ctl->keys.drives.count; i++)
        ids[i] = drives[i].drive_id;
    return (struct metrics_view){
        .id = ctl->config.id,
        .machine = ctl->machine,
        .loop = ctl->loop,
        .drive_ids = ids,
        .limited_log_lines = ctl->logger.limited,
        .connections = ctl->http ? http_connections(ctl->http) : 0,
        .evicted = ctl->http ? http_evicted(ctl->http) : 0,
        .listeners = ctl->events.count,
        .events = ctl->events.sent,
        .missed_log_lines = ctl->logger.missed,
        .memory = machine->mem_size_mib.value * MIB,
        .cpus = (unsigned)machine->vcpu_count.value,
        .drives = (unsigned)ctl->keys.drives.count,
        .emit_id = ctl->metrics_keys.emit_id.value,
    };
}

/* The properties of PUT /metrics, as an object; nothing if there are none. */
static void add_properties(const struct ctl *ctl, struct text *text)
{
    const struct json_list *list = &ctl->metrics_keys.properties;
    for (size_t i = 0; i < list->count; i++) {
        const struct json_pair *pair = (const struct json_pair *)list->items + i;
        text_puts(text, i ? "," : "{");
        text_json_string(text, pair->key, strlen(pair->key));
        text_puts(text, ":");
        text_json_string(text, pair->value, strlen(pair->value));
    }
    if (list->count)
        text_puts(text, "}");
}

int api_write_metrics(struct ctl *ctl)
{
    if (ctl->metrics.fd < 0)
        return 0;
    CLEANUP_TEXT struct text text = {0}, properties = {0};
    const char *ids[CONFIG_DRIVES_MAX];
    struct metrics_view view = view_of(ctl, ids);
    add_properties(ctl, &properties);
    view.properties = properties.at;
    metrics_json(&ctl->metrics, &view, &text);
    struct pollfd writable = {.fd = ctl->metrics.fd, .events = POLLOUT};
    ssize_t written = -1;
    errno = EAGAIN;
    if (!text.failed && poll(&writable, 1, 0) == 1 && (writable.revents & POLLOUT))
        written = write(ctl->metrics.fd, text.at, text.length);
    if (written == (ssize_t)text.length)
        return 0;
    ctl->metrics.lines_failed++;
    return written < 0 ? -errno : -EIO;
}

int api_put_metrics(struct api_call *call, void *object)
{
    static const char words[] =
        "Metrics error: Cannot initialize the metrics system due to bad user input: %s";
    struct keys_metrics *wanted = object;
    struct ctl *ctl = call->ctl;
    if (ctl->metrics.fd >= 0)
        return api_fault(call, -EINVAL, words, "Reinitialization of metrics not allowed.");
    int fd = open(wanted->metrics_path, O_RDWR | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0)
        return api_fault(call, -EINVAL, words, api_os_error(-errno));
    ctl->metrics.fd = fd;
    json_free(&keys_metrics_struct, &ctl->metrics_keys);
    ctl->metrics_keys = *wanted;
    *wanted = (struct keys_metrics){0};
    return 0;
}

int api_get_metrics(struct api_call *call, void *object)
{
    (void)object;
    const char *ids[CONFIG_DRIVES_MAX];
    struct metrics_view view = view_of(call->ctl, ids);
    metrics_prometheus(&call->ctl->metrics, &view, &call->body);
    call->type = "text/plain; version=0.0.4; charset=utf-8";
    return 0;
}

/* ---- Events ---- */

int api_get_events(struct api_call *call, void *object)
{
    (void)object;
    int r = events_listen(&call->ctl->events, call->request);
    if (r < 0)
        return api_fault(call, -EINVAL, "There are %u listeners already.", EVENTS_LISTENERS_MAX);
    call->later = true;
    return 0;
}
