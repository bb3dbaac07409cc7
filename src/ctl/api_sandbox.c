/* What confines the VM. */
#include "ctl/api.h"
#include "sec/sandbox.h"

#include <string.h>

static void add_string(struct text *text, const char *key, const char *value)
{
    text_printf(text, "\"%s\":", key);
    text_json_string(text, value, strlen(value));
}

static void add_thread(void *context, const struct sandbox_thread_report *report)
{
    struct text *text = context;
    text_puts(text, text->at[text->length - 1] == '[' ? "{" : ",{");
    add_string(text, "name", report->name);
    text_printf(text,
                ",\"id\":%d,\"seccomp\":%u,\"filters\":%u,\"no_new_privs\":%s,\"inheritable\":\"%llx\","
                "\"permitted\":\"%llx\",\"effective\":\"%llx\",\"bounding\":\"%llx\",\"ambient\":\"%llx\"}",
                (int)report->thread, report->seccomp, report->filters,
                report->no_new_privs ? "true" : "false", (unsigned long long)report->inheritable,
                (unsigned long long)report->permitted, (unsigned long long)report->effective,
                (unsigned long long)report->bounding, (unsigned long long)report->ambient);
}

static void add_layers(struct text *text)
{
    struct sandbox_layer_report layers[SANDBOX_LAYERS];
    sandbox_report(layers);
    for (unsigned i = 0; i < SANDBOX_LAYERS; i++) {
        text_puts(text, i ? ",{" : "{");
        add_string(text, "name", layers[i].name);
        text_printf(text, ",\"in_force\":%s,", layers[i].in_force ? "true" : "false");
        add_string(text, "detail", layers[i].detail);
        text_puts(text, "}");
    }
}

static void add_calls(struct text *text)
{
    for (unsigned role = 0; role < SANDBOX_ROLES; role++) {
        const char *const *call = sandbox_calls(role);
        text_printf(text, "%s\"%s\":[", role ? "," : "", sandbox_role_name(role));
        for (unsigned i = 0; call && call[i]; i++)
            text_printf(text, "%s\"%s\"", i ? "," : "", call[i]);
        text_puts(text, "]");
    }
}

static void add_paths(struct text *text)
{
    const struct sandbox_path *path;
    for (unsigned i = 0; (path = sandbox_path(i)); i++) {
        text_puts(text, i ? ",{" : "{");
        add_string(text, "path", path->path);
        text_printf(text, ",\"access\":\"%s\"}",
                    path->removes    ? "remove files"
                    : path->writable ? "read and write"
                                     : "read");
    }
}

int api_get_sandbox(struct api_call *call, void *object)
{
    (void)object;
    struct text *text = &call->body;
    text_puts(text, "{\"layers\":[");
    add_layers(text);
    text_puts(text, "],\"threads\":[");
    if (!text->failed)
        (void)sandbox_each_thread(add_thread, text);
    text_puts(text, "],\"paths\":[");
    add_paths(text);
    text_puts(text, "],\"calls\":{");
    add_calls(text);
    text_puts(text, "}}");
    return 0;
}
