#include "import.h"

#include "boot/bzimage.h"
#include "child.h"
#include "vmlinux.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

/* A kernel with all its debug information is half a gigabyte. */
#define SOURCE_MAX (4 * GIB)

void imported_free(struct imported *imported)
{
    if (imported->bytes)
        munmap(imported->bytes, imported->length);
    free(imported->modules);
    kernel_notes_free(&imported->notes);
    *imported = (struct imported){0};
}

/* The file's bytes in memory of our own: a mapping of the file would change, or end in SIGBUS, when the file
 * does. */
static int read_source(int fd, const char *name, void **ret_bytes, size_t *ret_length)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return fail_errno(-errno, "%s: cannot be looked at", name);
    if (!S_ISREG(status.st_mode))
        return fail(-ENOEXEC, "%s: not a regular file", name);
    if (status.st_size == 0 || (uint64_t)status.st_size > SOURCE_MAX)
        return fail(-ENOEXEC, "%s: %s, not a kernel", name, status.st_size ? "larger than 4 GiB" : "empty");
    size_t length = (size_t)status.st_size;
    void *bytes = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        return fail_errno(-errno, "%s: no memory for its %zu bytes", name, length);
    int r = read_full_at(fd, bytes, length, 0);
    if (r < 0) {
        munmap(bytes, length);
        return fail_errno(r, "%s: cannot be read", name);
    }
    *ret_bytes = bytes;
    *ret_length = length;
    return 0;
}

/* Reads a kernel image and leaves a checked vmlinux in `imported`. */
static int take_image(int fd, const char *name, struct imported *imported)
{
    char version[VMLINUX_VERSION_MAX];
    int r = read_source(fd, name, &imported->bytes, &imported->length);
    if (r < 0)
        return r;
    if (bzimage_is(imported->bytes, imported->length)) {
        void *vmlinux;
        size_t length;
        r = bzimage_unpack(imported->bytes, imported->length, &vmlinux, &length);
        if (r < 0)
            return r;
        munmap(imported->bytes, imported->length);
        imported->bytes = vmlinux;
        imported->length = length;
    }
    r = vmlinux_check(name, imported->bytes, imported->length);
    if (r < 0)
        return r;
    vmlinux_version(imported->bytes, imported->length, version);
    imported->notes.version = strdup(version[0] ? version : "unknown");
    return imported->notes.version ? 0 : fail(-ENOMEM, "no memory for a version");
}

/* *ret_path becomes the path made of the format if there is such a file or folder; NULL if not. */
__attribute__((format(printf, 2, 3))) static int note_if_there(char **ret_path, const char *format, ...)
{
    char *path;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&path, format, arguments);
    va_end(arguments);
    if (length < 0)
        return fail(-ENOMEM, "no memory for a path");
    if (access(path, F_OK) != 0) {
        free(path);
        path = NULL;
    }
    *ret_path = path;
    return 0;
}

/* vmlinuz-VERSION of an installed kernel has its initrd beside it and its modules in /lib/modules. */
static int note_neighbours(const char *path, struct kernel_notes *notes)
{
    CLEANUP_FREE char *real = realpath(path, NULL);
    char *slash = real ? strrchr(real, '/') : NULL;
    int r = 0;
    if (slash) {
        *slash = '\0';
        r = note_if_there(&notes->initrd, "%s/initrd.img-%s", real, notes->version);
    }
    if (r == 0)
        r = note_if_there(&notes->modules, "/lib/modules/%s", notes->version);
    return r;
}

/* The one file of a folder whose name begins with `prefix`, opened. */
static int open_only(const char *folder, const char *prefix, char ret_name[256])
{
    DIR *stream = opendir(folder);
    char found[256] = "";
    if (!stream)
        return errno == ENOENT ? -ENOENT : fail_errno(-errno, "%s: cannot be read", folder);
    for (struct dirent *entry; (entry = readdir(stream));)
        if (entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && !found[0])
            snprintf(found, sizeof(found), "%s", entry->d_name);
    int fd = found[0] ? openat(dirfd(stream), found, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK) : -1;
    int r = !found[0] ? -ENOENT : fd < 0 ? fail_errno(-errno, "%s/%s: cannot be opened", folder, found) : fd;
    closedir(stream);
    if (r >= 0)
        memcpy(ret_name, found, sizeof(found));
    return r;
}

/* A package's configuration says whether what a microVM boots from is built in. */
static int note_advice(const char *unpacked, struct kernel_notes *notes)
{
    CLEANUP_FREE char *path = NULL, *line = NULL;
    if (asprintf(&path, "%s/boot/config-%s", unpacked, notes->version) < 0)
        return fail(-ENOMEM, "no memory for a path");
    FILE *config = fopen(path, "re");
    if (!config)
        return 0;
    bool module = false;
    size_t size = 0;
    while (getline(&line, &size, config) > 0)
        module |= !strcmp(line, "CONFIG_VIRTIO_MMIO=m\n") || !strcmp(line, "CONFIG_VIRTIO_BLK=m\n") ||
                  !strcmp(line, "CONFIG_EXT4_FS=m\n");
    fclose(config);
    if (!module)
        return 0;
    notes->advice =
        strdup("its disk or file system drivers are modules: boot it with an initrd that holds them");
    return notes->advice ? 0 : fail(-ENOMEM, "no memory for a note");
}

/* Gathers the package's modules where kernels_publish() takes them from. */
static int take_modules(const struct kernels *kernels, const char *unpacked, struct imported *imported)
{
    static const char *const places[] = {"lib/modules", "usr/lib/modules"};
    CLEANUP_FREE char *to = NULL, *base = NULL, *target = NULL;
    if (asprintf(&base, "%s/tmp/modules", kernels->path) < 0 || asprintf(&to, "%s/lib/modules", base) < 0 ||
        asprintf(&target, "%s/%s", to, imported->notes.version) < 0)
        return fail(-ENOMEM, "no memory for a path");
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        CLEANUP_FREE char *from = NULL;
        int r = note_if_there(&from, "%s/%s/%s", unpacked, places[i], imported->notes.version);
        if (r < 0)
            return r;
        if (!from)
            continue;
        /* root:root 0755 all the way, as a package has it: the image makers copy the folder as it is. */
        if (mkdir(base, 0755) != 0 || mkdirat(kernels->dir, "tmp/modules/lib", 0755) != 0 ||
            mkdir(to, 0755) != 0 || rename(from, target) != 0)
            return fail_errno(-errno, "%s: cannot be stored", target);
        /* Debian's packages come without modules.dep; their installation script would make it. */
        char *depmod[] = {"depmod", "-b", base, imported->notes.version, NULL};
        r = child_run(NULL, depmod);
        if (r < 0)
            fprintf(stderr, "volt-kernel: %s; its modules have no modules.dep (package kmod has depmod)\n",
                    fail_text());
        imported->modules = strdup("tmp/modules");
        return imported->modules ? 0 : fail(-ENOMEM, "no memory for a path");
    }
    return 0;
}

/* -ENOENT without words if the package holds no kernel. */
static int take_package(const struct kernels *kernels, const char *package, struct imported *imported)
{
    CLEANUP_FREE char *unpacked = NULL, *boot = NULL;
    char name[256];
    if (asprintf(&unpacked, "%s/tmp/unpacked", kernels->path) < 0 || asprintf(&boot, "%s/boot", unpacked) < 0)
        return fail(-ENOMEM, "no memory for a path");
    char *unpack[] = {"dpkg-deb", "-x", (char *)package, unpacked, NULL};
    int r = child_run(NULL, unpack);
    if (r < 0)
        return r;
    CLEANUP_FD int fd = open_only(boot, "vmlinuz-", name);
    if (fd < 0)
        return fd;
    r = take_image(fd, name, imported);
    if (r == 0 && strcmp(imported->notes.version, name + strlen("vmlinuz-")) != 0)
        r = fail(-ENOEXEC, "%s: the kernel inside says that it is %s (is the package damaged?)", name,
                 imported->notes.version);
    if (r == 0)
        r = note_advice(unpacked, &imported->notes);
    return r < 0 ? r : take_modules(kernels, unpacked, imported);
}

/* The first linux-image-... that a package depends on: linux-image-amd64 is only such a dependency. */
static int dependency(const char *package, char ret_name[256])
{
    char *ask[] = {"dpkg-deb", "-f", (char *)package, "Depends", NULL};
    char answer[4096];
    int r = child_read(ask, answer, sizeof(answer));
    if (r < 0)
        return r;
    const char *name = strstr(answer, "linux-image-");
    size_t length = name ? strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789+.-") : 0;
    if (length == 0 || length >= 256)
        return -ENOENT;
    memcpy(ret_name, name, length);
    ret_name[length] = '\0';
    return 0;
}

static int fetch(const struct kernels *kernels, const char *name, char **ret_path)
{
    CLEANUP_FREE char *folder = NULL;
    char file[256];
    if (asprintf(&folder, "%s/tmp/fetched-%s", kernels->path, name) < 0)
        return fail(-ENOMEM, "no memory for a path");
    if (mkdir(folder, 0700) != 0)
        return fail_errno(-errno, "%s: cannot be made", folder);
    fprintf(stderr, "volt-kernel: fetching package %s with apt-get download\n", name);
    /* The folder is nobody's but ours, so apt's unprivileged user could not write into it. */
    char *download[] = {"apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", (char *)name, NULL};
    int r = child_run(folder, download);
    if (r < 0)
        return fail(r, "%s: neither a file nor a package that apt-get can download (apt-get update may help)",
                    name);
    int fd = open_only(folder, "", file);
    if (fd < 0)
        return fail(-ENOENT, "%s: apt-get downloaded nothing", name);
    close(fd);
    if (asprintf(ret_path, "%s/%s", folder, file) < 0)
        return fail(-ENOMEM, "no memory for a path");
    return 0;
}

static bool is_package_name(const char *text)
{
    return (islower((unsigned char)text[0]) || isdigit((unsigned char)text[0])) && strlen(text) > 1 &&
           strlen(text) < 128 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+.-") == strlen(text);
}

static int import_package_name(const struct kernels *kernels, const char *source, struct imported *imported)
{
    char name[256];
    snprintf(name, sizeof(name), "%s", source);
    if (!is_package_name(source))
        return fail(-ENOENT, "%s: no such file", source);
    /* linux-image-amd64 -> linux-image-6.1.0-50-amd64; a third step would be a circle. */
    for (int depth = 0; depth < 3; depth++) {
        CLEANUP_FREE char *package = NULL;
        int r = fetch(kernels, name, &package);
        if (r == 0)
            r = take_package(kernels, package, imported);
        if (r != -ENOENT || imported->bytes)
            return r;
        r = dependency(package, name);
        if (r < 0)
            break;
    }
    return fail(-ENOENT, "%s: a package without a kernel (linux-image-cloud-amd64 has one)", source);
}

static int import_file(const struct kernels *kernels, const char *source, struct imported *imported)
{
    char magic[8] = "";
    CLEANUP_FD int fd = open(source, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail_errno(-errno, "%s: cannot be opened", source);
    if (pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
        memcmp(magic, "!<arch>\n", sizeof(magic)) == 0) {
        CLEANUP_FREE char *real = realpath(source, NULL);
        int r =
            real ? take_package(kernels, real, imported) : fail_errno(-errno, "%s: cannot be found", source);
        return r == -ENOENT ? fail(r, "%s: a package without a kernel in its /boot", source) : r;
    }
    int r = take_image(fd, source, imported);
    return r < 0 ? r : note_neighbours(source, &imported->notes);
}

int import_kernel(const struct kernels *kernels, const char *source, struct imported *ret_imported)
{
    struct imported imported = {0};
    char when[32];
    time_t now = time(NULL);
    struct tm utc;
    bool file = access(source, F_OK) == 0;
    int r = file ? import_file(kernels, source, &imported) : import_package_name(kernels, source, &imported);
    if (r == 0) {
        strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
        imported.notes.imported = strdup(when);
        imported.notes.source = file ? realpath(source, NULL) : strdup(source);
        if (!imported.notes.imported || !imported.notes.source)
            r = fail(-ENOMEM, "no memory for notes");
    }
    if (r < 0) {
        imported_free(&imported);
        return r;
    }
    *ret_imported = imported;
    return 0;
}
