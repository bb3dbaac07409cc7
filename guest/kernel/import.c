#include "import.h"

#include "base/tool.h"
#include "boot/bzimage.h"
#include "store/files.h"
#include "vmlinux.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

/* A kernel with all its debug information is half a gigabyte. */
#define SOURCE_MAX (4 * GIB)
/* Debian's configurations have 300 KB. */
#define CONFIG_MAX (8 * MIB)

#define PACKAGE_LETTERS "abcdefghijklmnopqrstuvwxyz0123456789+.-"

void imported_free(struct imported *imported)
{
    if (imported->bytes)
        munmap(imported->bytes, imported->length);
    json_decref(imported->notes);
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
    return kernel_note(imported->notes, "version", version[0] ? version : "unknown");
}

/* vmlinuz-VERSION of an installed kernel has its initrd beside it and its modules in /lib/modules. */
static int note_neighbours(const char *path, json_t *notes)
{
    const char *version = kernel_noted(notes, "version");
    CLEANUP_FREE char *real = realpath(path, NULL), *initrd = NULL, *modules = NULL;
    if (!real)
        return fail_errno(-errno, "%s: cannot be found", path);
    *strrchr(real, '/') = '\0';
    if (asprintf(&initrd, "%s/initrd.img-%s", real, version) < 0 ||
        asprintf(&modules, "/lib/modules/%s", version) < 0)
        return fail(-ENOMEM, "no memory for a path");
    int r = access(initrd, F_OK) == 0 ? kernel_note(notes, "initrd", initrd) : 0;
    return r == 0 && access(modules, F_OK) == 0 ? kernel_note(notes, "modules", modules) : r;
}

/* Looking for the one file of a folder whose name begins with `prefix`. */
struct search {
    const char *prefix;
    char name[256];
};

static int look_at(void *opaque, const char *name)
{
    struct search *search = opaque;
    if (strncmp(name, search->prefix, strlen(search->prefix)) == 0)
        snprintf(search->name, sizeof(search->name), "%s", name);
    return search->name[0] ? 1 : 0;
}

/* 0 or a negative errno; -ENOENT if there is no such file or no such folder. */
static int find_file(const struct kernels *kernels, const char *folder, struct search *search)
{
    int r = each_entry(kernels->tmp, folder, look_at, search);
    return r > 0 ? 0 : r == 0 ? -ENOENT : r;
}

/* A package's configuration says whether what a microVM boots from is built in. */
static int note_advice(const struct kernels *kernels, json_t *notes)
{
    static const char *const needed[] = {"CONFIG_VIRTIO_MMIO=m\n", "CONFIG_VIRTIO_BLK=m\n",
                                         "CONFIG_EXT4_FS=m\n"};
    CLEANUP_FREE char *path = NULL, *config = malloc(CONFIG_MAX);
    if (!config || asprintf(&path, "unpacked/boot/config-%s", kernel_noted(notes, "version")) < 0)
        return fail(-ENOMEM, "no memory for a configuration");
    if (text_read(kernels->tmp, path, config, CONFIG_MAX) < 0)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        if (strstr(config, needed[i]))
            return kernel_note(
                notes, "advice",
                "its disk or file system drivers are modules: boot it with an initrd that holds them");
    return 0;
}

/* Moves the package's modules to tmp/modules, where kernels_publish() takes them from. */
static int take_modules(const struct kernels *kernels, struct imported *imported)
{
    static const char *const places[] = {"lib", "usr/lib"};
    const char *version = kernel_noted(imported->notes, "version");
    CLEANUP_FREE char *to = NULL, *base = NULL;
    if (asprintf(&base, "%s/tmp/modules", kernels->path) < 0 ||
        asprintf(&to, "modules/lib/modules/%s", version) < 0)
        return fail(-ENOMEM, "no memory for a path");
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        CLEANUP_FREE char *from = NULL;
        if (asprintf(&from, "unpacked/%s/modules/%s", places[i], version) < 0)
            return fail(-ENOMEM, "no memory for a path");
        if (faccessat(kernels->tmp, from, F_OK, 0) != 0)
            continue;
        /* root:root 0755 all the way, as a package has it: the image makers copy the folder as it is. */
        if (mkdirat(kernels->tmp, "modules", 0755) != 0 || mkdirat(kernels->tmp, "modules/lib", 0755) != 0 ||
            mkdirat(kernels->tmp, "modules/lib/modules", 0755) != 0 ||
            renameat(kernels->tmp, from, kernels->tmp, to) != 0)
            return fail_errno(-errno, "%s: cannot be stored", base);
        /* Debian's packages come without modules.dep; their installation script would make it. */
        const char *const depmod[] = {"depmod", "-b", base, version, NULL};
        if (run_tool(depmod, "kmod", NULL) < 0)
            fprintf(stderr, "volt-kernel: its modules have no modules.dep: %s\n", fail_text());
        imported->modules = "modules";
        return 0;
    }
    return 0;
}

/* -ENOENT without a message if the package holds no kernel. */
static int take_package(const struct kernels *kernels, const char *package, struct imported *imported)
{
    struct search search = {.prefix = "vmlinuz-"};
    CLEANUP_FREE char *unpacked = NULL, *path = NULL;
    if (asprintf(&unpacked, "%s/tmp/unpacked", kernels->path) < 0)
        return fail(-ENOMEM, "no memory for a path");
    const char *const unpack[] = {"dpkg-deb", "-x", package, unpacked, NULL};
    int r = run_tool(unpack, "dpkg", NULL);
    if (r == 0)
        r = find_file(kernels, "unpacked/boot", &search);
    if (r < 0)
        return r;
    if (asprintf(&path, "unpacked/boot/%s", search.name) < 0)
        return fail(-ENOMEM, "no memory for a path");
    CLEANUP_FD int fd = openat(kernels->tmp, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    r = fd < 0 ? fail_errno(-errno, "%s: cannot be opened", search.name)
               : take_image(fd, search.name, imported);
    const char *version = kernel_noted(imported->notes, "version");
    if (r == 0 && strcmp(version, search.name + strlen(search.prefix)) != 0)
        r = fail(-ENOEXEC, "%s: the kernel inside says that it is %s (is the package damaged?)", search.name,
                 version);
    if (r == 0)
        r = note_advice(kernels, imported->notes);
    return r < 0 ? r : take_modules(kernels, imported);
}

/* The first linux-image-... that a package depends on: linux-image-amd64 is only such a dependency. */
static int dependency(const char *package, char ret_name[256])
{
    const char *const ask[] = {"dpkg-deb", "-f", package, "Depends", NULL};
    CLEANUP_FREE char *answer = NULL;
    int r = run_tool(ask, "dpkg", &answer);
    if (r < 0)
        return r;
    const char *name = strstr(answer, "linux-image-");
    size_t length = name ? strspn(name, PACKAGE_LETTERS) : 0;
    if (length == 0 || length >= 256)
        return -ENOENT;
    memcpy(ret_name, name, length);
    ret_name[length] = '\0';
    return 0;
}

/* Downloads a package into a folder of tmp/. The caller frees *ret_path. */
static int fetch(const struct kernels *kernels, const char *name, char **ret_path)
{
    CLEANUP_FREE char *folder = NULL;
    struct search search = {.prefix = ""};
    if (asprintf(&folder, "%s/tmp/fetched-%s", kernels->path, name) < 0)
        return fail(-ENOMEM, "no memory for a path");
    const char *below = folder + strlen(kernels->path) + strlen("/tmp/");
    if (mkdirat(kernels->tmp, below, 0700) != 0)
        return fail_errno(-errno, "%s: cannot be made", folder);
    fprintf(stderr, "volt-kernel: fetching package %s with apt-get download\n", name);
    /* apt's unprivileged user cannot write to this folder. */
    const char *const download[] = {"apt-get",  "-qq", "-o", "APT::Sandbox::User=root",
                                    "download", name,  NULL};
    int r = run_tool_in(folder, download, "apt", NULL);
    if (r < 0)
        return fail(r, "%s: neither a file nor a package that apt-get can download (apt-get update may help)",
                    name);
    r = find_file(kernels, below, &search);
    if (r < 0)
        return fail(r, "%s: apt-get downloaded nothing", name);
    return asprintf(ret_path, "%s/%s", folder, search.name) < 0 ? fail(-ENOMEM, "no memory for a path") : 0;
}

static bool is_package_name(const char *text)
{
    return (islower((unsigned char)text[0]) || isdigit((unsigned char)text[0])) && strlen(text) > 1 &&
           strlen(text) < 128 && strspn(text, PACKAGE_LETTERS) == strlen(text);
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
    CLEANUP_FD int fd = open(source, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
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
    return r < 0 ? r : note_neighbours(source, imported->notes);
}

int import_kernel(const struct kernels *kernels, const char *source, struct imported *ret_imported)
{
    struct imported imported = {.notes = json_object()};
    char when[32];
    time_t now = time(NULL);
    struct tm utc;
    bool file = access(source, F_OK) == 0;
    CLEANUP_FREE char *path = file ? realpath(source, NULL) : NULL;
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    int r = file ? import_file(kernels, source, &imported) : import_package_name(kernels, source, &imported);
    if (r == 0)
        r = kernel_note(imported.notes, "imported", when);
    if (r == 0)
        r = kernel_note(imported.notes, "source", path ? path : source);
    if (r < 0) {
        imported_free(&imported);
        return r;
    }
    *ret_imported = imported;
    return 0;
}
