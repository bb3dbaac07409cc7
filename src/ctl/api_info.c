/* What a VM says of itself. */
#include "ctl/api.h"

#include <string.h>

int api_get_instance(struct api_call *call, void *object)
{
    (void)object;
    static const char *const states[] = {[MACHINE_NOT_STARTED] = "Not started",
                                         [MACHINE_RUNNING] = "Running",
                                         [MACHINE_PAUSING] = "Running",
                                         [MACHINE_PAUSED] = "Paused",
                                         [MACHINE_ENDING] = "Running"};
    text_puts(&call->body, "{\"id\":");
    text_json_string(&call->body, call->ctl->config.id, strlen(call->ctl->config.id));
    text_printf(&call->body, ",\"state\":\"%s\",\"vmm_version\":\"%s\",\"app_name\":\"Firecracker\"}",
                states[machine_state(call->ctl->machine)], CTL_FIRECRACKER_VERSION);
    return 0;
}

int api_get_version(struct api_call *call, void *object)
{
    (void)object;
    text_printf(&call->body, "{\"firecracker_version\":\"%s\"", CTL_FIRECRACKER_VERSION);
    if (!call->ctl->config.firecracker)
        text_printf(&call->body, ",\"stardust_version\":\"%s\"", VOLT_VERSION);
    text_puts(&call->body, "}");
    return 0;
}

int api_get_machine_config(struct api_call *call, void *object)
{
    (void)object;
    json_write(&call->body, &keys_machine_struct, call->ctl->keys.machine_config);
    return 0;
}

int api_get_config(struct api_call *call, void *object)
{
    (void)object;
    /* The logger, the metrics and the CPU template are not shown, as in Firecracker. */
    struct keys_config shown = call->ctl->keys;
    struct keys_boot_source none = {.kernel_image_path = (char[]){""}};
    shown.logger = NULL;
    shown.metrics = NULL;
    shown.cpu_config = NULL;
    if (!shown.boot_source)
        shown.boot_source = &none;
    json_write(&call->body, &keys_config_struct, &shown);
    return 0;
}
