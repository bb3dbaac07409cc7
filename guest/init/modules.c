#include "init.h"
#include "moddep.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

/* include/uapi/linux/module.h: musl comes without the kernel's headers. */
#define MODULE_INIT_COMPRESSED_FILE 4

struct module_tree {
    char folder[sizeof("/lib/modules/") + sizeof(((struct utsname *)0)->release)];
    char *dependencies; /* the text of modules.dep */
    char *built_in;     /* the text of modules.builtin, NULL if there is none */
};

static int load_file(const struct module_tree *tree, struct span path)
{
    char file[512];
    int length = path.start[0] == '/'
                     ? snprintf(file, sizeof(file), "%.*s", (int)path.length, path.start)
                     : snprintf(file, sizeof(file), "%s/%.*s", tree->folder, (int)path.length, path.start);
    if (length < 0 || (size_t)length >= sizeof(file))
        return fail(-ENAMETOOLONG, "%.60s...: path too long", file);
    CLEANUP_FD int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(-errno, "%s", file);
    int flags = moddep_is_compressed(path) ? MODULE_INIT_COMPRESSED_FILE : 0;
    if (syscall(SYS_finit_module, fd, "", flags) != 0 && errno != EEXIST)
        return fail_errno(-errno, "%s", file);
    return 0;
}

static void load_module(const struct module_tree *tree, const char *name)
{
    struct span line;
    if (!moddep_find(tree->dependencies, name, &line)) {
        if (tree->built_in == NULL || !moddep_find(tree->built_in, name, &line))
            say("module %s: this kernel has none (is it misspelt in /etc/volt/modules?)", name);
        return;
    }
    struct span path;
    while (moddep_pop(&line, &path)) {
        if (load_file(tree, path) < 0) {
            say("module %s: %s", name, fail_text());
            return;
        }
    }
}

void load_modules(void)
{
    struct utsname kernel;
    struct module_tree tree = {0};
    char path[sizeof(tree.folder) + sizeof("/modules.builtin")];
    CLEANUP_FREE char *names = NULL;
    if (file_text("/etc/volt/modules", &names) < 0 || uname(&kernel) != 0)
        return; /* no modules are asked for */
    snprintf(tree.folder, sizeof(tree.folder), "/lib/modules/%s", kernel.release);
    snprintf(path, sizeof(path), "%s/modules.dep", tree.folder);
    if (file_text(path, &tree.dependencies) < 0)
        return; /* a kernel with everything built in, or an image made for another one */
    snprintf(path, sizeof(path), "%s/modules.builtin", tree.folder);
    (void)file_text(path, &tree.built_in);

    char *cursor = names;
    char *name;
    while ((name = file_line(&cursor)) != NULL)
        load_module(&tree, name);
    free(tree.dependencies);
    free(tree.built_in);
}
