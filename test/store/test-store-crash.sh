#!/bin/bash
# Faults at every step of every operation (crash.c), in memory where there is a file system for it.
set -euo pipefail
build=${BUILD:-build}

make -s store-tests
work=$(mktemp -d /dev/shm/store.XXXXXX 2>/dev/null || mktemp -d)
trap 'rm -rf "$work"' EXIT
"$build/test/store/crash" "$work/crash"
