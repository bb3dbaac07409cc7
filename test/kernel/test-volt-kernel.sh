#!/bin/bash
# volt-kernel, with kernels a few hundred bytes long: what it stores and refuses, names, damage, interruption, packages.
# The kernels are no kernels; what must boot is tested in test/machine.
set -euo pipefail
. test/tap.sh

volt_kernel=${BUILD:-build}/volt-kernel
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
export VOLT_KERNEL_DIR=$work/kernels

# make_vmlinux FILE VERSION [NOTE_TYPE]: an ELF64 x86-64 file with one PT_LOAD, one PT_NOTE and a banner.
make_vmlinux()
{
    python3 - "$1" "$2" "${3:-18}" <<'P'
import struct, sys
note = struct.pack('<III4sI', 4, 4, int(sys.argv[3]), b'Xen\0', 0x1000000)
banner = b'Linux version %s (x@y)\0Linux version ' + sys.argv[2].encode() + b' (volt@volt) #1\n\0'
at = 64 + 2 * 56
head = b'\x7fELF\2\1\1' + bytes(9) + struct.pack('<HHIQQQIHHHHHH', 2, 62, 1, 0x1000000, 64, 0, 0, 64, 56, 2, 0, 0, 0)
load = struct.pack('<IIQQQQQQ', 1, 5, at, 0x1000000, 0x1000000, len(note + banner), 4096, 4096)
notes = struct.pack('<IIQQQQQQ', 4, 0, at, 0, 0, len(note), len(note), 4)
open(sys.argv[1], 'wb').write(head + load + notes + note + banner)
P
}

# fails STATUS WORDS COMMAND...
fails()
{
    local want=$1 words=$2 status=0
    shift 2
    "$@" >"$work/said" 2>&1 || status=$?
    cat "$work/said"
    [ "$status" -eq "$want" ] || { echo "status $status, not $want" && return 1; }
    grep -qF -- "$words" "$work/said" || { echo "it did not say: $words" && return 1; }
}

import_and_name()
{
    "$volt_kernel" import "$work/one" first
    local hash path
    hash=$(sha256sum <"$work/one" | cut -d' ' -f1)
    path=$("$volt_kernel" path first)
    [ "$path" = "$VOLT_KERNEL_DIR/objects/$hash" ]
    cmp "$path" "$work/one"
    [ "$(stat -c %a "$path")" = 444 ]
    [ "$("$volt_kernel" path)" = "$path" ]          # the first is the default
    [ "$("$volt_kernel" path "${hash:0:8}")" = "$path" ]
    [ "$("$volt_kernel" path "$hash")" = "$path" ]
    [ "$(readlink -f "$VOLT_KERNEL_DIR/default")" = "$path" ]
}

named_by_version()
{
    "$volt_kernel" import "$work/two"
    [ "$("$volt_kernel" path 6.12.2-two)" = "$VOLT_KERNEL_DIR/objects/$(sha256sum <"$work/two" | cut -d' ' -f1)" ]
    [ "$("$volt_kernel" default)" = first ]
}

choose_default()
{
    "$volt_kernel" default 6.12.2-two
    [ "$("$volt_kernel" default)" = 6.12.2-two ]
    cmp "$("$volt_kernel" path)" "$work/two"
    fails 2 "no kernel of that name" "$volt_kernel" default nobody
    [ "$("$volt_kernel" default)" = 6.12.2-two ]
}

lists()
{
    "$volt_kernel" ls >"$work/said"
    grep -q '^  first .* 6\.12\.1-one ' "$work/said"
    "$volt_kernel" ls >"$work/said"
    grep -q '^\* 6\.12\.2-two ' "$work/said"
    "$volt_kernel" ls --json | python3 -c '
import json, sys
kernels = {k["name"]: k for k in json.load(sys.stdin)}
assert kernels["first"]["version"] == "6.12.1-one", kernels
assert not kernels["first"]["default"] and kernels["6.12.2-two"]["default"], kernels
assert kernels["first"]["path"].endswith(kernels["first"]["sha256"]), kernels'
}

name_moves()
{
    "$volt_kernel" import "$work/two" first
    cmp "$("$volt_kernel" path first)" "$work/two"
    "$volt_kernel" ls >"$work/said"
    grep -q '^  - .* 6\.12\.1-one ' "$work/said" # the kernel without a name is still there
    "$volt_kernel" import "$work/one" first
}

verify_finds_damage()
{
    "$volt_kernel" verify
    "$volt_kernel" verify first
    local path
    path=$("$volt_kernel" path first)
    chmod u+w "$path"
    printf X | dd of="$path" bs=1 seek=300 conv=notrunc status=none
    fails 3 damaged "$volt_kernel" verify first
    fails 3 damaged "$volt_kernel" verify
    "$volt_kernel" verify --json >"$work/json" && return 1
    python3 -c 'import json, sys; assert [k["good"] for k in json.load(open(sys.argv[1]))] == [True, False]' "$work/json"
    "$volt_kernel" import "$work/one" first # importing mends
    "$volt_kernel" verify
}

# Whatever an import that was killed left in tmp/ is gone after the next, and it was never in the way.
interrupted()
{
    mkdir -p "$VOLT_KERNEL_DIR/tmp/unpacked/boot"
    echo half >"$VOLT_KERNEL_DIR/tmp/file"
    ln -s nowhere "$VOLT_KERNEL_DIR/tmp/link"
    "$volt_kernel" ls >/dev/null
    "$volt_kernel" import "$work/one" first
    [ -z "$(ls -A "$VOLT_KERNEL_DIR/tmp")" ]
}

killed_at_random()
{
    local i
    for i in $(seq 40); do
        "$volt_kernel" import "$work/$([ $((i % 2)) = 0 ] && echo one || echo two)" turn >/dev/null 2>&1 &
        sleep "0.00$((i % 10))"
        kill -KILL $! 2>/dev/null || true
        wait $! 2>/dev/null || true
        "$volt_kernel" verify >/dev/null
        [ "$i" -lt 20 ] || { "$volt_kernel" path turn >/dev/null || [ ! -e "$VOLT_KERNEL_DIR/names/turn" ]; }
    done
    "$volt_kernel" import "$work/one" turn
    cmp "$("$volt_kernel" path turn)" "$work/one"
}

at_once()
{
    local i
    for i in 1 2 3 4 5 6; do
        "$volt_kernel" import "$work/$([ $((i % 2)) = 0 ] && echo one || echo two)" "many$i" &
    done
    wait
    "$volt_kernel" verify
    [ "$("$volt_kernel" ls | grep -c many)" = 6 ]
}

removes()
{
    "$volt_kernel" import "$work/three" third
    local path
    path=$("$volt_kernel" path third)
    "$volt_kernel" import "$work/three" again
    "$volt_kernel" rm third
    [ -e "$path" ]
    "$volt_kernel" default again
    "$volt_kernel" rm again
    [ ! -e "$path" ]
    fails 2 "no default kernel" "$volt_kernel" path
    fails 2 "no kernel of that name" "$volt_kernel" rm again
}

refuses()
{
    local before after
    before=$(find "$VOLT_KERNEL_DIR" | sort)
    fails 2 "neither an ELF kernel nor a bzImage" "$volt_kernel" import /etc/passwd bad
    : >"$work/empty"
    fails 2 "empty" "$volt_kernel" import "$work/empty" bad
    fails 2 "not a regular file" "$volt_kernel" import / bad
    fails 2 "no such file" "$volt_kernel" import "$work/absent" bad
    head -c 100 "$work/one" >"$work/short"
    fails 2 "program headers lie outside" "$volt_kernel" import "$work/short" bad
    head -c 200 "$work/one" >"$work/short"
    fails 2 "lies outside of it" "$volt_kernel" import "$work/short" bad
    fails 2 "without PVH entry" "$volt_kernel" import "$work/no-pvh" bad
    fails 2 "not a name for a kernel" "$volt_kernel" import "$work/one" ../bad
    fails 2 "not a name for a kernel" "$volt_kernel" import "$work/one" .bad
    fails 2 "not a name for a kernel" "$volt_kernel" path "a/b"
    fails 2 "no kernel of that name" "$volt_kernel" path bad
    after=$(find "$VOLT_KERNEL_DIR" | sort)
    [ "$before" = "$after" ]
}

usage()
{
    fails 1 "too few operands" "$volt_kernel" import
    fails 1 "too many operands" "$volt_kernel" ls there
    fails 1 "no such command" "$volt_kernel" frobnicate
    fails 1 "command is missing" "$volt_kernel"
    fails 1 "unrecognized option" "$volt_kernel" --frobnicate
    "$volt_kernel" --help >"$work/said"
    grep -q 'linux-image-cloud-amd64' "$work/said"
    "$volt_kernel" --version >"$work/said"
    grep -q '^volt-kernel ' "$work/said"
}

options_anywhere()
{
    "$volt_kernel" ls --json >"$work/behind"
    "$volt_kernel" --json ls >"$work/before"
    cmp "$work/before" "$work/behind"
    [ "$("$volt_kernel" --initrd path first 2>&1)" = "$("$volt_kernel" path --initrd first 2>&1)" ]
}

# Nothing that lies in the folder stops a command, or makes it wait.
stray_files()
{
    local before=$work/before dir=$VOLT_KERNEL_DIR
    "$volt_kernel" ls >"$before"
    local hash
    hash=$(basename "$("$volt_kernel" path first)")
    echo mine >"$dir/names/notes.txt"
    mkfifo "$dir/names/pipe" "$dir/objects/pipe"
    ln -s /etc/passwd "$dir/names/elsewhere"
    ln -s ../objects/nothing "$dir/names/broken"
    mkdir "$dir/names/folder" "$dir/objects/folder" "$dir/modules/folder"
    echo x >"$dir/names/.hidden"
    mv "$dir/objects/$hash.json" "$work/notes"
    timeout 5 "$volt_kernel" ls >"$work/said"
    grep -q '^. first ' "$work/said"
    timeout 5 "$volt_kernel" path first >/dev/null
    timeout 5 "$volt_kernel" verify >/dev/null
    mkfifo "$dir/objects/$hash.json" # notes that cannot be read are empty
    timeout 5 "$volt_kernel" ls >/dev/null
    timeout 5 "$volt_kernel" path first >/dev/null
    fails 2 "no kernel of that name" timeout 5 "$volt_kernel" path elsewhere
    fails 2 "no kernel of that name" timeout 5 "$volt_kernel" rm notes.txt
    timeout 5 "$volt_kernel" import "$work/one" first >/dev/null # writes the notes anew
    rm -r "$dir/names/"{notes.txt,pipe,elsewhere,broken,folder,.hidden} "$dir/objects/"{pipe,folder} "$dir/modules/folder"
    "$volt_kernel" ls >"$work/said"
    cmp "$before" "$work/said"
}

stray_default()
{
    local dir=$VOLT_KERNEL_DIR
    mv "$dir/default" "$work/default"
    ln -s /etc/passwd "$dir/default"
    timeout 5 "$volt_kernel" ls >/dev/null
    fails 2 "no default kernel" timeout 5 "$volt_kernel" path
    rm "$dir/default"
    mkfifo "$dir/default"
    timeout 5 "$volt_kernel" ls >/dev/null
    "$volt_kernel" default first
    cmp "$("$volt_kernel" path)" "$work/one"
    mv "$work/default" "$dir/default"
}

# What is no file is refused, and nothing waits for a writer.
never_waits()
{
    mkfifo "$work/pipe"
    fails 2 "not a regular file" timeout 5 "$volt_kernel" import "$work/pipe" bad
    fails 2 "not a regular file" timeout 5 "$volt_kernel" import /dev/zero bad
    fails 2 "not a regular file" timeout 5 "$volt_kernel" import /dev/null bad
    fails 2 "not a regular file" timeout 5 "$volt_kernel" import "$work" bad
    local hash=$VOLT_KERNEL_DIR/objects/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    mkfifo "$hash"
    fails 3 "not a file" timeout 5 "$volt_kernel" verify "$(basename "$hash")"
    rm "$hash"
}

# A path may hold any byte; JSON is UTF-8 all the same, in every locale.
any_path()
{
    local odd name locale
    odd=$work/$(printf 'odd \377\344')
    mkdir "$odd"
    cp "$work/one" "$odd/vmlinux"
    for locale in C C.UTF-8; do
        LC_ALL=$locale "$volt_kernel" import "$odd/vmlinux" odd >/dev/null
        LC_ALL=$locale "$volt_kernel" ls --json | python3 -c '
import json, sys
assert any(k["source"].endswith("odd ??/vmlinux") for k in json.loads(sys.stdin.buffer.read().decode()))'
    done
    name=$("$volt_kernel" path odd)
    "$volt_kernel" rm odd
    [ -e "$name" ]
    local there=$odd/kernels
    VOLT_KERNEL_DIR=$there "$volt_kernel" import "$work/one" there >/dev/null
    cmp "$(VOLT_KERNEL_DIR=$there "$volt_kernel" path)" "$work/one"
    VOLT_KERNEL_DIR=$there "$volt_kernel" ls --json | python3 -c 'import json, sys; assert len(json.load(sys.stdin)) == 1'
    VOLT_KERNEL_DIR=$there "$volt_kernel" verify --json | python3 -c 'import json, sys; assert json.load(sys.stdin)[0]["good"]'
}

# Kernels are for every user of the host, whatever root's umask.
umask_is_no_matter()
{
    umask 077
    VOLT_KERNEL_DIR=$work/shared/kernels "$volt_kernel" import "$work/one" one >/dev/null
    [ "$(stat -L -c %a "$work/shared/kernels/default")" = 444 ]
    [ "$(stat -c %a "$work/shared/kernels/objects")" = 755 ]
}

# A package as Debian's are, but with a small kernel; the image inside may be an ELF file as well.
package()
{
    local root=$work/package version=6.12.9-packed
    mkdir -p "$root/DEBIAN" "$root/boot" "$root/lib/modules/$version/kernel"
    make_vmlinux "$root/boot/vmlinuz-$version" $version
    echo CONFIG_VIRTIO_BLK=m >"$root/boot/config-$version"
    : >"$root/lib/modules/$version/kernel/x.ko"
    : >"$root/lib/modules/$version/modules.order"
    : >"$root/lib/modules/$version/modules.builtin"
    printf 'Package: x\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@y>\nDescription: x\n' >"$root/DEBIAN/control"
    dpkg-deb -b "$root" "$work/x.deb" >/dev/null
    "$volt_kernel" import "$work/x.deb" packed
    cmp "$("$volt_kernel" path packed)" "$root/boot/vmlinuz-$version"
    [ -e "$("$volt_kernel" path --modules packed)/lib/modules/$version/kernel/x.ko" ]
    "$volt_kernel" ls --json >"$work/said"
    grep -q 'boot it with an initrd' "$work/said"
    fails 2 "came without an initrd" "$volt_kernel" path --initrd packed
    rm -r "${root:?}/boot"
    dpkg-deb -b "$root" "$work/y.deb" >/dev/null
    fails 2 "a package without a kernel" "$volt_kernel" import "$work/y.deb" none
    head -c 200 "$work/x.deb" >"$work/z.deb"
    fails 2 "dpkg-deb" "$volt_kernel" import "$work/z.deb" none
}

# A name leads to a package that only depends on the kernel's: apt-get is played by a script.
package_by_name()
{
    local bin=$work/bin
    mkdir -p "$bin" "$work/meta/DEBIAN"
    printf 'Package: meta\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@y>\nDescription: x\nDepends: linux-image-x (= 1)\n' \
        >"$work/meta/DEBIAN/control"
    dpkg-deb -b "$work/meta" "$work/meta.deb" >/dev/null
    cat >"$bin/apt-get" <<A
#!/bin/sh
for name; do :; done
case \$name in meta) cp "$work/meta.deb" . ;; linux-image-x) cp "$work/x.deb" . ;; *) exit 100 ;; esac
A
    chmod +x "$bin/apt-get"
    PATH=$bin:$PATH "$volt_kernel" import meta by-name
    [ "$("$volt_kernel" path by-name)" = "$("$volt_kernel" path packed)" ]
    PATH=$bin:$PATH fails 2 "neither a file nor a package" "$volt_kernel" import linux-image-none none
}

# What a killed import left goes with the next command of any kind; while a program that it ran still writes, that is left alone.
killed_with_a_tool()
{
    local bin=$work/slow-bin pid
    mkdir "$bin"
    cat >"$bin/dpkg-deb" <<A
#!/bin/sh
mkdir -p "\$3/boot"
: >"$work/tool-runs"
while [ ! -e "$work/tool-may-end" ]; do sleep 0.01; done
: >"\$3/boot/late"
A
    chmod +x "$bin/dpkg-deb"
    PATH=$bin:$PATH "$volt_kernel" import "$work/x.deb" killed >/dev/null 2>&1 &
    pid=$!
    while [ ! -e "$work/tool-runs" ]; do sleep 0.01; done
    kill -KILL "$pid"
    wait "$pid" || true
    "$volt_kernel" ls >/dev/null
    [ -d "$VOLT_KERNEL_DIR/tmp/unpacked/boot" ]
    "$volt_kernel" import "$work/one" first >/dev/null & # waits for the tool
    pid=$!
    sleep 0.1
    [ -d "$VOLT_KERNEL_DIR/tmp/unpacked/boot" ]
    : >"$work/tool-may-end"
    wait "$pid"
    [ -z "$(ls -A "$VOLT_KERNEL_DIR/tmp")" ]
    mkdir "$VOLT_KERNEL_DIR/tmp/unpacked"
    "$volt_kernel" ls >/dev/null
    [ -z "$(ls -A "$VOLT_KERNEL_DIR/tmp")" ]
}

# Each line of the configuration has its reason, is named once, and build.sh reads it as it is meant.
configuration()
{
    if grep -nvE '^(#.*|)$|^CONFIG_[A-Z0-9_]+=([yn]|[0-9]+|0x[0-9a-f]+|"[^"]*") +# .+' guest/kernel/config; then
        return 1
    fi
    [ -z "$(sed -n 's/^\(CONFIG_[A-Z0-9_]*\)=.*/\1/p' guest/kernel/config | sort | uniq -d)" ]
}

make_vmlinux "$work/one" 6.12.1-one
make_vmlinux "$work/two" 6.12.2-two
make_vmlinux "$work/three" 6.12.3-three
make_vmlinux "$work/no-pvh" 6.12.4-four 17

tap_run "import stores under the hash, read-only, and names it" import_and_name
tap_run "without a name, the version is the name" named_by_version
tap_run "default chooses" choose_default
tap_run "ls lists, for people and as JSON" lists
tap_run "a name can move to another kernel" name_moves
tap_run "verify finds a damaged kernel, import mends it" verify_finds_damage
tap_run "what an interrupted import left is no obstacle" interrupted
tap_run "imports killed at forty moments leave kernels that verify" killed_at_random
tap_run "imports at the same time all succeed" at_once
tap_run "rm forgets a name, and the kernel with its last" removes
tap_run "what is not a kernel is refused with a reason and leaves nothing" refuses
tap_run "wrong usage is status 1 and teaches" usage
tap_run "a Debian package: kernel, modules and advice" package
tap_run "a package by name, through a package that depends on it" package_by_name
tap_run "options stand before the command or behind it" options_anywhere
tap_run "stray files in the folder stop no command" stray_files
tap_run "a default that is no kernel is none" stray_default
tap_run "a FIFO, a device or a folder is refused at once" never_waits
tap_run "a path that is not UTF-8, in two locales" any_path
tap_run "everybody can read a kernel, whatever the umask" umask_is_no_matter
tap_run "what a killed import left is removed, when its tools have ended" killed_with_a_tool
tap_run "each line of the configuration has a reason" configuration
tap_done
