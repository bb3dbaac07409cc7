/* The state file of a snapshot: any bytes as its configuration, and as all of it. */
#include "snapshot_config.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is loaded can be saved, and is then loaded as the same. */
static void try_config(const uint8_t *data, size_t size)
{
    struct config config, again;
    struct state_writer first = {0}, second = {0};
    config_init(&config);
    if (snapshot_load_config(&config, (struct state_reader){data, size}) == 0) {
        CHECK(snapshot_save_config(&config, &first) == 0);
        config_init(&again);
        CHECK(snapshot_load_config(&again, (struct state_reader){first.bytes, first.length}) == 0);
        CHECK(snapshot_save_config(&again, &second) == 0);
        CHECK(first.length == second.length && memcmp(first.bytes, second.bytes, first.length) == 0);
        config_free(&again);
    }
    config_free(&config);
    state_writer_free(&first);
    state_writer_free(&second);
}

/* With a header that is right, so that the sections are looked at. */
static void try_file(const uint8_t *data, size_t size)
{
    struct snapshot_header header = {.memory = 2 * MIB};
    struct snapshot snapshot;
    char path[32];
    CLEANUP_FD int fd = memfd_create("state", MFD_CLOEXEC);
    CHECK(fd >= 0);
    snapshot_seal(&header, data, size);
    CHECK(write_full_at(fd, &header, sizeof(header), 0) == 0);
    CHECK(size == 0 || write_full_at(fd, data, size, sizeof(header)) == 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    CHECK(snapshot_open(path, path, &snapshot) < 0); /* it is no memory */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_config(data, size);
    try_file(data, size);
    return 0;
}
