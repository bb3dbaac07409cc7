#!/bin/bash
# `make` itself: what it says without its packages, and that it builds nothing twice.
set -euo pipefail
. test/tap.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A compiler that finds neither liburing's header nor zlib's library.
cat >"$work/cc" <<'C'
#!/bin/sh
case $* in
-print-file-name=libz.a) echo libz.a && exit ;;
*-E*) ! grep -q liburing && exit; exit 1 ;;
esac
exec gcc "$@"
C
chmod +x "$work/cc"

# said STATUS WORDS...: runs make with $cc, expects the status and each of the words.
said()
{
    local want=$1 status=0 word
    shift
    make BUILD="$work/build" CC="$cc" >"$work/said" 2>&1 || status=$?
    cat "$work/said"
    [ "$status" -eq "$want" ] || { echo "status $status, not $want" && return 1; }
    for word; do
        grep -qF -- "$word" "$work/said" || { echo "it did not say: $word" && return 1; }
    done
}

missing_packages()
{
    cc=$work/cc
    said 2 "does not find: liburing.h libz.a" "apt-get install --no-install-recommends liburing-dev zlib1g-dev"
    if grep -q ' CC ' "$work/said"; then
        echo "something was compiled" && return 1
    fi
}

missing_compiler()
{
    cc=$work/absent
    said 2 "the compiler does not run: $work/absent" "gcc libc6-dev"
}

# What is linked is looked for: each library of the Makefile and of the folders' own has its line.
libraries_are_listed()
{
    local name
    sed -n 's/^[A-Z_]*LIBS *:=//p' Makefile src/*/module.mk guest/*/module.mk | grep -o -- '-l[a-z0-9_-]*' | while read -r name; do
        [ "$name" = -lm ] || grep -q " lib${name#-l}\.\(a\|so\)\( \|$\)" test/packages.build ||
            { echo "test/packages.build does not say which package has $name" && return 1; }
    done
}

nothing_twice()
{
    make -q all || { make -n all | head -n 20 && return 1; }
}

tap_run "make names the packages that are missing, and how to get them" missing_packages
tap_run "make names a compiler that is missing" missing_compiler
tap_run "each library that is linked has its package in the list" libraries_are_listed
tap_run "make has nothing left to do after make" nothing_twice
tap_done
