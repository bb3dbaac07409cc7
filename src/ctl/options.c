#include "ctl/options.h"

#include <string.h>

#define FIRECRACKER_SOCKET "/run/firecracker.socket" /* its default */

enum {
    OPTION_API_SOCK = 0x300,
    OPTION_ID,
    OPTION_CONFIG_FILE,
    OPTION_NO_API,
    OPTION_METADATA,
    OPTION_LOG_PATH,
    OPTION_LEVEL,
    OPTION_MODULE,
    OPTION_SHOW_LEVEL,
    OPTION_SHOW_LOG_ORIGIN,
    OPTION_METRICS_PATH,
    OPTION_PAYLOAD,
    OPTION_MMDS_SIZE,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "Its control socket (Firecracker's API, and more):", 6},
    {"api-sock", OPTION_API_SOCK, "PATH", 0,
     "listen at PATH; without a kernel, wait there for a configuration", 6},
    {"id", OPTION_ID, "ID", 0,
     "the VM's name: 1 to 64 letters, digits and hyphens (default anonymous-instance)", 6},
    {"config-file", OPTION_CONFIG_FILE, "FILE", 0,
     "a JSON configuration with Firecracker's keys and messages", 6},
    {"no-api", OPTION_NO_API, NULL, 0, "no socket: what --config-file says, and nothing else", 6},
    {"metadata", OPTION_METADATA, "FILE", 0, "JSON for the metadata store", 6},
    {"log-path", OPTION_LOG_PATH, "PATH", 0, "log to this file or FIFO", 6},
    {"level", OPTION_LEVEL, "LEVEL", 0, "of the log: Off, Error, Warn, Info (default), Debug or Trace", 6},
    {"module", OPTION_MODULE, "PREFIX", 0, "log only what modules say whose name begins so", 6},
    {"show-level", OPTION_SHOW_LEVEL, NULL, 0, "name the level in each line of the log", 6},
    {"show-log-origin", OPTION_SHOW_LOG_ORIGIN, NULL, 0, "name the source line in each line of the log", 6},
    {"metrics-path", OPTION_METRICS_PATH, "PATH", 0, "write metrics there as JSON lines, once a minute", 6},
    {"http-api-max-payload-size", OPTION_PAYLOAD, "BYTES", 0, "the largest body of a request (default 51200)",
     6},
    {"mmds-size-limit", OPTION_MMDS_SIZE, "BYTES", 0, "of the metadata store (default: as the largest body)",
     6},
    {0},
};

void ctl_options_init(struct ctl_options *to, bool firecracker)
{
    *to = (struct ctl_options){
        .config = {.id = "anonymous-instance", .payload_max = CTL_PAYLOAD_MAX, .firecracker = firecracker}};
    if (firecracker)
        to->config.socket_path = FIRECRACKER_SOCKET;
}

void ctl_options_finish(struct ctl_options *to)
{
    if (to->no_api)
        to->config.socket_path = NULL;
    if (!to->config.metadata_max)
        to->config.metadata_max = to->config.payload_max;
}

static int set_bytes(size_t *to, const char *option, const char *text)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || value > 1024 * MIB)
        return fail(-EINVAL, "--%s '%s': give a number of bytes, at most 1 GiB", option, text);
    *to = value;
    return 0;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct ctl_options *to = state->input;
    if (!to) /* asked by --help alone */
        return ARGP_ERR_UNKNOWN;
    struct ctl_config *config = &to->config;
    int r = 0;
    switch (key) {
    case OPTION_API_SOCK: config->socket_path = argument; break;
    case OPTION_ID:
        config->id = argument;
        to->named = true;
        r = ctl_check_id(argument);
        break;
    case OPTION_CONFIG_FILE: config->config_file = argument; break;
    case OPTION_NO_API: to->no_api = true; break;
    case OPTION_METADATA: config->metadata_file = argument; break;
    case OPTION_LOG_PATH: config->log_path = argument; break;
    case OPTION_LEVEL: config->log_level = argument; break;
    case OPTION_MODULE: config->log_module = argument; break;
    case OPTION_SHOW_LEVEL: config->log_show_level = true; break;
    case OPTION_SHOW_LOG_ORIGIN: config->log_show_origin = true; break;
    case OPTION_METRICS_PATH: config->metrics_path = argument; break;
    case OPTION_PAYLOAD: r = set_bytes(&config->payload_max, "http-api-max-payload-size", argument); break;
    case OPTION_MMDS_SIZE: r = set_bytes(&config->metadata_max, "mmds-size-limit", argument); break;
    case ARGP_KEY_END: ctl_options_finish(to); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return r < 0 ? -r : 0;
}

static const struct argp argp = {.options = options, .parser = parse_option};
const struct argp_child ctl_options_child = {.argp = &argp};

bool ctl_options_wanted(const struct ctl_options *from)
{
    return from->config.socket_path || from->config.config_file || from->config.firecracker;
}

int ctl_options_check(const struct ctl_options *from)
{
    if (from->no_api && !from->config.config_file)
        return fail(-EINVAL, "--no-api needs --config-file");
    return 0;
}
