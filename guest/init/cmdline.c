#include "cmdline.h"

#include <ctype.h>
#include <string.h>

/* Removes the character at `at` from its string. */
static void squeeze(char *at)
{
    memmove(at, at + 1, strlen(at + 1) + 1);
}

/*
 * The next word, or NULL at the end. Blanks separate words except between double quotes. Quotes around a
 * whole word, or around the value behind its first "=", are dropped; others stay (next_arg() in the
 * kernel's lib/cmdline.c).
 */
static char *next_word(char **cursor)
{
    char *word = *cursor;
    while (isspace((unsigned char)*word))
        word++;
    if (*word == '\0')
        return NULL;

    bool quoted = false;
    char *end = word;
    char *equals = NULL;
    for (; *end != '\0' && (quoted || !isspace((unsigned char)*end)); end++) {
        if (*end == '=' && equals == NULL)
            equals = end;
        if (*end == '"')
            quoted = !quoted;
    }
    *cursor = *end == '\0' ? end : end + 1;
    *end = '\0';

    char *opening = *word == '"' ? word : equals != NULL && equals[1] == '"' ? equals + 1 : NULL;
    if (opening != NULL) {
        if (end - 1 > opening && end[-1] == '"')
            end[-1] = '\0';
        squeeze(opening);
    }
    return word;
}

/* The value of an option "name=", or NULL if `word` is another. */
static const char *value_of(const char *word, const char *name)
{
    size_t length = strlen(name);
    return strncmp(word, name, length) == 0 ? word + length : NULL;
}

/* Adds to a list that ends with NULL; what has no room is left out. */
static void list_add(const char **list, const char *value)
{
    size_t count = 0;
    while (list[count] != NULL)
        count++;
    if (count < BOOT_WORDS)
        list[count] = value;
}

static void take_option(const char *word, struct boot_line *boot)
{
    const struct {
        const char *name;
        const char **value;
    } options[] = {
        {"root=", &boot->root}, {"rootfstype=", &boot->root_type},   {"rootflags=", &boot->root_flags},
        {"init=", &boot->init}, {"volt.hostname=", &boot->hostname}, {"volt.run=", &boot->run},
    };
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        const char *value = value_of(word, options[i].name);
        if (value != NULL)
            *options[i].value = *value == '\0' ? NULL : value; /* an empty value cancels an earlier one */
    }
    const struct {
        const char *name;
        const char **list;
    } lists[] = {{"ip=", boot->ip}, {"nameserver=", boot->nameservers}, {"rd.route=", boot->routes}};
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        const char *value = value_of(word, lists[i].name);
        if (value != NULL)
            list_add(lists[i].list, value);
    }
    if (strcmp(word, "rw") == 0 || strcmp(word, "ro") == 0)
        boot->root_writable = word[1] == 'w';
}

int boot_line_parse(char *line, struct boot_line *ret_boot)
{
    struct boot_line boot = {0};
    char *cursor = line;
    char *word;
    while ((word = next_word(&cursor)) != NULL && strcmp(word, "--") != 0)
        take_option(word, &boot);
    for (size_t words = 0; (word = next_word(&cursor)) != NULL; words++) {
        if (words == COMMAND_WORDS)
            return fail(-E2BIG,
                        "kernel command line: more than %d words behind -- (put them into /etc/volt/run)",
                        COMMAND_WORDS);
        boot.command[words] = word;
    }
    *ret_boot = boot;
    return 0;
}
