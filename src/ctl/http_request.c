/* Requests out of bytes, and answers into them: no sockets here. */
#include "ctl/http_internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- What the parser finds ---- */

/* Remembers the first error; the parser stops. */
static int refuse(struct http_connection *connection, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static int refuse(struct http_connection *connection, const char *format, ...)
{
    if (connection->error)
        return -1;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&connection->error, format, arguments) < 0)
        connection->error = NULL;
    va_end(arguments);
    return -1;
}

static int found_begin(http_parser *parser)
{
    struct http_connection *connection = parser->data;
    text_clear(&connection->path);
    text_clear(&connection->body);
    text_clear(&connection->header);
    connection->header_done = connection->expects_continue = false;
    connection->begun = true;
    return 0;
}

static int found_path(http_parser *parser, const char *bytes, size_t length)
{
    struct http_connection *connection = parser->data;
    if (connection->path.length + length > HTTP_PATH_MAX)
        return refuse(connection, "Invalid URI: the path is longer than %u bytes.", HTTP_PATH_MAX);
    text_add(&connection->path, bytes, length);
    return 0;
}

/* Of the headers only Expect is of interest that the parser does not look at itself. */
static int found_header_name(http_parser *parser, const char *bytes, size_t length)
{
    struct http_connection *connection = parser->data;
    if (connection->header_done)
        text_clear(&connection->header);
    connection->header_done = false;
    if (connection->header.length < 16)
        text_add(&connection->header, bytes, MIN(length, 16));
    return 0;
}

static int found_header_value(http_parser *parser, const char *bytes, size_t length)
{
    struct http_connection *connection = parser->data;
    if (!connection->header_done && connection->header.at && strcasecmp(connection->header.at, "Expect") == 0)
        connection->expects_continue = length >= 12 && strncasecmp(bytes, "100-continue", 12) == 0;
    connection->header_done = true;
    return 0;
}

static int find_method(const http_parser *parser, enum request_method *ret_method)
{
    switch (parser->method) {
    case HTTP_GET: *ret_method = METHOD_GET; return 0;
    case HTTP_PUT: *ret_method = METHOD_PUT; return 0;
    case HTTP_PATCH: *ret_method = METHOD_PATCH; return 0;
    case HTTP_DELETE: *ret_method = METHOD_DELETE; return 0;
    default: return -EINVAL;
    }
}

static int found_headers(http_parser *parser)
{
    struct http_connection *connection = parser->data;
    size_t most = connection->server->config.body_max;
    if (find_method(parser, &connection->request.method) < 0)
        return refuse(connection, "Invalid HTTP Method: Unsupported HTTP method.");
    if (parser->http_major != 1 || parser->http_minor > 1)
        return refuse(connection, "Invalid HTTP Version: Unsupported HTTP version.");
    bool counted = !(parser->flags & F_CHUNKED) && (parser->flags & F_CONTENTLENGTH);
    if (counted && parser->content_length > most)
        return refuse(connection,
                      "Request payload with size %llu is larger than the limit of %zu allowed by server.",
                      (unsigned long long)parser->content_length, most);
    if (connection->expects_continue && (parser->flags & (F_CHUNKED | F_CONTENTLENGTH)))
        text_puts(&connection->output, "HTTP/1.1 100 \r\n\r\n");
    return 0;
}

static int found_body(http_parser *parser, const char *bytes, size_t length)
{
    struct http_connection *connection = parser->data;
    size_t most = connection->server->config.body_max;
    if (connection->body.length + length > most)
        return refuse(connection,
                      "Request payload with size %zu is larger than the limit of %zu allowed by server.",
                      connection->body.length + length, most);
    text_add(&connection->body, bytes, length);
    return 0;
}

static int found_end(http_parser *parser)
{
    struct http_connection *connection = parser->data;
    connection->last = connection->last || !http_should_keep_alive(parser) || parser->upgrade;
    connection->answering = true;
    connection->begun = false;
    http_parser_pause(parser, 1); /* one request at a time */
    return 0;
}

static const http_parser_settings settings = {
    .on_message_begin = found_begin,
    .on_url = found_path,
    .on_header_field = found_header_name,
    .on_header_value = found_header_value,
    .on_headers_complete = found_headers,
    .on_body = found_body,
    .on_message_complete = found_end,
};

/* ---- Answers ---- */

static const char *reason(int status)
{
    static const struct {
        int status;
        const char *words;
    } reasons[] = {{200, "OK"},        {204, "No Content"},        {400, "Bad Request"},
                   {404, "Not Found"}, {413, "Payload Too Large"}, {503, "Service Unavailable"}};
    for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].words;
    return "";
}

void http_write_head(struct http_connection *connection, int status)
{
    const struct http_config *config = &connection->server->config;
    bool closing = connection->last && !config->raw_errors;
    text_printf(&connection->output, "HTTP/1.1 %d %s\r\nServer: %s\r\nConnection: %s\r\n", status,
                config->raw_errors ? "" : reason(status), config->server, closing ? "close" : "keep-alive");
}

void http_write_answer(struct http_connection *connection, const struct http_answer *answer)
{
    struct text *output = &connection->output;
    http_write_head(connection, answer->status);
    if (answer->deprecated)
        text_puts(output, "Deprecation: true\r\n");
    if (answer->body)
        text_printf(output, "Content-Type: %s\r\nContent-Length: %zu\r\n",
                    answer->type ? answer->type : "application/json", answer->length);
    text_puts(output, "\r\n");
    if (answer->body)
        text_add(output, answer->body, answer->length);
}

/* A request that is none: said once, and the connection is no more. */
static void write_error(struct http_connection *connection, const char *message)
{
    static const char rest[] = "\nAll previous unanswered requests will be dropped.";
    CLEANUP_TEXT struct text whole = {0}, body = {0};
    text_printf(&whole, "%s%s", message, rest);
    if (connection->server->config.raw_errors)
        text_printf(&body, "{ \"error\": \"%s\" }", whole.at ? whole.at : "");
    else {
        text_puts(&body, "{\"error\":");
        text_json_string(&body, whole.at ? whole.at : "", whole.length);
        text_puts(&body, "}");
    }
    connection->last = true;
    http_write_answer(connection,
                      &(struct http_answer){.status = 400, .body = body.at, .length = body.length});
}

/* The path without a scheme and host, a query or a fragment. */
static char *bare_path(char *path)
{
    static const char scheme[] = "http://";
    path[strcspn(path, "?#")] = '\0';
    if (strncmp(path, scheme, sizeof(scheme) - 1) == 0) {
        char *slash = strchr(path + sizeof(scheme) - 1, '/');
        return slash ? slash : path + strlen(path);
    }
    return path[0] == '/' ? path : path + strlen(path);
}

void http_drop_descriptors(struct http_connection *connection)
{
    for (unsigned i = 0; i < connection->descriptor_count; i++)
        cleanup_fd(&connection->descriptors[i]);
    connection->descriptor_count = 0;
}

void http_forget_request(struct http_connection *connection)
{
    connection->answering = false;
    http_drop_descriptors(connection);
    if (connection->body.capacity > 4096)
        text_free(&connection->body);
    http_parser_pause(&connection->parser, 0);
}

static void hand_over(struct http_connection *connection)
{
    struct http_request *request = &connection->request;
    if (connection->path.failed || connection->body.failed || !connection->path.at) {
        http_forget_request(connection);
        write_error(connection, "Invalid request.");
        return;
    }
    request->path = bare_path(connection->path.at);
    request->body_length = connection->body.length;
    request->body = request->body_length > 0 ? connection->body.at : NULL;
    request->descriptors = connection->descriptors;
    request->descriptor_count = connection->descriptor_count;
    connection->server->config.handle(connection->server->config.context, request);
}

static const char *explain(enum http_errno error)
{
    switch (error) {
    case HPE_HEADER_OVERFLOW: return "Invalid header. Reason: the headers are too long.";
    case HPE_INVALID_METHOD: return "Invalid HTTP Method: Unsupported HTTP method.";
    case HPE_INVALID_VERSION: return "Invalid HTTP Version: Unsupported HTTP version.";
    default: return "Invalid request.";
    }
}

void http_parse(struct http_connection *connection)
{
    size_t done = 0;
    while (done < connection->input.length && !connection->answering && !connection->last &&
           !connection->streaming && connection->output.length < HTTP_UNSENT_MAX) {
        done += http_parser_execute(&connection->parser, &settings, connection->input.at + done,
                                    connection->input.length - done);
        enum http_errno error = HTTP_PARSER_ERRNO(&connection->parser);
        if (connection->error || (error != HPE_OK && error != HPE_PAUSED))
            write_error(connection, connection->error ? connection->error : explain(error));
        else if (connection->answering)
            hand_over(connection);
    }
    if (connection->last && !connection->answering)
        done = connection->input.length; /* nothing after the last request counts */
    if (done == connection->input.length)
        text_free(&connection->input);
    else if (done > 0) {
        memmove(connection->input.at, connection->input.at + done, connection->input.length - done);
        connection->input.length -= done;
    }
}

void http_parser_begin(struct http_connection *connection)
{
    http_parser_set_max_header_size(HTTP_HEADERS_MAX);
    http_parser_init(&connection->parser, HTTP_REQUEST);
    connection->parser.data = connection;
}
