/* How requests are answered, and the words that several of them share. */
#include "ctl/api.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static void set_fault(struct api_call *call, const char *format, va_list arguments)
{
    char *message = NULL;
    int length = vasprintf(&message, format, arguments);
    text_clear(&call->fault);
    text_puts(&call->fault, length < 0 ? "out of memory" : message);
    if (length >= 0)
        free(message);
}

int api_fault(struct api_call *call, int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set_fault(call, format, arguments);
    va_end(arguments);
    return error;
}

const char *api_os_error(int error)
{
    static char message[128];
    error = abs(error);
    /* Firecracker is linked with musl, which has other words for these. */
    const char *words = error == ENOMEM       ? "Out of memory"
                        : error == EBUSY      ? "Resource busy"
                        : error == EADDRINUSE ? "Address in use"
                                              : strerror(error);
    snprintf(message, sizeof(message), "%s (os error %d)", words, error);
    return message;
}

int api_not_after_start(struct api_call *call)
{
    return api_fault(call, -EINVAL, "The requested operation is not supported after starting the microVM.");
}

int api_not_before_start(struct api_call *call)
{
    return api_fault(call, -EINVAL, "The requested operation is not supported before starting the microVM.");
}

const char *api_log_name(const struct ctl *ctl)
{
    return ctl->config.firecracker ? "fc_api" : "api";
}

void api_answer_fault(struct api_call *call, int status)
{
    CLEANUP_TEXT struct text body = {0};
    const char *message = call->fault.at ? call->fault.at : "";
    logger_say(&call->ctl->logger, LOGGER_ERROR, api_log_name(call->ctl),
               "Received Error. Status code: %d %s. Message: %s", status,
               status == 413 ? "Payload too large" : "Bad Request", message);
    text_puts(&body, "{\"fault_message\":");
    text_json_string(&body, message, call->fault.length);
    text_puts(&body, "}");
    http_answer(call->request, &(struct http_answer){.status = status,
                                                     .body = body.at,
                                                     .length = body.length,
                                                     .deprecated = call->deprecated});
}

void api_answer_late_fault(struct ctl *ctl, struct http_request *request, const char *format, ...)
{
    struct api_call call = {.ctl = ctl, .request = request};
    va_list arguments;
    va_start(arguments, format);
    set_fault(&call, format, arguments);
    va_end(arguments);
    api_answer_fault(&call, 400);
    text_free(&call.fault);
}

void api_answer_success(struct api_call *call)
{
    bool empty = call->body.length == 0;
    logger_say(&call->ctl->logger, LOGGER_INFO, api_log_name(call->ctl),
               "The request was executed successfully. Status code: %s.",
               empty ? "204 No Content" : "200 OK");
    http_answer(call->request, &(struct http_answer){
                                   .status = empty ? 204 : 200,
                                   .type = call->type,
                                   .body = empty ? NULL : call->body.at,
                                   .length = call->body.length,
                                   .deprecated = call->deprecated,
                               });
}

uint64_t api_now_us(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

int api_set_text(char **to, const char *from)
{
    if (!from)
        return 0;
    char *copy = strdup(from);
    if (!copy)
        return fail(-ENOMEM, "no memory for the configuration");
    free(*to);
    *to = copy;
    return 0;
}
