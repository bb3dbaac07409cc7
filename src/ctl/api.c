#include "ctl/api.h"

#include <ctype.h>
#include <string.h>

enum phase { ANY_TIME, BEFORE_START, AFTER_START };

/* Whether the path's second part is an id, and how a wrong one is spoken of. */
enum id_kind { NO_ID, ID, ID_IN_BRACKETS };

struct row {
    enum request_method method;
    const char *first, *second;   /* parts of the path; NULL: whatever follows */
    const char *metric;           /* what it is counted as */
    const struct json_struct *of; /* the body; NULL: none, or the function reads it */
    api_function *run;
    enum phase phase;
    enum id_kind id;
    bool bare; /* a PUT or PATCH that needs no body */
};

/*
 * Every request. The first row that fits counts. Firecracker looks at the first part of a path, and at the
 * second where a row has one, and at nothing behind them.
 */
static const struct row rows[] = {
    {METHOD_GET, "", NULL, "instance_info", NULL, api_get_instance, ANY_TIME, NO_ID, false},
    {METHOD_GET, "balloon", NULL, "balloon", NULL, api_get_balloon, ANY_TIME, NO_ID, false},
    {METHOD_GET, "version", NULL, "vmm_version", NULL, api_get_version, ANY_TIME, NO_ID, false},
    {METHOD_GET, "vm", "config", "vm_config", NULL, api_get_config, ANY_TIME, NO_ID, false},
    {METHOD_GET, "machine-config", NULL, "machine_cfg", NULL, api_get_machine_config, ANY_TIME, NO_ID, false},
    {METHOD_GET, "mmds", NULL, "mmds", NULL, api_get_mmds, ANY_TIME, NO_ID, false},
    {METHOD_GET, "hotplug", "memory", "hotplug_memory", NULL, api_put_memory_hotplug, AFTER_START, NO_ID,
     false},
    {METHOD_GET, "metrics", NULL, "metrics", NULL, api_get_metrics, ANY_TIME, NO_ID, false},
    {METHOD_GET, "sandbox", NULL, "sandbox", NULL, api_get_sandbox, ANY_TIME, NO_ID, false},
    {METHOD_GET, "events", NULL, "events", NULL, api_get_events, ANY_TIME, NO_ID, false},
    {METHOD_PUT, "actions", NULL, "actions", &keys_action_struct, api_put_action, ANY_TIME, NO_ID, false},
    {METHOD_PUT, "balloon", NULL, "balloon", &keys_balloon_struct, api_put_balloon, BEFORE_START, NO_ID,
     false},
    {METHOD_PUT, "boot-source", NULL, "boot_source", &keys_boot_source_struct, api_put_boot_source,
     BEFORE_START, NO_ID, false},
    {METHOD_PUT, "cpu-config", NULL, "cpu_cfg", &keys_cpu_struct, api_put_cpu_config, BEFORE_START, NO_ID,
     false},
    {METHOD_PUT, "drives", NULL, "drive", &keys_drive_struct, api_put_drive, ANY_TIME, ID, false},
    {METHOD_PUT, "pmem", NULL, "pmem", &keys_pmem_struct, api_put_pmem, ANY_TIME, ID, false},
    {METHOD_PUT, "logger", NULL, "logger", &keys_logger_struct, api_put_logger, BEFORE_START, NO_ID, false},
    {METHOD_PUT, "serial", NULL, "serial", &keys_serial_struct, api_put_serial, BEFORE_START, NO_ID, false},
    {METHOD_PUT, "machine-config", NULL, "machine_cfg", &keys_machine_struct, api_put_machine_config,
     BEFORE_START, NO_ID, false},
    {METHOD_PUT, "metrics", NULL, "metrics", &keys_metrics_struct, api_put_metrics, BEFORE_START, NO_ID,
     false},
    {METHOD_PUT, "mmds", "config", "mmds", &keys_mmds_config_struct, api_put_mmds_config, BEFORE_START, NO_ID,
     false},
    {METHOD_PUT, "mmds", NULL, "mmds", NULL, api_put_mmds, ANY_TIME, NO_ID, false},
    {METHOD_PUT, "network-interfaces", NULL, "network", &keys_net_struct, api_put_net, ANY_TIME,
     ID_IN_BRACKETS, false},
    {METHOD_PUT, "snapshot", "create", "snapshot", &keys_snapshot_create_struct, api_put_snapshot_create,
     AFTER_START, NO_ID, false},
    {METHOD_PUT, "snapshot", "load", "snapshot", &keys_snapshot_load_struct, api_put_snapshot_load,
     BEFORE_START, NO_ID, false},
    {METHOD_PUT, "snapshot", NULL, "snapshot", NULL, api_put_snapshot_other, ANY_TIME, NO_ID, false},
    {METHOD_PUT, "vsock", NULL, "vsock", &keys_vsock_struct, api_put_vsock, BEFORE_START, NO_ID, false},
    {METHOD_PUT, "entropy", NULL, "entropy", &keys_entropy_struct, api_put_entropy, BEFORE_START, NO_ID,
     false},
    {METHOD_PUT, "hotplug", "memory", "hotplug_memory", &keys_memory_hotplug_struct, api_put_memory_hotplug,
     BEFORE_START, NO_ID, false},
    {METHOD_PUT, "vm", "power-button", "power_button", NULL, api_put_power_button, AFTER_START, NO_ID, true},
    {METHOD_PUT, "vm", "shutdown", "shutdown", &keys_shutdown_struct, api_put_shutdown, AFTER_START, NO_ID,
     true},
    {METHOD_PUT, "vm", "fork", "fork", &keys_fork_struct, api_put_fork, AFTER_START, NO_ID, false},
    {METHOD_PUT, "vm", "reset", "reset", NULL, api_put_reset, AFTER_START, NO_ID, true},
    {METHOD_PATCH, "balloon", "statistics", "balloon", &keys_balloon_stats_struct, api_patch_balloon_stats,
     AFTER_START, NO_ID, false},
    {METHOD_PATCH, "balloon", "hinting", "balloon", NULL, api_patch_balloon_hinting, ANY_TIME, NO_ID, true},
    {METHOD_PATCH, "balloon", NULL, "balloon", &keys_balloon_update_struct, api_patch_balloon, AFTER_START,
     NO_ID, false},
    {METHOD_PATCH, "drives", NULL, "drive", &keys_drive_update_struct, api_patch_drive, AFTER_START, ID,
     false},
    {METHOD_PATCH, "machine-config", NULL, "machine_cfg", &keys_machine_update_struct,
     api_patch_machine_config, BEFORE_START, NO_ID, false},
    {METHOD_PATCH, "mmds", NULL, "mmds", NULL, api_patch_mmds, ANY_TIME, NO_ID, false},
    {METHOD_PATCH, "network-interfaces", NULL, "network", &keys_net_update_struct, api_patch_net, AFTER_START,
     ID_IN_BRACKETS, false},
    {METHOD_PATCH, "pmem", NULL, "pmem", &keys_pmem_update_struct, api_put_pmem, AFTER_START, ID, false},
    {METHOD_PATCH, "vm", NULL, "vm", &keys_vm_struct, api_patch_vm, AFTER_START, NO_ID, false},
    {METHOD_PATCH, "hotplug", "memory", "hotplug_memory", &keys_memory_hotplug_update_struct,
     api_put_memory_hotplug, AFTER_START, NO_ID, false},
    {METHOD_DELETE, "drives", NULL, "drive", NULL, api_unplug, AFTER_START, ID, false},
    {METHOD_DELETE, "pmem", NULL, "pmem", NULL, api_unplug, AFTER_START, ID, false},
    {METHOD_DELETE, "network-interfaces", NULL, "network", NULL, api_unplug, AFTER_START, ID, false},
};
_Static_assert(ARRAY_SIZE(rows) <= METRICS_ROWS_MAX, "a counter for each row");

static const char *const method_names[] = {"GET", "PUT", "PATCH", "DELETE"};
static const char *const method_words[] = {"Get", "Put", "Patch", "Delete"};

/* ---- From a path to a row ---- */

/* The first two parts of a path, in `copy`. A part that is not there is NULL; the first is at least empty. */
static void split(char *copy, const char **ret_first, const char **ret_second)
{
    char *first = copy + strspn(copy, "/");
    char *slash = strchr(first, '/');
    *ret_first = first;
    *ret_second = NULL;
    if (!slash)
        return;
    *slash = '\0';
    char *second = slash + 1;
    if (!*second)
        return;
    second[strcspn(second, "/")] = '\0';
    *ret_second = second;
}

static const struct row *find_row(const struct http_request *request, const char *first, const char *second)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct row *row = &rows[i];
        if (row->method != request->method || strcmp(row->first, first) != 0)
            continue;
        if (row->second && (!second || strcmp(row->second, second) != 0))
            continue;
        if (!request->body && !row->bare && (row->method == METHOD_PUT || row->method == METHOD_PATCH))
            continue;
        return row;
    }
    return NULL;
}

static int no_row(struct api_call *call, const char *first)
{
    enum request_method method = call->request->method;
    if (call->request->body && method == METHOD_GET)
        return api_fault(call, -EINVAL, "GET request cannot have a body.");
    if (call->request->body && method == METHOD_DELETE)
        return api_fault(call, -EINVAL, "Empty Delete request.");
    if (!call->request->body && (method == METHOD_PUT || method == METHOD_PATCH))
        return api_fault(call, -EINVAL, "Empty %s request.", method_names[method]);
    return api_fault(call, -EINVAL, "Invalid request method and/or path: %s %s.", method_names[method],
                     first);
}

static int check_id(struct api_call *call)
{
    if (!call->id || !*call->id)
        return api_fault(call, -EINVAL, "The ID cannot be empty.");
    for (const char *at = call->id; *at; at++)
        if (*at != '_' && !isalnum((unsigned char)*at))
            return api_fault(call, -EINVAL,
                             "API Resource IDs can only contain alphanumeric characters and underscores.");
    return 0;
}

/* The body names its id in its first member. */
static int match_id(struct api_call *call, enum id_kind kind, const void *object)
{
    const char *named = *(char *const *)object;
    if (call->id && strcmp(call->id, named) == 0)
        return 0;
    if (kind == ID)
        return api_fault(call, -EINVAL, "The id from the path does not match the id from the body!");
    return api_fault(call, -EINVAL, "The id from the path [%s] does not match the id from the body [%s]!",
                     call->id, named);
}

/* Firecracker's deprecated members, which an answer of any kind tells of. */
static bool is_deprecated(const struct json_struct *of, const void *object)
{
    if (of == &keys_machine_struct || of == &keys_machine_update_struct)
        return ((const struct keys_machine *)object)->cpu_template.present;
    if (of == &keys_mmds_config_struct)
        return ((const struct keys_mmds_config *)object)->version.value == 0;
    if (of == &keys_vsock_struct)
        return ((const struct keys_vsock *)object)->vsock_id != NULL;
    if (of == &keys_snapshot_load_struct) {
        const struct keys_snapshot_load *load = object;
        return !load->mem_backend != !load->mem_file_path &&
               (load->mem_file_path || load->enable_diff_snapshots.value);
    }
    return false;
}

static int run_row(struct api_call *call, const struct row *row)
{
    union {
        char bytes[sizeof(struct keys_config)];
        void *aligned;
    } object; /* the largest structure there is */
    struct json_error error = {0};
    int r = row->id != NO_ID ? check_id(call) : 0;
    if (r < 0)
        return r;
    bool has_object = row->of && (call->request->body || !row->bare);
    if (has_object) {
        r = json_read(call->request->body, call->request->body_length, row->of, &object, &error);
        if (r < 0)
            api_fault(call, r, "An error occurred when deserializing the json body of a request: %s.",
                      error.message.at ? error.message.at : "out of memory");
        text_free(&error.message);
        if (r < 0)
            return r;
        call->deprecated = is_deprecated(row->of, &object);
        if (row->id != NO_ID)
            r = match_id(call, row->id, &object);
    }
    enum machine_state state = machine_state(call->ctl->machine);
    bool started = state != MACHINE_NOT_STARTED;
    if (r == 0 && state == MACHINE_ENDING)
        r = api_fault(call, -EINVAL, "The microVM is ending.");
    if (r == 0 && started && row->phase == BEFORE_START)
        r = api_not_after_start(call);
    if (r == 0 && !started && row->phase == AFTER_START)
        r = api_not_before_start(call);
    if (r == 0)
        r = row->run(call, has_object ? &object : NULL);
    if (has_object)
        json_free(row->of, &object);
    return r;
}

static void log_request(struct ctl *ctl, const struct http_request *request)
{
    bool secret =
        !request->body || strcmp(request->path, "/mmds") == 0 || strcmp(request->path, "/cpu-config") == 0;
    logger_say(&ctl->logger, LOGGER_INFO, api_log_name(ctl),
               "The API server received a %s request on \"%s\"%s%s%s.", method_words[request->method],
               request->path, secret ? "" : " with body \"", secret ? "" : request->body, secret ? "" : "\"");
}

void api_handle(void *context, struct http_request *request)
{
    struct api_call call = {.ctl = context, .request = request};
    struct ctl *ctl = context;
    uint64_t begin = api_now_us();
    log_request(ctl, request);

    CLEANUP_FREE char *copy = strdup(request->path);
    const char *first = "", *second = NULL;
    if (copy)
        split(copy, &first, &second);
    call.id = second;
    const struct row *row = copy ? find_row(request, first, second) : NULL;
    bool wrong_body = request->body && (request->method == METHOD_GET || request->method == METHOD_DELETE);
    int r = row && !wrong_body ? run_row(&call, row) : no_row(&call, first);
    if (row)
        metrics_count(&ctl->metrics, (size_t)(row - rows), r < 0, api_now_us() - begin);
    if (call.deprecated)
        ctl->metrics.deprecated++;

    if (r < 0)
        api_answer_fault(&call, r == -E2BIG ? 413 : 400);
    else if (!call.later)
        api_answer_success(&call);
    logger_say(&ctl->logger, LOGGER_DEBUG, api_log_name(ctl), "Total previous API call duration: %llu us.",
               (unsigned long long)(api_now_us() - begin));
    text_free(&call.body);
    text_free(&call.fault);
}

void api_name_rows(struct metrics *metrics)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        metrics->rows[i] = (struct metrics_row){
            .method = method_names[rows[i].method], .path = rows[i].first, .name = rows[i].metric};
}
