#include "kernels.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define OBJECT_PATH_MAX (sizeof("objects/") + KERNEL_HASH_DIGITS + sizeof(".json"))

void kernel_notes_free(struct kernel_notes *notes)
{
    free(notes->version);
    free(notes->source);
    free(notes->imported);
    free(notes->initrd);
    free(notes->modules);
    free(notes->advice);
    *notes = (struct kernel_notes){0};
}

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

static int make_folders(const char *path)
{
    char copy[PATH_MAX];
    if (strlen(path) >= sizeof(copy))
        return fail(-ENAMETOOLONG, "%.40s...: too long a path (VOLT_KERNEL_DIR chooses another place)", path);
    memcpy(copy, path, strlen(path) + 1);
    for (char *slash = strchr(copy + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = '\0';
        if (mkdir(copy, 0755) != 0 && errno != EEXIST)
            return fail_errno(-errno, "%s: cannot be made (VOLT_KERNEL_DIR chooses another place)", copy);
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
        return fail_errno(-errno, "%s: left over from an import that was stopped, cannot be removed", tmp);
    if (mkdir(tmp, 0700) != 0)
        return fail_errno(-errno, "%s: cannot be made", tmp);
    return 0;
}

int kernels_open(bool change, struct kernels *ret_kernels)
{
    struct kernels kernels = {.dir = -1, .lock = -1};
    int r = kernels_folder(&kernels.path);
    if (r < 0)
        return r;
    r = make_folders(kernels.path);
    if (r < 0)
        goto fail;
    kernels.dir = open(kernels.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (kernels.dir < 0) {
        r = fail_errno(-errno, "%s: cannot be opened", kernels.path);
        goto fail;
    }
    if (change) {
        static const char *const parts[] = {"objects", "modules", "names"};
        for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
            if (mkdirat(kernels.dir, parts[i], 0755) != 0 && errno != EEXIST) {
                r = fail_errno(-errno, "%s/%s: cannot be made", kernels.path, parts[i]);
                goto fail;
            }
        kernels.lock = openat(kernels.dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (kernels.lock < 0 || flock(kernels.lock, LOCK_EX) != 0) {
            r = fail_errno(-errno, "%s/lock: cannot be locked", kernels.path);
            goto fail;
        }
        r = empty_tmp(&kernels);
        if (r < 0)
            goto fail;
    }
    *ret_kernels = kernels;
    return 0;
fail:
    kernels_close(&kernels);
    return r;
}

void kernels_close(struct kernels *kernels)
{
    if (kernels->lock >= 0)
        empty_tmp(kernels); /* best effort: the next to hold the lock does it again */
    cleanup_fd(&kernels->lock);
    cleanup_fd(&kernels->dir);
    free(kernels->path);
    kernels->path = NULL;
}

int kernels_check_name(const char *name)
{
    bool good = isalnum((unsigned char)name[0]) && strlen(name) <= KERNEL_NAME_MAX;
    for (const char *at = name; *at && good; at++)
        good = isalnum((unsigned char)*at) || strchr("._+-", *at);
    if (!good)
        return fail(-EINVAL, "%s: not a name for a kernel (letters, digits and . _ + -, at most %d)", name,
                    KERNEL_NAME_MAX);
    return 0;
}

static void object_path(const char *hash, const char *suffix, char ret_path[OBJECT_PATH_MAX])
{
    snprintf(ret_path, OBJECT_PATH_MAX, "objects/%.*s%s", KERNEL_HASH_DIGITS, hash, suffix);
}

static void hex(const unsigned char *digest, char ret_hash[KERNEL_HASH_DIGITS + 1])
{
    for (size_t i = 0; i < KERNEL_HASH_DIGITS / 2; i++)
        snprintf(ret_hash + 2 * i, 3, "%02x", digest[i]);
}

/* Writes a file that nobody sees before it is whole and on the disk; replaces what had its name. */
static int write_whole(const struct kernels *kernels, const void *bytes, size_t length, const char *path)
{
    CLEANUP_FD int fd =
        openat(kernels->dir, "tmp/file", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_errno(-errno, "%s/tmp/file: cannot be made", kernels->path);
    int r = write_full(fd, bytes, length);
    if (r < 0)
        return fail_errno(r, "%s/tmp/file: cannot be written", kernels->path);
    if (fchmod(fd, 0444) != 0 || fsync(fd) != 0 ||
        renameat(kernels->dir, "tmp/file", kernels->dir, path) != 0)
        return fail_errno(-errno, "%s/%s: cannot be stored", kernels->path, path);
    return 0;
}

static int sync_folder(const struct kernels *kernels, const char *folder)
{
    CLEANUP_FD int fd = openat(kernels->dir, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        return fail_errno(-errno, "%s/%s: cannot be brought to the disk", kernels->path, folder);
    return 0;
}

static int write_notes(const struct kernels *kernels, const char *hash, const struct kernel_notes *notes)
{
    json_t *json = json_pack("{s:s*, s:s*, s:s*, s:s*, s:s*, s:s*}", "version", notes->version, "source",
                             notes->source, "imported", notes->imported, "initrd", notes->initrd, "modules",
                             notes->modules, "advice", notes->advice);
    CLEANUP_FREE char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    if (!text)
        return fail(-EINVAL, "the notes of %.12s cannot be written as JSON (a path that is not UTF-8?)",
                    hash);
    char path[OBJECT_PATH_MAX];
    object_path(hash, ".json", path);
    return write_whole(kernels, text, strlen(text), path);
}

static int place_modules(const struct kernels *kernels, const char *hash, const char *modules,
                         struct kernel_notes *notes)
{
    char to[sizeof("modules/") + KERNEL_HASH_DIGITS];
    snprintf(to, sizeof(to), "modules/%.*s", KERNEL_HASH_DIGITS, hash);
    if (renameat(kernels->dir, modules, kernels->dir, to) != 0 && errno != ENOTEMPTY && errno != EEXIST)
        return fail_errno(-errno, "%s/%s: cannot be stored", kernels->path, to);
    char *path = NULL;
    if (asprintf(&path, "%s/%s", kernels->path, to) < 0)
        return fail(-ENOMEM, "no memory for a path");
    free(notes->modules);
    notes->modules = path;
    return sync_folder(kernels, "modules");
}

int kernels_publish(const struct kernels *kernels, const void *bytes, size_t length, const char *modules,
                    struct kernel_notes *notes, char ret_hash[KERNEL_HASH_DIGITS + 1])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char hash[KERNEL_HASH_DIGITS + 1], path[OBJECT_PATH_MAX];
    if (EVP_Digest(bytes, length, digest, NULL, EVP_sha256(), NULL) != 1)
        return fail(-EIO, "SHA-256 failed");
    hex(digest, hash);
    object_path(hash, "", path);
    /* An object that is there is believed only if it still is what its name says: importing again mends it.
     */
    int r = kernels_verify(kernels, hash);
    if (r < 0)
        r = write_whole(kernels, bytes, length, path);
    if (r == 0 && modules)
        r = place_modules(kernels, hash, modules, notes);
    if (r == 0)
        r = write_notes(kernels, hash, notes);
    if (r == 0)
        r = sync_folder(kernels, "objects");
    if (r == 0)
        memcpy(ret_hash, hash, sizeof(hash));
    return r;
}

static int replace_link(const struct kernels *kernels, const char *target, const char *path)
{
    if (unlinkat(kernels->dir, "tmp/link", 0) != 0 && errno != ENOENT)
        return fail_errno(-errno, "%s/tmp/link: cannot be removed", kernels->path);
    if (symlinkat(target, kernels->dir, "tmp/link") != 0 ||
        renameat(kernels->dir, "tmp/link", kernels->dir, path) != 0)
        return fail_errno(-errno, "%s/%s: cannot be made", kernels->path, path);
    return 0;
}

int kernels_set_name(const struct kernels *kernels, const char *name, const char *hash)
{
    char target[3 + OBJECT_PATH_MAX], path[sizeof("names/") + KERNEL_NAME_MAX];
    int r = kernels_check_name(name);
    if (r < 0)
        return r;
    snprintf(target, sizeof(target), "../objects/%.*s", KERNEL_HASH_DIGITS, hash);
    snprintf(path, sizeof(path), "names/%s", name);
    r = replace_link(kernels, target, path);
    return r < 0 ? r : sync_folder(kernels, "names");
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
    r = replace_link(kernels, target, "default");
    return r < 0 ? r : sync_folder(kernels, ".");
}

/* The last part of what a link points at, if `prefix` stands before it; "" if there is no such link. */
static int link_tail(const struct kernels *kernels, const char *path, const char *prefix, char tail[128])
{
    char target[256];
    ssize_t length = readlinkat(kernels->dir, path, target, sizeof(target) - 1);
    tail[0] = '\0';
    if (length < 0)
        return errno == ENOENT ? 0 : fail_errno(-errno, "%s/%s: cannot be read", kernels->path, path);
    target[length] = '\0';
    if (strncmp(target, prefix, strlen(prefix)) != 0 || (size_t)length - strlen(prefix) >= 128)
        return fail(-EINVAL, "%s/%s: points at %s, not at a kernel (remove it)", kernels->path, path, target);
    memcpy(tail, target + strlen(prefix), (size_t)length - strlen(prefix) + 1);
    return 0;
}

static bool is_hash(const char *text)
{
    return strlen(text) == KERNEL_HASH_DIGITS && strspn(text, "0123456789abcdef") == KERNEL_HASH_DIGITS;
}

int kernels_default(const struct kernels *kernels, char ret_name[KERNEL_NAME_MAX + 1])
{
    char name[128];
    int r = link_tail(kernels, "default", "names/", name);
    if (r == 0 && name[0])
        r = kernels_check_name(name);
    if (r < 0)
        return r;
    memcpy(ret_name, name, strlen(name) + 1);
    return 0;
}

static int find_by_digits(const struct kernels *kernels, const char *digits,
                          char ret_hash[KERNEL_HASH_DIGITS + 1])
{
    size_t length = strlen(digits);
    if (length < 8 || length > KERNEL_HASH_DIGITS || strspn(digits, "0123456789abcdef") != length)
        return fail(-ENOENT, "%s: no kernel of that name (volt-kernel ls lists them)", digits);
    struct kernel_entry *entries;
    size_t count;
    int r = kernels_list(kernels, &entries, &count);
    if (r < 0)
        return r;
    const char *found = NULL;
    for (size_t i = 0; i < count && r == 0; i++) {
        if (strncmp(entries[i].hash, digits, length) != 0)
            continue;
        if (found && strcmp(found, entries[i].hash) != 0)
            r = fail(-EINVAL, "%s: several kernels begin with these digits (give more of them)", digits);
        found = entries[i].hash;
    }
    if (r == 0 && !found)
        r = fail(-ENOENT, "%s: no kernel of that name or hash (volt-kernel ls lists them)", digits);
    if (r == 0)
        memcpy(ret_hash, found, KERNEL_HASH_DIGITS + 1);
    kernels_list_free(entries, count);
    return r;
}

int kernels_find(const struct kernels *kernels, const char *which, char ret_hash[KERNEL_HASH_DIGITS + 1])
{
    char chosen[KERNEL_NAME_MAX + 1], path[sizeof("names/") + KERNEL_NAME_MAX], hash[128];
    int r;
    if (!which) {
        r = kernels_default(kernels, chosen);
        if (r < 0)
            return r;
        if (!chosen[0])
            return fail(-ENOENT, "no default kernel (volt-kernel import, build or default makes one)");
        which = chosen;
    }
    r = kernels_check_name(which);
    if (r < 0)
        return strlen(which) == KERNEL_HASH_DIGITS ? find_by_digits(kernels, which, ret_hash) : r;
    snprintf(path, sizeof(path), "names/%s", which);
    r = link_tail(kernels, path, "../objects/", hash);
    if (r < 0)
        return r;
    if (!hash[0])
        return find_by_digits(kernels, which, ret_hash);
    if (!is_hash(hash))
        return fail(-EINVAL, "%s/%s: does not point at a kernel (import it again)", kernels->path, path);
    memcpy(ret_hash, hash, KERNEL_HASH_DIGITS + 1);
    return 0;
}

static char *note(const json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));
    return text ? strdup(text) : NULL;
}

void kernels_notes(const struct kernels *kernels, const char *hash, struct kernel_notes *ret_notes)
{
    char path[OBJECT_PATH_MAX];
    object_path(hash, ".json", path);
    *ret_notes = (struct kernel_notes){0};
    CLEANUP_FD int fd = openat(kernels->dir, path, O_RDONLY | O_CLOEXEC);
    json_t *json = fd >= 0 ? json_loadfd(fd, 0, NULL) : NULL;
    if (!json)
        return;
    *ret_notes = (struct kernel_notes){note(json, "version"), note(json, "source"),  note(json, "imported"),
                                       note(json, "initrd"),  note(json, "modules"), note(json, "advice")};
    json_decref(json);
}

static int hash_file(int fd, char ret_hash[KERNEL_HASH_DIGITS + 1])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char buffer[64 * KIB];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    int r = -ENOMEM;
    if (context)
        r = EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1 ? 0 : -EIO;
    while (r == 0) {
        ssize_t got = read(fd, buffer, sizeof(buffer));
        if (got == 0)
            break;
        if (got < 0)
            r = errno == EINTR ? 0 : -errno;
        else if (EVP_DigestUpdate(context, buffer, (size_t)got) != 1)
            r = -EIO;
    }
    if (r == 0 && EVP_DigestFinal_ex(context, digest, NULL) != 1)
        r = -EIO;
    EVP_MD_CTX_free(context);
    if (r == 0)
        hex(digest, ret_hash);
    return r;
}

int kernels_verify(const struct kernels *kernels, const char *hash)
{
    char path[OBJECT_PATH_MAX], found[KERNEL_HASH_DIGITS + 1];
    object_path(hash, "", path);
    CLEANUP_FD int fd = openat(kernels->dir, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(-errno, "%s/%s: cannot be opened (import it again)", kernels->path, path);
    int r = hash_file(fd, found);
    if (r < 0)
        return fail_errno(r, "%s/%s: cannot be read", kernels->path, path);
    if (strcmp(found, hash) != 0)
        return fail(-EBADMSG, "%s/%s: damaged, its SHA-256 is %s (import it again)", kernels->path, path,
                    found);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct kernel_entry *left = a, *right = b;
    if (!left->name || !right->name)
        return left->name ? -1 : right->name ? 1 : strcmp(left->hash, right->hash);
    return strcmp(left->name, right->name);
}

static int add_entry(const struct kernels *kernels, const char *name, const char *hash,
                     struct kernel_entry **entries, size_t *count)
{
    char path[OBJECT_PATH_MAX];
    struct stat status = {0};
    object_path(hash, "", path);
    if (fstatat(kernels->dir, path, &status, AT_SYMLINK_NOFOLLOW) != 0 && errno != ENOENT)
        return fail_errno(-errno, "%s/%s: cannot be looked at", kernels->path, path);
    struct kernel_entry *grown = reallocarray(*entries, *count + 1, sizeof(*grown));
    if (!grown)
        return fail(-ENOMEM, "no memory for a list of kernels");
    *entries = grown;
    struct kernel_entry *entry = &grown[*count];
    *entry = (struct kernel_entry){.name = name ? strdup(name) : NULL, .bytes = (uint64_t)status.st_size};
    memcpy(entry->hash, hash, KERNEL_HASH_DIGITS + 1);
    *count += 1;
    return name && !entry->name ? fail(-ENOMEM, "no memory for a name") : 0;
}

static bool has_name(const struct kernel_entry *entries, size_t count, const char *hash)
{
    for (size_t i = 0; i < count; i++)
        if (entries[i].name && strcmp(entries[i].hash, hash) == 0)
            return true;
    return false;
}

/* Calls nothing back: one pass over names/, one over objects/, told apart by `names`. */
static int list_folder(const struct kernels *kernels, bool names, struct kernel_entry **entries,
                       size_t *count)
{
    const char *folder = names ? "names" : "objects";
    int fd = openat(kernels->dir, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : fail_errno(-errno, "%s/%s: cannot be read", kernels->path, folder);
    DIR *stream = fdopendir(fd);
    if (!stream) {
        close(fd);
        return fail(-ENOMEM, "no memory for a list of kernels");
    }
    size_t named = *count;
    int r = 0;
    for (struct dirent *found; r == 0 && (found = readdir(stream));) {
        char path[sizeof("names/") + sizeof(found->d_name)], hash[128];
        if (!names) {
            if (is_hash(found->d_name) && !has_name(*entries, named, found->d_name))
                r = add_entry(kernels, NULL, found->d_name, entries, count);
            continue;
        }
        if (found->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "names/%s", found->d_name);
        r = link_tail(kernels, path, "../objects/", hash);
        if (r == 0 && is_hash(hash))
            r = add_entry(kernels, found->d_name, hash, entries, count);
    }
    closedir(stream);
    return r;
}

int kernels_list(const struct kernels *kernels, struct kernel_entry **ret_entries, size_t *ret_count)
{
    struct kernel_entry *entries = NULL;
    size_t count = 0;
    int r = list_folder(kernels, true, &entries, &count);
    if (r == 0)
        r = list_folder(kernels, false, &entries, &count);
    if (r < 0) {
        kernels_list_free(entries, count);
        return r;
    }
    if (count)
        qsort(entries, count, sizeof(*entries), by_name);
    *ret_entries = entries;
    *ret_count = count;
    return 0;
}

void kernels_list_free(struct kernel_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(entries[i].name);
    free(entries);
}

static int remove_object(const struct kernels *kernels, const char *hash)
{
    char path[OBJECT_PATH_MAX], modules[sizeof("modules/") + KERNEL_HASH_DIGITS];
    object_path(hash, ".json", path);
    unlinkat(kernels->dir, path, 0); /* notes are only notes */
    object_path(hash, "", path);
    if (unlinkat(kernels->dir, path, 0) != 0 && errno != ENOENT)
        return fail_errno(-errno, "%s/%s: cannot be removed", kernels->path, path);
    snprintf(modules, sizeof(modules), "modules/%s", hash);
    if (renameat(kernels->dir, modules, kernels->dir, "tmp/modules") != 0)
        return errno == ENOENT ? 0 : fail_errno(-errno, "%s/%s: cannot be removed", kernels->path, modules);
    return empty_tmp(kernels);
}

int kernels_remove(const struct kernels *kernels, const char *name)
{
    char chosen[KERNEL_NAME_MAX + 1], path[sizeof("names/") + KERNEL_NAME_MAX], hash[128];
    int r = kernels_check_name(name);
    if (r < 0)
        return r;
    snprintf(path, sizeof(path), "names/%s", name);
    r = link_tail(kernels, path, "../objects/", hash);
    if (r == 0)
        r = kernels_default(kernels, chosen);
    if (r < 0)
        return r;
    if (!is_hash(hash))
        return fail(-ENOENT, "%s: no kernel of that name (volt-kernel ls lists them)", name);
    if (strcmp(chosen, name) == 0 && unlinkat(kernels->dir, "default", 0) != 0 && errno != ENOENT)
        return fail_errno(-errno, "%s/default: cannot be removed", kernels->path);
    if (unlinkat(kernels->dir, path, 0) != 0)
        return fail_errno(-errno, "%s/%s: cannot be removed", kernels->path, path);
    struct kernel_entry *entries;
    size_t count;
    r = kernels_list(kernels, &entries, &count);
    if (r < 0)
        return r;
    if (!has_name(entries, count, hash))
        r = remove_object(kernels, hash);
    kernels_list_free(entries, count);
    return r;
}
