#include "confine.h"

#include "base/log.h"
#include "dev/disk_cas.h"
#include "terminal.h"

#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static bool has(const struct config *config, enum sandbox_layer layer)
{
    return config->sandbox.layers & (1u << layer);
}

int confine_early(const struct config *config)
{
    if (config->sandbox.layers != SANDBOX_ALL)
        say("THE SANDBOX IS %s: a guest that breaks out has this user's rights "
            "(--sandbox is for debugging)",
            config->sandbox.layers ? "NOT WHOLE" : "OFF");
    return sandbox_early(&config->sandbox);
}

int confine_ring(const struct config *config, struct loop *loop)
{
    if (has(config, SANDBOX_RING))
        return loop_restrict(loop);
    return loop_submit(loop)
               ? 0
               : fail(-EIO, "the ring cannot be enabled"); /* no filter lets that happen later */
}

/* The folder of `path` in `folder`. */
static const char *folder_of(const char *path, char folder[PATH_MAX])
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof(copy), "%s", path);
    snprintf(folder, PATH_MAX, "%s", dirname(copy));
    return folder;
}

static int add_drive(struct sandbox_config *wanted, const struct config *config,
                     const struct drive_config *drive, char folder[PATH_MAX])
{
    const char *store = config->cas_store ? config->cas_store : getenv("STELLARIUM_STORE");
    if (disk_cas_is(drive->path)) { /* its objects are opened when they are read */
        wanted->opens_files = true;
        return sandbox_add_path(wanted, &(struct sandbox_path){.path = store});
    }
    if (!config->control_socket) /* nobody can ask for another one */
        return 0;
    const char *path = config->same_folders ? folder_of(drive->path, folder) : drive->path;
    return sandbox_add_path(wanted, &(struct sandbox_path){.path = path, .writable = !drive->read_only});
}

/* A TAP that is made anew on the host is opened again. A descriptor and passt need nothing later. */
static int add_nets(struct sandbox_config *wanted, const struct config *config)
{
    for (unsigned i = 0; i < config->net_count; i++)
        wanted->net =
            wanted->net || config->nets[i].kind == NET_KIND_TAP || config->nets[i].kind == NET_KIND_BRIDGE;
    return wanted->net
               ? sandbox_add_path(
                     wanted, &(struct sandbox_path){.path = "/dev/net/tun", .writable = true, .device = true})
               : 0;
}

/* A host's program is connected to when the guest does. Landlock has no say in that. */
static int add_vsock(struct sandbox_config *wanted, const struct config *config, char folder[PATH_MAX])
{
    if (!config->vsock.path)
        return 0;
    wanted->connects = true;
    return sandbox_add_path(
        wanted, &(struct sandbox_path){.path = folder_of(config->vsock.path, folder), .removes = true});
}

int confine(const struct config *config)
{
    static char folders[CONFIG_DRIVES_MAX][PATH_MAX], control[PATH_MAX], sockets[PATH_MAX];
    struct sandbox_config wanted = config->sandbox;
    int r = 0;
    wanted.trapped = terminal_restore;
    wanted.copies = false; /* who would ask for one? */
    for (unsigned i = 0; r == 0 && i < config->drive_count; i++)
        r = add_drive(&wanted, config, &config->drives[i], folders[i]);
    if (r == 0)
        r = add_nets(&wanted, config);
    if (r == 0)
        r = add_vsock(&wanted, config, sockets);
    if (r == 0 && config->control_socket) {
        wanted.opens_files = wanted.forks = true;
        wanted.copies = config->sandbox.copies;
        r = sandbox_add_path(
            &wanted,
            &(struct sandbox_path){.path = folder_of(config->control_socket, control), .removes = true});
    }
    if (r < 0)
        return r;
    tzset();      /* reads a file, once */
    say_text(""); /* opens standard error by way of /proc, once */
    return sandbox_close(&wanted);
}

void confine_vcpu(unsigned index)
{
    char name[16];
    snprintf(name, sizeof(name), "vcpu %u", index);
    sandbox_thread(SANDBOX_VCPU, name);
}

void confine_loop(void)
{
    sandbox_thread(SANDBOX_LOOP, "loop");
}

void confine_opener(void)
{
    sandbox_thread(SANDBOX_OPENER, "opener");
}
