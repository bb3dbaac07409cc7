#include "kernels.h"

#include "store/files.h"

#include <ctype.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define NOTES_MAX 65536
#define PATH_SIZE (sizeof("objects/") + OBJECT_ID_TEXT + sizeof(".json"))

static int kernels_folder(char **ret_path)
{
    const char *set = getenv("VOLT_KERNEL_DIR"), *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int length = 0;
    if (set && *set)
        length = asprintf(&path, "%s", set);
    else if (geteuid() == 0)
        length = asprintf(&path, "/var/lib/volt/kernels");
    else if (data && data[0] == '/')
        length = asprintf(&path, "%s/volt/kernels", data);
    else if (home && home[0] == '/')
        length = asprintf(&path, "%s/.local/share/volt/kernels", home);
    else
        return fail(-ENOENT, "no place for kernels: neither VOLT_KERNEL_DIR nor HOME is set (set one)");
    if (length < 0)
        return fail(-ENOMEM, "no memory for a path");
    *ret_path = path;
    return 0;
}

/* mkdir -p; `path` is as before afterwards. */
static int make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = '\0';
        if (mkdir(path, 0755) != 0 && errno != EEXIST)
            return fail_errno(-errno, "%s: cannot be made (VOLT_KERNEL_DIR chooses another place)", path);
        if (!slash)
            return 0;
        *slash = '/';
    }
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)status;
    (void)kind;
    (void)at;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

static int empty_tmp(const struct kernels *kernels)
{
    CLEANUP_FREE char *tmp = NULL;
    if (asprintf(&tmp, "%s/tmp", kernels->path) < 0)
        return fail(-ENOMEM, "no memory for a path");
    if (nftw(tmp, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0 && errno != ENOENT)
        return fail_errno(-errno, "%s: left by an interrupted import and cannot be removed", tmp);
    if (mkdir(tmp, 0700) != 0)
        return fail_errno(-errno, "%s: cannot be made", tmp);
    return 0;
}

/* The lock is inherited by the programs that an import runs: if this process is killed and they are not,
 * the next command waits until they no longer write to tmp/. */
static int take_lock(struct kernels *kernels, int how)
{
    kernels->lock = openat(kernels->dir, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (kernels->lock < 0 || flock(kernels->lock, how) != 0)
        return fail_errno(-errno, "%s/lock: cannot be locked", kernels->path);
    return empty_tmp(kernels);
}

static int open_for_change(struct kernels *kernels)
{
    static const char *const parts[] = {"objects", "modules", "names"};
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        if (mkdirat(kernels->dir, parts[i], 0755) != 0 && errno != EEXIST)
            return fail_errno(-errno, "%s/%s: cannot be made", kernels->path, parts[i]);
    int r = take_lock(kernels, LOCK_EX);
    if (r < 0)
        return r;
    kernels->tmp = openat(kernels->dir, "tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return kernels->tmp < 0 ? fail_errno(-errno, "%s/tmp: cannot be opened", kernels->path) : 0;
}

int kernels_open(bool change, struct kernels *ret_kernels)
{
    struct kernels kernels = {.dir = -1, .tmp = -1, .lock = -1};
    int r = kernels_folder(&kernels.path);
    if (r == 0)
        r = make_folders(kernels.path);
    if (r < 0)
        goto fail;
    kernels.dir = open(kernels.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (kernels.dir < 0)
        r = fail_errno(-errno, "%s: cannot be opened", kernels.path);
    else if (change)
        r = open_for_change(&kernels);
    else if (faccessat(kernels.dir, "lock", W_OK, 0) == 0) {
        (void)take_lock(&kernels, LOCK_EX | LOCK_NB); /* only to empty tmp/ */
        cleanup_fd(&kernels.lock);
    }
    if (r < 0)
        goto fail;
    *ret_kernels = kernels;
    return 0;
fail:
    kernels_close(&kernels);
    return r;
}

void kernels_close(struct kernels *kernels)
{
    if (kernels->lock >= 0)
        (void)empty_tmp(kernels); /* if it fails, the next command does it */
    cleanup_fd(&kernels->lock);
    cleanup_fd(&kernels->tmp);
    cleanup_fd(&kernels->dir);
    free(kernels->path);
    kernels->path = NULL;
}

int kernels_check_name(const char *name)
{
    if (!isalnum((unsigned char)name[0]) || !name_is_valid(name, KERNEL_NAME_MAX, "._+-"))
        return fail(-EINVAL, "%s: not a name for a kernel (letters, digits and . _ + -, at most %d)", name,
                    KERNEL_NAME_MAX);
    return 0;
}

int kernel_note(json_t *notes, const char *key, const char *text)
{
    json_t *value = json_string(text);
    CLEANUP_FREE char *ascii = value ? NULL : strdup(text);
    if (ascii) {
        for (char *at = ascii; *at; at++)
            *at = isascii((unsigned char)*at) ? *at : '?';
        value = json_string(ascii);
    }
    return json_object_set_new(notes, key, value) == 0 ? 0 : fail(-ENOMEM, "no memory for a note");
}

const char *kernel_noted(const json_t *notes, const char *key)
{
    return json_string_value(json_object_get(notes, key));
}

static void object_path(const char *hash, const char *suffix, char ret_path[PATH_SIZE])
{
    snprintf(ret_path, PATH_SIZE, "objects/%.*s%s", OBJECT_ID_TEXT, hash, suffix);
}

json_t *kernels_notes(const struct kernels *kernels, const char *hash)
{
    char path[PATH_SIZE];
    CLEANUP_FREE char *text = malloc(NOTES_MAX);
    object_path(hash, ".json", path);
    json_t *notes =
        text && text_read(kernels->dir, path, text, NOTES_MAX) == 0 ? json_loads(text, 0, NULL) : NULL;
    if (json_is_object(notes))
        return notes;
    json_decref(notes);
    return json_object();
}

static int place_modules(const struct kernels *kernels, const char *hash, const char *modules, json_t *notes)
{
    char to[PATH_SIZE];
    CLEANUP_FREE char *path = NULL;
    snprintf(to, sizeof(to), "modules/%.*s", OBJECT_ID_TEXT, hash);
    if (asprintf(&path, "%s/%s", kernels->path, to) < 0)
        return fail(-ENOMEM, "no memory for a path");
    if (syncfs(kernels->tmp) != 0 ||
        (renameat(kernels->tmp, modules, kernels->dir, to) != 0 && errno != ENOTEMPTY && errno != EEXIST))
        return fail_errno(-errno, "%s: cannot be stored", path);
    int r = directory_sync(kernels->dir, "modules");
    return r < 0 ? fail_errno(r, "%s/modules: cannot be synced", kernels->path)
                 : kernel_note(notes, "modules", path);
}

static int publish_object(const struct kernels *kernels, const char *name, const void *bytes, size_t length)
{
    CLEANUP_FD int objects = openat(kernels->dir, "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = objects < 0 ? -errno : file_publish(kernels->tmp, objects, name, bytes, length, 0444);
    return r < 0 ? fail_errno(r, "%s/objects/%s: cannot be stored", kernels->path, name) : 0;
}

int kernels_publish(const struct kernels *kernels, const void *bytes, size_t length, const char *modules,
                    json_t *notes, char ret_hash[OBJECT_ID_TEXT])
{
    struct object_id id;
    char hash[OBJECT_ID_TEXT], notes_name[OBJECT_ID_TEXT + sizeof(".json")];
    object_hash(bytes, length, &id);
    object_id_text(&id, hash);
    snprintf(notes_name, sizeof(notes_name), "%s.json", hash);
    /* A file with this name counts only if its bytes are right: importing again mends a damaged one. */
    int r = kernels_verify(kernels, hash);
    if (r < 0)
        r = publish_object(kernels, hash, bytes, length);
    if (r == 0 && modules)
        r = place_modules(kernels, hash, modules, notes);
    if (r < 0)
        return r;
    CLEANUP_FREE char *text = json_dumps(notes, JSON_INDENT(2));
    r = text ? publish_object(kernels, notes_name, text, strlen(text)) : fail(-ENOMEM, "no memory for notes");
    if (r == 0)
        memcpy(ret_hash, hash, sizeof(hash));
    return r;
}

/* Makes folder/name, or replaces it by, a symbolic link. */
static int replace_link(const struct kernels *kernels, const char *target, const char *folder,
                        const char *name)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int r =
        symlinkat(target, kernels->tmp, name) == 0 && renameat(kernels->tmp, name, kernels->dir, path) == 0
            ? directory_sync(kernels->dir, folder)
            : -errno;
    return r < 0 ? fail_errno(r, "%s/%s: cannot be made", kernels->path, path) : 0;
}

int kernels_set_name(const struct kernels *kernels, const char *name, const char *hash)
{
    char target[PATH_SIZE + sizeof("../")];
    int r = kernels_check_name(name);
    if (r < 0)
        return r;
    snprintf(target, sizeof(target), "../objects/%s", hash);
    return replace_link(kernels, target, "names", name);
}

int kernels_set_default(const struct kernels *kernels, const char *name)
{
    char target[sizeof("names/") + KERNEL_NAME_MAX];
    struct stat status;
    int r = kernels_check_name(name);
    if (r < 0)
        return r;
    snprintf(target, sizeof(target), "names/%s", name);
    if (fstatat(kernels->dir, target, &status, 0) != 0)
        return fail(-ENOENT, "%s: no kernel of that name (volt-kernel ls lists them)", name);
    return replace_link(kernels, target, ".", "default");
}

/* What the link folder/name points at, without `prefix`; "" if it is no link, or not to there. */
static int link_tail(const struct kernels *kernels, const char *folder, const char *name, const char *prefix,
                     char tail[PATH_SIZE])
{
    char path[PATH_SIZE], target[PATH_SIZE + sizeof("../")];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    ssize_t length = readlinkat(kernels->dir, path, target, sizeof(target));
    tail[0] = '\0';
    if (length < 0)
        return errno == ENOENT || errno == EINVAL
                   ? 0
                   : fail_errno(-errno, "%s/%s: cannot be read", kernels->path, path);
    size_t skip = strlen(prefix);
    if ((size_t)length < skip || (size_t)length >= PATH_SIZE || memcmp(target, prefix, skip) != 0)
        return 0;
    memcpy(tail, target + skip, (size_t)length - skip);
    tail[(size_t)length - skip] = '\0';
    return 0;
}

static bool is_hash(const char *text)
{
    struct object_id id;
    return object_id_parse(text, &id) == 0;
}

/* The hash that a name stands for; "" if it stands for none. */
static int named_hash(const struct kernels *kernels, const char *name, char ret_hash[OBJECT_ID_TEXT])
{
    char tail[PATH_SIZE];
    int r = link_tail(kernels, "names", name, "../objects/", tail);
    if (r == 0)
        snprintf(ret_hash, OBJECT_ID_TEXT, "%.*s", OBJECT_ID_TEXT - 1, is_hash(tail) ? tail : "");
    return r;
}

int kernels_default(const struct kernels *kernels, char ret_name[KERNEL_NAME_MAX + 1])
{
    char tail[PATH_SIZE];
    int r = link_tail(kernels, ".", "default", "names/", tail);
    if (r == 0)
        snprintf(ret_name, KERNEL_NAME_MAX + 1, "%.*s", KERNEL_NAME_MAX,
                 kernels_check_name(tail) == 0 ? tail : "");
    return r;
}

int kernels_find(const struct kernels *kernels, const char *which, char ret_hash[OBJECT_ID_TEXT])
{
    char chosen[KERNEL_NAME_MAX + 1];
    struct kernel_entry *entries;
    const char *found = NULL;
    size_t count;
    int r = which ? 0 : kernels_default(kernels, chosen);
    if (r == 0 && !which && !chosen[0])
        return fail(-ENOENT, "no default kernel (volt-kernel import, build or default makes one)");
    which = which ? which : chosen;
    if (r == 0 && !is_hash(which)) /* which is longer than a name */
        r = kernels_check_name(which);
    if (r == 0)
        r = kernels_list(kernels, &entries, &count);
    if (r < 0)
        return r;
    size_t digits = strspn(which, "0123456789abcdef") == strlen(which) ? strlen(which) : 0;
    bool exact = false;
    for (size_t i = 0; i < count && !exact; i++) {
        exact = strcmp(entries[i].name, which) == 0;
        if (!exact && (digits < 8 || strncmp(entries[i].hash, which, digits) != 0))
            continue;
        if (!exact && found && strcmp(found, entries[i].hash) != 0)
            r = fail(-EINVAL, "%s: several kernels begin with these digits (give more of them)", which);
        found = entries[i].hash;
    }
    if (exact)
        r = 0;
    else if (!found)
        r = fail(-ENOENT, "%s: no kernel of that name or hash (volt-kernel ls lists them)", which);
    if (r == 0)
        memcpy(ret_hash, found, OBJECT_ID_TEXT);
    free(entries);
    return r;
}

int kernels_file(const struct kernels *kernels, const char *hash, char **ret_path)
{
    return asprintf(ret_path, "%s/objects/%s", kernels->path, hash) < 0
               ? fail(-ENOMEM, "no memory for a path")
               : 0;
}

int kernels_verify(const struct kernels *kernels, const char *hash)
{
    char path[PATH_SIZE], text[OBJECT_ID_TEXT];
    struct object_id id;
    struct stat status;
    object_path(hash, "", path);
    CLEANUP_FD int fd = openat(kernels->dir, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0)
        return fail_errno(-errno, "%s/%s: cannot be opened (import it again)", kernels->path, path);
    if (!S_ISREG(status.st_mode))
        return fail(-EBADMSG, "%s/%s: not a file (remove it and import the kernel again)", kernels->path,
                    path);
    int r = object_hash_fd(fd, path, &id);
    if (r == 0 && strcmp(object_id_text(&id, text), hash) != 0)
        r = fail(-EBADMSG, "%s/%s: damaged, its SHA-256 is %s (import it again)", kernels->path, path, text);
    return r;
}

static int by_name(const void *a, const void *b)
{
    const struct kernel_entry *left = a, *right = b;
    if (!left->name[0] || !right->name[0])
        return left->name[0] ? -1 : right->name[0] ? 1 : strcmp(left->hash, right->hash);
    return strcmp(left->name, right->name);
}

struct listing {
    const struct kernels *kernels;
    struct kernel_entry *entries;
    size_t count;
};

static int add_entry(struct listing *listing, const char *name, const char *hash)
{
    char path[PATH_SIZE];
    struct stat status = {0};
    object_path(hash, "", path);
    if (fstatat(listing->kernels->dir, path, &status, AT_SYMLINK_NOFOLLOW) != 0 && errno != ENOENT)
        return fail_errno(-errno, "%s/%s: cannot be read", listing->kernels->path, path);
    struct kernel_entry *grown = reallocarray(listing->entries, listing->count + 1, sizeof(*grown));
    if (!grown)
        return fail(-ENOMEM, "no memory for a list of kernels");
    listing->entries = grown;
    grown += listing->count++;
    snprintf(grown->name, sizeof(grown->name), "%s", name);
    memcpy(grown->hash, hash, sizeof(grown->hash));
    grown->bytes = (uint64_t)status.st_size;
    return 0;
}

static bool has_name(const struct kernel_entry *entries, size_t count, const char *hash)
{
    for (size_t i = 0; i < count; i++)
        if (entries[i].name[0] && strcmp(entries[i].hash, hash) == 0)
            return true;
    return false;
}

static int list_name(void *opaque, const char *name)
{
    struct listing *listing = opaque;
    char hash[OBJECT_ID_TEXT];
    if (kernels_check_name(name) < 0)
        return 0; /* somebody else's file */
    int r = named_hash(listing->kernels, name, hash);
    return r == 0 && hash[0] ? add_entry(listing, name, hash) : r;
}

static int list_object(void *opaque, const char *name)
{
    struct listing *listing = opaque;
    return is_hash(name) && !has_name(listing->entries, listing->count, name) ? add_entry(listing, "", name)
                                                                              : 0;
}

int kernels_list(const struct kernels *kernels, struct kernel_entry **ret_entries, size_t *ret_count)
{
    struct listing listing = {.kernels = kernels};
    int r = each_entry(kernels->dir, "names", list_name, &listing);
    if (r == 0 || r == -ENOENT) /* nothing was imported yet */
        r = each_entry(kernels->dir, "objects", list_object, &listing);
    if (r < 0 && r != -ENOENT) {
        free(listing.entries);
        return r;
    }
    if (listing.count)
        qsort(listing.entries, listing.count, sizeof(*listing.entries), by_name);
    *ret_entries = listing.entries;
    *ret_count = listing.count;
    return 0;
}

static int remove_kernel(const struct kernels *kernels, const char *hash)
{
    char path[PATH_SIZE], modules[PATH_SIZE];
    object_path(hash, ".json", path);
    (void)unlinkat(kernels->dir, path, 0); /* nothing depends on notes */
    object_path(hash, "", path);
    if (unlinkat(kernels->dir, path, 0) != 0 && errno != ENOENT)
        return fail_errno(-errno, "%s/%s: cannot be removed", kernels->path, path);
    snprintf(modules, sizeof(modules), "modules/%s", hash);
    if (renameat(kernels->dir, modules, kernels->tmp, "modules") != 0)
        return errno == ENOENT ? 0 : fail_errno(-errno, "%s/%s: cannot be removed", kernels->path, modules);
    return empty_tmp(kernels);
}

int kernels_remove(const struct kernels *kernels, const char *name)
{
    char chosen[KERNEL_NAME_MAX + 1], path[sizeof("names/") + KERNEL_NAME_MAX], hash[OBJECT_ID_TEXT];
    struct kernel_entry *entries;
    size_t count;
    int r = kernels_check_name(name);
    if (r == 0)
        r = named_hash(kernels, name, hash);
    if (r == 0)
        r = kernels_default(kernels, chosen);
    if (r < 0)
        return r;
    if (!hash[0])
        return fail(-ENOENT, "%s: no kernel of that name (volt-kernel ls lists them)", name);
    if (strcmp(chosen, name) == 0 && unlinkat(kernels->dir, "default", 0) != 0 && errno != ENOENT)
        return fail_errno(-errno, "%s/default: cannot be removed", kernels->path);
    snprintf(path, sizeof(path), "names/%s", name);
    if (unlinkat(kernels->dir, path, 0) != 0)
        return fail_errno(-errno, "%s/%s: cannot be removed", kernels->path, path);
    r = kernels_list(kernels, &entries, &count);
    if (r < 0)
        return r;
    if (!has_name(entries, count, hash))
        r = remove_kernel(kernels, hash);
    free(entries);
    return r;
}
