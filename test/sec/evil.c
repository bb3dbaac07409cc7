/*
 * An attacker in the monitor. EVIL=THREAD/ACT: after its confinement the thread (loop, vcpu or opener) does
 * that act, and the process ends with what came of it: "allowed" or "refused ERRNO" on standard error, unless
 * the trap ended it before. EVIL=list: the acts, with what is to come of them.
 */
#include "acts.h"
#include "confine.h"

#include <stdio.h>
#include <string.h>

static bool wanted(const char *thread, const char **ret_act)
{
    const char *evil = getenv("EVIL");
    size_t length = strlen(thread);
    if (!evil || strncmp(evil, thread, length) != 0 || evil[length] != '/')
        return false;
    *ret_act = evil + length + 1;
    return true;
}

static void say_and_end(const char *words, long error)
{
    char line[64];
    int length = snprintf(line, sizeof(line), "%s %ld\n", words, error);
    (void)!write(STDERR_FILENO, line, (size_t)length);
    _exit(0);
}

static void be_evil(const char *thread)
{
    const char *name;
    if (!wanted(thread, &name))
        return;
    for (size_t i = 0; acts[i].name; i++) {
        if (strcmp(acts[i].name, name) != 0)
            continue;
        long r = acts[i].act();
        say_and_end(r < 0 ? "refused" : "allowed", -r);
    }
    say_and_end("unknown act", 0);
}

__attribute__((constructor)) static void list(void)
{
    const char *evil = getenv("EVIL");
    if (!evil || strcmp(evil, "list") != 0)
        return;
    for (size_t i = 0; acts[i].name; i++) {
        /* The opener of disks is tried with what none may do. */
        bool never =
            acts[i].loop == 'T' && acts[i].files == 'T' && acts[i].vcpu == 'T' && acts[i].makes == 'T';
        printf("%s %c %c %c %c %c %c %c\n", acts[i].name, acts[i].loop, acts[i].files, acts[i].vcpu,
               acts[i].makes, acts[i].copies, acts[i].connects, never ? 'T' : '-');
    }
    fflush(stdout);
    _exit(0);
}

void __real_confine_loop(void);
void __real_confine_vcpu(unsigned index);
void __real_confine_opener(void);
int __real_loop_new(unsigned entries, struct loop **ret_loop);
void __wrap_confine_loop(void);
void __wrap_confine_vcpu(unsigned index);
void __wrap_confine_opener(void);
int __wrap_loop_new(unsigned entries, struct loop **ret_loop);

void __wrap_confine_loop(void)
{
    __real_confine_loop();
    be_evil("loop");
}

void __wrap_confine_vcpu(unsigned index)
{
    __real_confine_vcpu(index);
    be_evil("vcpu");
}

void __wrap_confine_opener(void)
{
    __real_confine_opener();
    be_evil("opener");
}

int __wrap_loop_new(unsigned entries, struct loop **ret_loop)
{
    int r = __real_loop_new(entries, ret_loop);
    ring_of = r == 0 ? *ret_loop : NULL;
    return r;
}
