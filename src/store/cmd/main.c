/* stellarium: the command line of the store. Each subcommand is a row of the table below and one function. */
#include "store/cmd/cmd.h"

#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define BASES_MAX 16

enum option_key {
    OPTION_STORE = 's',
    OPTION_JSON = 'j',
    OPTION_BASE = 'b',
    OPTION_SIZE = 'S',
    OPTION_DRY = 'n',
    OPTION_REREAD = 256,
    OPTION_FULL,
    OPTION_BUDGET,
    OPTION_IMAGE,
    OPTION_PLATFORM,
    OPTION_HELP,
    OPTION_VERSION
};

#define COMMON_OPTIONS                                                                                       \
    {"store", OPTION_STORE, "DIR", 0, "the store (default: $STELLARIUM_STORE)", 0},                          \
    {                                                                                                        \
        "json", OPTION_JSON, NULL, 0, "print JSON", 0                                                        \
    }

static const struct argp_option common_options[] = {COMMON_OPTIONS, {0}};

static const struct argp_option import_options[] = {
    COMMON_OPTIONS,
    {"base", OPTION_BASE, "NAME", 0, "an image that resembles this one (may be repeated)", 0},
    {"size", OPTION_SIZE, "SIZE", 0, "bytes of the file system (K, M, G, T)", 0},
    {"image", OPTION_IMAGE, "NAME", 0, "which image of an archive that has several", 0},
    {"platform", OPTION_PLATFORM, "OS/ARCH", 0, "which machine's image (default: linux/amd64)", 0},
    {"reread", OPTION_REREAD, NULL, 0, "read the source even if it looks unchanged", 0},
    {"budget", OPTION_BUDGET, "N", 0, "extents to a region of 2 MiB before it is written out whole (128)", 0},
    {0},
};

static const struct argp_option export_options[] = {
    COMMON_OPTIONS,
    {"no-sparse", OPTION_FULL, NULL, 0, "write zeros as well", 0},
    {0},
};

static const struct argp_option clone_options[] = {
    COMMON_OPTIONS,
    {"size", OPTION_SIZE, "SIZE", 0, "bytes of the volume (K, M, G, T; default: the image's)", 0},
    {0},
};

static const struct argp_option gc_options[] = {
    COMMON_OPTIONS,
    {"dry-run", OPTION_DRY, NULL, 0, "delete nothing, tell what would be deleted", 0},
    {0},
};

struct command {
    const char *name, *arguments, *summary, *help;
    unsigned least, most; /* arguments */
    const struct argp_option *options;
    int (*run)(const struct call *call);
};

static const struct command commands[] = {
    {"init", "", "make an empty store",
     "Makes an empty store at --store. Give it to the same user as the VMs: one store is one trust domain.",
     0, 0, common_options, command_init},
    {"import", "SOURCE NAME", "store an image under a name",
     "SOURCE is a disk (raw, compressed, or what qemu-img reads), a block device, a tar (compressed or not), "
     "a "
     "directory, or an OCI image (a layout or an "
     "archive of one, also what docker save writes). The latter three become an ext4 file system, the same "
     "for the "
     "same input. Pages that the earlier NAME or a --base has are not stored again. An unchanged file is "
     "recognised "
     "by its inode, size and times and not read again (--reread does). An import that was killed goes on "
     "where it "
     "was; one that fails gives its space back.",
     2, 2, import_options, command_import},
    {"export", "NAME FILE", "write an image out as a raw file",
     "FILE is made or replaced, whole, when all is written; - is standard output. Zeros are left out as "
     "holes. A block "
     "device that is in use or too small is refused. Every object is verified on the way.",
     2, 2, export_options, command_export},
    {"ls", "", "list images and volumes",
     "Images by name with their sizes, then registered volumes with their state, and what to do about it.", 0,
     0, common_options, command_ls},
    {"info", "NAME", "describe one image", "Sizes, objects, extents and fragmentation of an image.", 1, 1,
     common_options, command_info},
    {"clone", "NAME VOLUME", "make a writable volume of an image",
     "VOLUME is a directory to be made. Takes no space and the same time for any image; volt-vmm --volume "
     "boots from "
     "it. --size makes it larger than the image.",
     2, 2, clone_options, command_clone},
    {"commit", "VOLUME NAME", "make an image of a volume",
     "Stores what was written to the volume since it was cloned as the image NAME. The volume stays as it "
     "is, and must "
     "not be in use.",
     2, 2, common_options, command_commit},
    {"adopt", "VOLUME", "register a copied or moved volume",
     "A volume that was copied, restored, or moved to another file system becomes a volume of its own, with "
     "a new id. "
     "One that was moved within its file system is registered at its new path.",
     1, 1, common_options, command_adopt},
    {"rm", "NAME|VOLUME|ID", "remove an image or a volume",
     "An argument with a slash in it is a volume's path. An ID (8 digits or more of it, as ls shows) is a "
     "volume's: if "
     "that is no longer at its path, it is forgotten. Space is given back by gc.",
     1, 1, common_options, command_rm},
    {"gc", "", "delete what nothing needs",
     "Keeps what images, volumes, running VMs and imports need. May run at any time.", 0, 0, gc_options,
     command_gc},
    {"verify", "[NAME]", "read and hash everything, or one image",
     "Exit status 1 and a line for each problem if something is missing or does not match its hash.", 0, 1,
     common_options, command_verify},
    {"stat", "", "show what is stored and what is shared",
     "For each image: its bytes, those that are not zeros, and what removing it would give back.", 0, 0,
     common_options, command_stat},
    {"diff", "A B", "compare two images", "Prints the ranges of bytes that differ. Exit status 1 if any do.",
     2, 2, common_options, command_diff},
};

struct parse {
    const struct command *command;
    struct call call;
    char *arguments[2];
    const char *bases[BASES_MAX];
};

static error_t parse_number_option(struct parse *parse, int key, const char *text, struct argp_state *state)
{
    uint64_t number;
    if (size_parse(text, &number) < 0)
        argp_error(state, "%s", fail_text());
    if (key == OPTION_SIZE) {
        if (number == 0 || number % STORE_PAGE)
            argp_error(state, "--size %s: not a multiple of 4096", text);
        parse->call.size = number;
    } else {
        if (number == 0 || number > STORE_OBJECT_PAGES)
            argp_error(state, "--budget %s: from 1 to 512", text);
        parse->call.budget = (unsigned)number;
    }
    return 0;
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct parse *parse = state->input;
    struct call *call = &parse->call;
    switch (key) {
    case OPTION_STORE: call->store_path = text; return 0;
    case OPTION_JSON: call->json = true; return 0;
    case OPTION_BASE:
        if (call->base_count == BASES_MAX)
            argp_error(state, "--base: at most %d", BASES_MAX);
        parse->bases[call->base_count++] = text;
        return 0;
    case OPTION_SIZE:
    case OPTION_BUDGET: return parse_number_option(parse, key, text, state);
    case OPTION_IMAGE: call->image = text; return 0;
    case OPTION_PLATFORM: call->platform = text; return 0;
    case OPTION_REREAD: call->reread = true; return 0;
    case OPTION_FULL: call->full = true; return 0;
    case OPTION_DRY: call->dry_run = true; return 0;
    case ARGP_KEY_ARG:
        if (call->argument_count == parse->command->most)
            argp_error(state, "too many arguments");
        parse->arguments[call->argument_count++] = text;
        return 0;
    case ARGP_KEY_END:
        if (call->argument_count < parse->command->least)
            argp_error(state, "missing: %s", parse->command->arguments);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_help(FILE *to)
{
    fprintf(to, "Usage: stellarium [OPTION...] COMMAND [OPTION...] [ARGUMENT...]\n\n"
                "A content-addressable store of disk images. Images share every page they have in common; a "
                "clone of one\n"
                "takes a millisecond and no space. Every byte that is read was verified.\n\n");
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
        fprintf(to, "  %-8s %-15s %s\n", commands[i].name, commands[i].arguments, commands[i].summary);
    fprintf(to, "\nTry it:\n"
                "  export STELLARIUM_STORE=/var/lib/stellarium\n"
                "  stellarium init\n"
                "  stellarium import debian.raw debian\n"
                "  stellarium clone debian vm1\n"
                "  volt-vmm --kernel vmlinux --volume vm1 --cas-store $STELLARIUM_STORE --memory 256M\n"
                "  stellarium commit vm1 debian-configured\n"
                "  stellarium stat\n\n"
                "stellarium COMMAND --help tells more; so does man stellarium.\n");
}

static int exit_status(int result)
{
    if (result >= 0)
        return result;
    fprintf(stderr, "stellarium: %s\n", fail_text());
    switch (result) {
    case -EBADMSG:
    case -ENODATA:
    case -EPROTO: return EXIT_DAMAGED;
    case -EBUSY: return EXIT_BUSY;
    default: return EXIT_FAILED;
    }
}

static void print_warning(void *opaque, const char *message)
{
    (void)opaque;
    fprintf(stderr, "stellarium: warning: %s\n", message);
}

static int run_command(struct parse *parse)
{
    struct call *call = &parse->call;
    if (!call->store_path || !*call->store_path) {
        fprintf(stderr, "stellarium: which store? Give --store DIR or set STELLARIUM_STORE\n");
        return EXIT_USAGE;
    }
    int r = 0;
    if (parse->command->run != command_init)
        r = store_open(call->store_path, &call->store);
    if (call->store)
        store_on_warning(call->store, print_warning, NULL);
    if (r == 0)
        r = parse->command->run(call);
    r = exit_status(r);
    store_close(call->store);
    return r;
}

/* Options before the command, and which it is. Its own words are left for parse_and_run(). */
struct preface {
    const char *store_path;
    bool json;
    int command; /* its index in argv; 0: none */
};

static error_t parse_preface(int key, char *text, struct argp_state *state)
{
    struct preface *preface = state->input;
    switch (key) {
    case OPTION_STORE: preface->store_path = text; return 0;
    case OPTION_JSON: preface->json = true; return 0;
    case OPTION_HELP: print_help(stdout); exit(EXIT_DONE);
    case OPTION_VERSION: printf("stellarium %s\n", VOLT_VERSION); exit(EXIT_DONE);
    case ARGP_KEY_ARG:
        preface->command = state->next - 1;
        state->next = state->argc;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int parse_and_run(const struct command *command, const struct preface *preface, int count,
                         char **arguments)
{
    char program[64], doc[1024];
    snprintf(program, sizeof(program), "stellarium %s", command->name);
    snprintf(doc, sizeof(doc), "%s\v%s", command->summary, command->help);
    struct argp argp = {
        .options = command->options, .parser = parse_option, .args_doc = command->arguments, .doc = doc};
    struct parse parse = {.command = command,
                          .call = {.store_path = preface->store_path, .json = preface->json}};
    arguments[0] = program;
    parse.call.arguments = parse.arguments;
    parse.call.bases = parse.bases;
    if (argp_parse(&argp, count, arguments, 0, NULL, &parse) != 0)
        return EXIT_USAGE;
    return run_command(&parse);
}

int main(int argc, char **argv)
{
    static const struct argp_option options[] = {
        COMMON_OPTIONS,
        {"help", OPTION_HELP, NULL, 0, "list the commands", 0},
        {"version", OPTION_VERSION, NULL, 0, "print the version", 0},
        {0},
    };
    static const struct argp argp = {
        .options = options, .parser = parse_preface, .args_doc = "COMMAND [ARGUMENT...]"};
    struct preface preface = {.store_path = getenv("STELLARIUM_STORE")};
    argp_err_exit_status = EXIT_USAGE;
    signal(SIGXFSZ, SIG_IGN); /* a write beyond a limit is an error to tell, not an end */
    if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER | ARGP_NO_HELP, NULL, &preface) != 0)
        return EXIT_USAGE;
    if (!preface.command) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[preface.command];
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(name, commands[i].name) == 0)
            return parse_and_run(&commands[i], &preface, argc - preface.command, argv + preface.command);
    if (strcmp(name, "help") == 0) {
        print_help(stdout);
        return EXIT_DONE;
    }
    fprintf(stderr, "stellarium: '%s' is not a command (stellarium --help lists them)\n", name);
    return EXIT_USAGE;
}
