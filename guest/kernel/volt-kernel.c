/* volt-kernel: the kernels that guests of this host boot. */
#include "import.h"

#include "base/tool.h"

#include <argp.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Exit statuses, as volt-kernel(1) lists them. */
enum { EXIT_OK = 0, EXIT_USAGE = 1, EXIT_FAILED = 2, EXIT_DAMAGED = 3 };

static const char doc[] =
    "Keeps the kernels that volt-vmm boots: unpacked, checked, unchangeable, each under its hash and any "
    "names."
    "\v"
    "Commands:\n"
    "  import FILE|PACKAGE [NAME]\n"
    "                  take in a vmlinux, a bzImage (vmlinuz), a .deb, or a Debian\n"
    "                  package by its name (fetched with apt-get download); without\n"
    "                  NAME the kernel's version is its name\n"
    "  build           make our own small kernel from Debian's linux-source, as\n"
    "                  `volt`, the default\n"
    "  ls              list the kernels\n"
    "  default [NAME]  show the default kernel, or choose it\n"
    "  path [NAME]     print the file to boot (of the default kernel)\n"
    "  verify [NAME]   hash a kernel, or all of them, again\n"
    "  rm NAME         forget a name, and the kernel if it has no other\n"
    "\n"
    "For NAME, the first eight digits or more of a kernel's SHA-256 do as well.\n"
    "Kernels lie in $VOLT_KERNEL_DIR; if that is not set, in\n"
    "/var/lib/volt/kernels for root, and for others in\n"
    "${XDG_DATA_HOME:-~/.local/share}/volt/kernels.\n"
    "\n"
    "Examples:\n"
    "  volt-kernel import linux-image-cloud-amd64 debian\n"
    "  volt-kernel import /boot/vmlinuz-$(uname -r)\n"
    "  volt-vmm --kernel $(volt-kernel path debian) ...\n"
    "\n"
    "Exit status: 0 done, 1 wrong usage, 2 it did not work, 3 a kernel is damaged.";

enum { OPTION_JSON = 'j', OPTION_MODULES = 'm', OPTION_INITRD = 'i' };
static const struct argp_option options[] = {
    {"json", OPTION_JSON, NULL, 0, "import, ls, verify: print JSON", 0},
    {"modules", OPTION_MODULES, NULL, 0, "path: print the folder of the kernel's modules instead", 0},
    {"initrd", OPTION_INITRD, NULL, 0,
     "path: print the initial RAM disk that was found beside the kernel instead", 0},
    {0},
};

struct request {
    bool json, modules, initrd;
    const char *word[4]; /* the command and its operands */
    int words;
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    struct request *request = state->input;
    switch (key) {
    case OPTION_JSON: request->json = true; return 0;
    case OPTION_MODULES: request->modules = true; return 0;
    case OPTION_INITRD: request->initrd = true; return 0;
    case ARGP_KEY_ARG:
        if (request->words == (int)ARRAY_SIZE(request->word))
            argp_error(state, "%s: too many words", argument);
        request->word[request->words++] = argument;
        return 0;
    case ARGP_KEY_NO_ARGS: argp_error(state, "a command is missing"); return EINVAL;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* `json` is released. */
static int print_json(json_t *json)
{
    if (!json)
        return fail(-ENOMEM, "no memory for JSON");
    int r =
        json_dumpf(json, stdout, JSON_INDENT(2)) == 0 ? 0 : fail(-EIO, "standard output: cannot be written");
    putchar('\n');
    json_decref(json);
    return r;
}

/* A kernel as `ls` and `import` print it: the facts about its file, then its notes. */
static json_t *entry_json(const struct kernels *kernels, const struct kernel_entry *entry, const char *chosen)
{
    CLEANUP_FREE char *path = NULL;
    json_t *notes = kernels_notes(kernels, entry->hash);
    json_t *json = json_pack("{s:s?, s:s, s:I, s:b}", "name", entry->name[0] ? entry->name : NULL, "sha256",
                             entry->hash, "bytes", (json_int_t)entry->bytes, "default",
                             entry->name[0] && strcmp(entry->name, chosen) == 0);
    if (kernels_file(kernels, entry->hash, &path) == 0)
        (void)kernel_note(json, "path", path);
    json_object_update(json, notes);
    json_decref(notes);
    return json;
}

static void tell_import(const char *path, const struct kernel_entry *entry, const json_t *notes,
                        bool is_default)
{
    static const char *const lines[][2] = {
        {"initrd", "initrd: "}, {"modules", "modules:"}, {"advice", "note:   "}};
    char size[SIZE_TEXT_MAX];
    printf("%s: Linux %s, %s, %s%s\n", entry->name, kernel_noted(notes, "version"),
           size_text(entry->bytes, size), path, is_default ? " (the default)" : "");
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
        if (kernel_noted(notes, lines[i][0]))
            printf("  %s %s\n", lines[i][1], kernel_noted(notes, lines[i][0]));
}

static int keep_imported(const struct request *request, const struct kernels *kernels,
                         struct imported *imported)
{
    const char *name = request->word[2] ? request->word[2] : kernel_noted(imported->notes, "version");
    struct kernel_entry entry = {.bytes = imported->length};
    char chosen[KERNEL_NAME_MAX + 1] = "";
    CLEANUP_FREE char *path = NULL;
    int r = kernels_check_name(name);
    if (r == 0)
        r = kernels_publish(kernels, imported->bytes, imported->length, imported->modules, imported->notes,
                            entry.hash);
    if (r == 0)
        r = kernels_set_name(kernels, name, entry.hash);
    if (r == 0)
        r = kernels_default(kernels, chosen);
    if (r == 0 && !chosen[0])
        r = kernels_set_default(kernels, name);
    if (r == 0)
        r = kernels_file(kernels, entry.hash, &path);
    if (r < 0)
        return r;
    const char *now_default = chosen[0] ? chosen : name;
    snprintf(entry.name, sizeof(entry.name), "%s", name);
    if (request->json)
        return print_json(entry_json(kernels, &entry, now_default));
    tell_import(path, &entry, imported->notes, strcmp(name, now_default) == 0);
    return 0;
}

static int do_import(const struct request *request, const struct kernels *kernels)
{
    struct imported imported = {0};
    int r = request->word[2] ? kernels_check_name(request->word[2]) : 0;
    if (r == 0)
        r = import_kernel(kernels, request->word[1], &imported);
    if (r < 0)
        return r;
    r = keep_imported(request, kernels, &imported);
    imported_free(&imported);
    return r;
}

/* build.sh lies beside the program's tree: PREFIX/share when installed, the source when not. */
static int build_script(const char *self, char **ret_path)
{
    static const char *const places[] = {"../share/volt/kernel/build.sh", "../guest/kernel/build.sh"};
    const char *set = getenv("VOLT_KERNEL_SCRIPT");
    int folder = (int)(strrchr(self, '/') - self);
    if (set) {
        *ret_path = strdup(set);
        return *ret_path ? 0 : fail(-ENOMEM, "no memory for a path");
    }
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        CLEANUP_FREE char *path = NULL;
        if (asprintf(&path, "%.*s/%s", folder, self, places[i]) < 0)
            return fail(-ENOMEM, "no memory for a path");
        if (access(path, X_OK) == 0) {
            *ret_path = ptr_steal(&path);
            return 0;
        }
    }
    return fail(-ENOENT, "build.sh: not found near %s (VOLT_KERNEL_SCRIPT can name it)", self);
}

static int do_build(const struct request *request, const struct kernels *kernels)
{
    (void)request;
    (void)kernels;
    CLEANUP_FREE char *script = NULL, *self = realpath("/proc/self/exe", NULL);
    if (!self)
        return fail_errno(-errno, "/proc/self/exe: cannot be read (is /proc mounted?)");
    int r = build_script(self, &script);
    if (r < 0)
        return r;
    const char *const arguments[] = {script, "--import-with", self, NULL};
    return run_tool(arguments, NULL, NULL);
}

static void tell_kernel(const struct kernels *kernels, const struct kernel_entry *entry, const char *chosen)
{
    json_t *notes = kernels_notes(kernels, entry->hash);
    const char *version = kernel_noted(notes, "version"), *source = kernel_noted(notes, "source");
    char size[SIZE_TEXT_MAX];
    printf("%c %-24s %-28s %10s  %.12s  %s\n", entry->name[0] && strcmp(entry->name, chosen) == 0 ? '*' : ' ',
           entry->name[0] ? entry->name : "-", version ? version : "?",
           entry->bytes ? size_text(entry->bytes, size) : "missing", entry->hash, source ? source : "?");
    json_decref(notes);
}

static int do_ls(const struct request *request, const struct kernels *kernels)
{
    char chosen[KERNEL_NAME_MAX + 1];
    CLEANUP_FREE struct kernel_entry *entries = NULL;
    size_t count = 0;
    int r = kernels_default(kernels, chosen);
    if (r == 0)
        r = kernels_list(kernels, &entries, &count);
    if (r < 0)
        return r;
    if (request->json) {
        json_t *list = json_array();
        for (size_t i = 0; i < count; i++)
            json_array_append_new(list, entry_json(kernels, &entries[i], chosen));
        return print_json(list);
    }
    if (count == 0)
        fprintf(
            stderr,
            "volt-kernel: no kernels yet (volt-kernel import linux-image-cloud-amd64 fetches Debian's)\n");
    else
        printf("  %-24s %-28s %10s  %-12s  %s\n", "NAME", "VERSION", "SIZE", "SHA-256", "SOURCE");
    for (size_t i = 0; i < count; i++)
        tell_kernel(kernels, &entries[i], chosen);
    return 0;
}

static int do_default(const struct request *request, const struct kernels *kernels)
{
    char chosen[KERNEL_NAME_MAX + 1] = "";
    if (request->word[1])
        return kernels_set_default(kernels, request->word[1]);
    int r = kernels_default(kernels, chosen);
    if (r == 0 && !chosen[0])
        r = fail(-ENOENT, "no default kernel (volt-kernel import, build or default NAME makes one)");
    if (r == 0)
        puts(chosen);
    return r;
}

static int do_path(const struct request *request, const struct kernels *kernels)
{
    char hash[OBJECT_ID_TEXT];
    CLEANUP_FREE char *path = NULL;
    int r = kernels_find(kernels, request->word[1], hash);
    if (r == 0)
        r = kernels_file(kernels, hash, &path);
    if (r < 0)
        return r;
    json_t *notes = kernels_notes(kernels, hash);
    const char *wanted = request->modules  ? kernel_noted(notes, "modules")
                         : request->initrd ? kernel_noted(notes, "initrd")
                                           : path;
    if (!wanted)
        r = fail(-ENOENT, "kernel %.12s: came without %s", hash, request->modules ? "modules" : "an initrd");
    else if (access(wanted, F_OK) != 0)
        r = fail_errno(-errno, "%s: cannot be found (import the kernel again)", wanted);
    else
        puts(wanted);
    json_decref(notes);
    return r;
}

/* Prints whether one kernel is good, or adds that to `list`. */
static int verify_one(const struct kernels *kernels, const char *name, const char *hash, json_t *list)
{
    int r = kernels_verify(kernels, hash);
    const char *verdict = r == 0 ? "good" : fail_text();
    if (list) {
        json_t *json = json_pack("{s:s?, s:s, s:b}", "name", name, "sha256", hash, "good", r == 0);
        (void)kernel_note(json, "verdict", verdict);
        json_array_append_new(list, json);
    } else
        printf("%-24s %.12s  %s\n", name ? name : "-", hash, verdict);
    return r;
}

static int do_verify(const struct request *request, const struct kernels *kernels)
{
    CLEANUP_FREE struct kernel_entry *entries = NULL;
    size_t count = 0;
    char hash[OBJECT_ID_TEXT];
    int damaged = 0;
    int r = request->word[1] ? kernels_find(kernels, request->word[1], hash)
                             : kernels_list(kernels, &entries, &count);
    if (r < 0)
        return r;
    json_t *list = request->json ? json_array() : NULL;
    if (request->word[1])
        damaged += verify_one(kernels, request->word[1], hash, list) < 0;
    for (size_t i = 0; i < count; i++)
        damaged +=
            verify_one(kernels, entries[i].name[0] ? entries[i].name : NULL, entries[i].hash, list) < 0;
    r = list ? print_json(list) : 0;
    return r < 0     ? r
           : damaged ? fail(-EBADMSG, "%d of the kernels are damaged (import them again)", damaged)
                     : 0;
}

static int do_rm(const struct request *request, const struct kernels *kernels)
{
    return kernels_remove(kernels, request->word[1]);
}

static const struct command {
    const char *name;
    int fewest, most; /* operands */
    int changes_with; /* with so many operands or more it changes the folder and takes the lock */
    int (*run)(const struct request *request, const struct kernels *kernels);
} commands[] = {
    {"import", 1, 2, 1, do_import},
    /* build.sh calls this program to import what it built, so this one must not hold the lock. */
    {"build", 0, 0, 1, do_build},
    {"ls", 0, 0, 1, do_ls},
    {"default", 0, 1, 1, do_default},
    {"path", 0, 1, 2, do_path},
    {"verify", 0, 1, 2, do_verify},
    {"rm", 1, 1, 1, do_rm},
};

static int run(const struct command *command, const struct request *request)
{
    struct kernels kernels;
    int r = kernels_open(request->words - 1 >= command->changes_with, &kernels);
    if (r < 0)
        return r;
    r = command->run(request, &kernels);
    kernels_close(&kernels);
    return r;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {options, parse, "COMMAND [OPERAND...]", doc, NULL, NULL, NULL};
    struct request request = {0};
    argp_err_exit_status = EXIT_USAGE;
    umask(022); /* kernels are for every user of the host */
    argp_program_version = "volt-kernel " VOLT_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, &request);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        const struct command *command = &commands[i];
        if (strcmp(command->name, request.word[0]) != 0)
            continue;
        if (request.words - 1 < command->fewest || request.words - 1 > command->most) {
            fprintf(stderr, "volt-kernel %s: %s operands (volt-kernel --help says which)\n", command->name,
                    request.words - 1 < command->fewest ? "too few" : "too many");
            return EXIT_USAGE;
        }
        int r = run(command, &request);
        if (r == 0 && fflush(stdout) != 0)
            r = fail_errno(-errno, "standard output");
        if (r < 0)
            fprintf(stderr, "volt-kernel: %s\n", fail_text());
        return r == 0 ? EXIT_OK : r == -EBADMSG ? EXIT_DAMAGED : EXIT_FAILED;
    }
    fprintf(stderr, "volt-kernel: %s: no such command (volt-kernel --help lists them)\n", request.word[0]);
    return EXIT_USAGE;
}
