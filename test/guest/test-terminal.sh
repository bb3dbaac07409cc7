#!/bin/sh
# volt-vmm on a terminal, with a tiny guest (terminal.py has the tests).
set -eu
build=${BUILD:-build}
if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    echo "ok 1 - terminal # SKIP /dev/kvm cannot be opened on this machine"
    echo "1..1"
    exit
fi
exec /usr/bin/python3 test/guest/terminal.py "$build/volt-vmm" "$build/test/guest/hello"
