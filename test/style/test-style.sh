#!/bin/bash
# Whether the tree is written as it should be: what tools can tell about it.
set -euo pipefail
. test/tap.sh

# Of a checkout what git knows, of an unpacked archive everything.
files()
{
    if git rev-parse --git-dir >/dev/null 2>&1; then
        git ls-files -- "$@"
    else
        local pattern
        for pattern; do
            find . -path "./${BUILD:-build}" -prune -o -type f -name "${pattern##*/}" -print
        done
    fi
}

scripts()
{
    local file
    files '*' | while read -r file; do
        [ -f "$file" ] || continue
        case $(head -c 60 "$file" | head -n 1 | tr -d '\0') in
        '#!'*/sh | '#!'*/bash | '#!'*/busybox\ sh | '# shellcheck shell='*) echo "$file" ;;
        esac
    done
}

shell_scripts()
{
    scripts | xargs shellcheck -x
}

formatting()
{
    files '*.c' '*.h' | xargs clang-format --dry-run -Werror
}

# A file that grows past 600 lines has two subjects.
file_lengths()
{
    local long
    long=$(files '*.c' '*.h' | xargs wc -l | awk '$2 != "total" && $1 > 600')
    [ -z "$long" ] || { echo "$long" && return 1; }
}

# Everything that is compiled with the Makefile's flags; test/guest has no C library to find.
clang_tidy()
{
    files 'src/*.c' 'guest/*.c' | xargs -P 2 -I FILE sh -c \
        'clang-tidy --quiet FILE -- -Isrc -I'"${BUILD:-build}"'/src -isystem /usr/include/libnl3 -D_GNU_SOURCE -DVOLT_VERSION="\"\"" -std=gnu11 2>/dev/null || exit 1'
}

# Without leaks: cppcheck does not know the cleanup attribute (ASan looks for leaks). Without uninitialised members: it
# does not know what a function sets through a pointer (the compilers and the analyzer do).
run_cppcheck()
{
    files 'src/*.c' 'guest/*.c' | xargs cppcheck -q -j 2 --std=c11 --enable=warning,performance,portability \
        --inline-suppr --suppress=missingIncludeSystem --suppress=memleak --suppress=resourceLeak \
        --suppress=uninitStructMember -Isrc -D_GNU_SOURCE --error-exitcode=1
}

# The tree's own rules: tree.py says each.
tree_rule()
{
    local rule=$1
    shift
    files "$@" | xargs test/style/tree.py "$rule"
}

# Pictures, tables and lists stand in comments, and a formatter that fills lines destroys them.
formatter_leaves_comments()
{
    local comment='/* a picture  |  of two columns, in a line that is longer than the hundred and ten columns of this style, as the words of a table are */'
    [ "$(echo "$comment" | clang-format --style=file --assume-filename=x.c)" = "$comment" ]
}

tap_run "shellcheck" shell_scripts
tap_run "clang-format (remedy: make format)" formatting
tap_run "clang-format leaves comments alone" formatter_leaves_comments
tap_run "no file of more than 600 lines" file_lengths
tap_run "no function of more than 60 lines" tree_rule functions '*.c' '*.h'
tap_run "comments are whole, within 110 columns" tree_rule comments 'src/*.[ch]' 'guest/*.[ch]' 'test/*.[ch]' 'bench/*.[ch]'
tap_run "includes point down" tree_rule arrows 'src/*.[ch]' 'guest/*.[ch]'
tap_run "cppcheck" run_cppcheck
tap_run "clang-tidy" clang_tidy
tap_done
