#include "snapshot.h"

#include "store/manifest.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

_Static_assert(sizeof(struct snapshot_header) == 64 && sizeof(struct snapshot_trailer) == 40, "no padding");

static void hash_of(struct snapshot_header header, const void *sections, size_t length, uint8_t ret_hash[16])
{
    XXH3_state_t *hasher = XXH3_createState();
    XXH128_canonical_t hash;
    CHECK(hasher);
    memset(header.hash, 0, sizeof(header.hash));
    XXH3_128bits_reset(hasher);
    XXH3_128bits_update(hasher, &header, sizeof(header));
    XXH3_128bits_update(hasher, sections, length);
    XXH128_canonicalFromHash(&hash, XXH3_128bits_digest(hasher));
    XXH3_freeState(hasher);
    memcpy(ret_hash, hash.digest, sizeof(hash.digest));
}

void snapshot_seal(struct snapshot_header *header, const void *sections, size_t length)
{
    memcpy(header->magic, SNAPSHOT_MAGIC, sizeof(header->magic));
    header->version = SNAPSHOT_VERSION;
    header->machine = EM_X86_64;
    header->length = length;
    hash_of(*header, sections, length, header->hash);
}

static int open_with_size(const char *path, int *ret_fd, uint64_t *ret_size)
{
    struct stat status;
    CLEANUP_FD int fd = -1;
    int r = open_input_file("snapshot:", path, &fd);
    if (r < 0)
        return r;
    if (fstat(fd, &status) < 0)
        return fail_errno(-errno, "%s", path);
    *ret_size = (uint64_t)status.st_size;
    *ret_fd = fd_steal(&fd);
    return 0;
}

static int check_magic(const char *path, const struct snapshot_header *header)
{
    if (memcmp(header->magic, SNAPSHOT_MAGIC, sizeof(header->magic)) != 0)
        return fail(-EBADMSG, "%s: no snapshot of this program", path);
    return 0;
}

static int read_header(const char *path, int fd, uint64_t size, struct snapshot_header *ret_header)
{
    if (size < sizeof(*ret_header))
        return fail(-EBADMSG, "%s: no snapshot: it has %llu bytes", path, (unsigned long long)size);
    int r = read_full_at(fd, ret_header, sizeof(*ret_header), 0);
    if (r < 0)
        return fail_errno(r, "%s", path);
    return check_magic(path, ret_header);
}

static int check_header(const char *path, const struct snapshot_header *header, uint64_t size)
{
    if (header->version != SNAPSHOT_VERSION)
        return fail(-ENOTSUP, "%s: a snapshot of version %u, and this program knows version %u", path,
                    header->version, SNAPSHOT_VERSION);
    if (header->machine != EM_X86_64)
        return fail(-ENOTSUP, "%s: a snapshot of another kind of machine (%u; x86-64 is %u)", path,
                    header->machine, EM_X86_64);
    if (header->length != size - sizeof(*header) || header->length > STATE_MAX)
        return fail(-EBADMSG, "%s: damaged: %llu bytes are to follow its header, and %llu do", path,
                    (unsigned long long)header->length, (unsigned long long)(size - sizeof(*header)));
    return 0;
}

static int read_sections(const char *path, struct snapshot *snapshot, struct state_reader from)
{
    struct state_section section;
    int r;
    while ((r = state_next(&from, &section)) > 0) {
        if (section.version != 1)
            return fail(-ENOTSUP, "%s: made by a newer version of this program", path);
        if (strcmp(section.tag, "CONF") == 0)
            snapshot->config = section.body;
        else if (strcmp(section.tag, "MACH") == 0)
            snapshot->machine = section.body;
        else
            return fail(-EBADMSG, "%s: has a section that this program does not know", path);
    }
    if (r == 0 && (!snapshot->config.bytes || !snapshot->machine.bytes))
        r = fail(-EBADMSG, "%s: has no machine in it", path);
    return r;
}

/* The header that `snapshot->bytes` begins with is right, and so is all that follows. */
static int check_state(const char *path, struct snapshot *snapshot)
{
    struct snapshot_header header;
    uint8_t hash[16];
    memcpy(&header, snapshot->bytes, sizeof(header));
    hash_of(header, snapshot->bytes + sizeof(header), header.length, hash);
    if (memcmp(hash, header.hash, sizeof(hash)) != 0)
        return fail(-EBADMSG, "%s: damaged: its hash is not that of its contents", path);
    return read_sections(path, snapshot,
                         (struct state_reader){snapshot->bytes + sizeof(header), header.length});
}

static int check_trailer(const char *path, const struct snapshot_trailer *trailer,
                         const struct snapshot_header *header)
{
    if (memcmp(trailer->magic, SNAPSHOT_MEMORY_MAGIC, sizeof(trailer->magic)) != 0 ||
        trailer->memory != header->memory)
        return fail(-EBADMSG, "%s: no memory of a snapshot, or not all of it", path);
    if (memcmp(trailer->id, header->id, sizeof(header->id)) != 0)
        return fail(-EBADMSG, "%s: the memory of another snapshot", path);
    return 0;
}

int snapshot_take_state(const char *name, const struct snapshot_trailer *trailer, struct snapshot *snapshot)
{
    struct snapshot_header header;
    if (trailer->state_length < sizeof(header))
        return fail(-EBADMSG, "%s: no snapshot: its state has %llu bytes", name,
                    (unsigned long long)trailer->state_length);
    memcpy(&header, snapshot->bytes, sizeof(header));
    int r = check_magic(name, &header);
    if (r == 0)
        r = check_header(name, &header, trailer->state_length);
    if (r == 0)
        r = check_trailer(name, trailer, &header);
    snapshot->memory = header.memory;
    return r == 0 ? check_state(name, snapshot) : r;
}

static int read_state(const char *path, struct snapshot *snapshot, struct snapshot_header *ret_header)
{
    CLEANUP_FD int fd = -1;
    uint64_t size;
    int r = open_with_size(path, &fd, &size);
    if (r == 0)
        r = read_header(path, fd, size, ret_header);
    if (r == 0)
        r = check_header(path, ret_header, size);
    if (r < 0)
        return r;
    snapshot->bytes = malloc(size);
    if (!snapshot->bytes)
        return fail(-ENOMEM, "%s: no memory for it", path);
    r = read_full_at(fd, snapshot->bytes, size, 0);
    if (r < 0)
        return fail_errno(r, "%s", path);
    if (memcmp(snapshot->bytes, ret_header, sizeof(*ret_header)) != 0)
        return fail(-EBADMSG, "%s: changes while it is read", path);
    return check_state(path, snapshot);
}

static int open_memory(const char *path, const struct snapshot_header *header, struct snapshot *snapshot)
{
    struct snapshot_trailer trailer;
    uint64_t size;
    int r = open_with_size(path, &snapshot->memory_fd, &size);
    if (r < 0)
        return r;
    if (size < header->memory || size - header->memory != GUEST_PAGE)
        return fail(-EBADMSG, "%s: has %llu bytes, and the memory of the snapshot has %llu and a page", path,
                    (unsigned long long)size, (unsigned long long)header->memory);
    r = read_full_at(snapshot->memory_fd, &trailer, sizeof(trailer), header->memory);
    if (r < 0)
        return fail_errno(r, "%s", path);
    snapshot->memory = header->memory;
    return check_trailer(path, &trailer, header);
}

int snapshot_open(const char *state_path, const char *memory_path, struct snapshot *ret_snapshot)
{
    struct snapshot_header header;
    *ret_snapshot = (struct snapshot){.memory_fd = -1};
    int r = read_state(state_path, ret_snapshot, &header);
    if (r == 0)
        r = open_memory(memory_path, &header, ret_snapshot);
    if (r < 0)
        snapshot_close(ret_snapshot);
    return r;
}

int snapshot_open_folder(const char *folder, struct snapshot *ret_snapshot)
{
    char state[PATH_MAX], memory[PATH_MAX];
    if (snprintf(state, PATH_MAX, "%s/" SNAPSHOT_STATE, folder) >= PATH_MAX ||
        snprintf(memory, PATH_MAX, "%s/" SNAPSHOT_MEMORY, folder) >= PATH_MAX)
        return fail(-ENAMETOOLONG, "%s: too long", folder);
    return snapshot_open(state, memory, ret_snapshot);
}

int snapshot_of_sections(uint8_t *sections, size_t length, uint64_t memory, struct snapshot *ret_snapshot)
{
    struct snapshot snapshot = {.memory_fd = -1, .memory = memory};
    int r = read_sections("the state of the VM", &snapshot, (struct state_reader){sections, length});
    if (r < 0)
        return r;
    snapshot.bytes = sections;
    *ret_snapshot = snapshot;
    return 0;
}

void snapshot_close(struct snapshot *snapshot)
{
    free(snapshot->bytes);
    cleanup_fd(&snapshot->memory_fd);
    manifest_free(snapshot->manifest);
    store_lease_end(snapshot->lease);
    if (snapshot->store)
        store_close(snapshot->store);
    *snapshot = (struct snapshot){.memory_fd = -1};
}

int snapshot_version(const char *state_path, uint32_t *ret_version)
{
    struct snapshot_header header;
    CLEANUP_FD int fd = -1;
    uint64_t size;
    int r = open_with_size(state_path, &fd, &size);
    if (r == 0)
        r = read_header(state_path, fd, size, &header);
    if (r == 0)
        *ret_version = header.version;
    return r;
}
