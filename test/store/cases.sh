#!/bin/sh
# shellcheck disable=SC2317 # the cases are called by tap_run
# VMs on disks of the store, on a host or in the lab (busybox sh). Says TAP lines. Runs in a folder with volt-vmm, stellarium,
# vmlinuz, initrd.cpio and rootfs.ext4 (which has test/store/inside as inside-store).
set -eu
# shellcheck source=test/tap.sh
. "${TAP:-/tap.sh}"

payload=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export STELLARIUM_STORE="$work/store" TMPDIR="$work"
stellarium=$payload/stellarium

# machine CASE OPTION...: to its end; the console is in console.text
machine()
{
    guest_case=$1
    shift
    timeout -k 5 90 "$payload/volt-vmm" --kernel "$payload/vmlinuz" --initrd "$payload/initrd.cpio" --memory 256M \
        --serial file=console "$@" --append "rw ${root:+root=$root }volt.run=\"inside-store $guest_case\"" >log 2>&1 </dev/null || true
    tr -d '\r' <console >console.text
    tail -c 2000 console.text
    cat log
}
fact()
{
    sed -n "s/^$1=//p" console.text | tail -n 1
}
# is NAME VALUE: a fact of the guest
is()
{
    [ "$(fact "$1")" = "$2" ] || { echo "$1 is '$(fact "$1")', not '$2'" && return 1; }
}
allocated() # bytes on disk of these files
{
    du -k "$@" | awk '{ sum += $1 } END { printf "%d\n", sum * 1024 }'
}

boots_a_volume()
{
    "$stellarium" clone root volume
    machine write --volume volume
    is "done" write
    sum=$(fact sum)
    machine check --volume volume
    is sum "$sum"
    "$stellarium" commit volume root2
    "$stellarium" export root2 raw
    e2fsck -fn raw
    "$stellarium" rm ./volume
    "$stellarium" clone root2 volume
    machine check --volume volume
    is sum "$sum"
    "$stellarium" verify
}

# Each writes 10 MiB; what the volumes take is what the guests wrote, within 5 %.
ten_clones()
{
    total=0
    n=0
    before=$(allocated store)
    while [ "$n" -lt 10 ]; do
        n=$((n + 1))
        "$stellarium" clone root "clone$n"
        machine write --volume "clone$n" >/dev/null
        is "done" write
        total=$((total + $(fact written)))
    done
    grown=$(($(allocated clone*) + $(allocated store) - before))
    echo "the guests wrote $total bytes, the clones and the store grew by $grown"
    [ "$grown" -le $((total * 105 / 100)) ]
    "$stellarium" verify
    n=0
    while [ "$n" -lt 10 ]; do
        n=$((n + 1))
        "$stellarium" rm "./clone$n"
    done
}

# What a guest has flushed is there after its VMM was killed, and the file system is whole.
killed()
{
    "$stellarium" clone root killed
    for seconds in 5 6.5 8; do
        rm -f console
        "$payload/volt-vmm" --kernel "$payload/vmlinuz" --initrd "$payload/initrd.cpio" --memory 256M --volume killed \
            --serial file=console --append 'rw volt.run="inside-store flush"' >log 2>&1 </dev/null &
        vmm=$!
        tries=0
        until grep -q '^flushed=' console 2>/dev/null; do
            tries=$((tries + 1))
            [ "$tries" -lt 300 ] || { cat console log && return 1; }
            sleep 0.2
        done
        sleep "0.${seconds#*.}"
        kill -KILL "$vmm"
        wait "$vmm" || true
        flushed=$(tr -d '\r' <console | sed -n 's/^flushed=\([0-9]*\)$/\1/p' | tail -n 1)
        machine "flushed $flushed" --volume killed
        is whole "$flushed"
        if grep -q '^torn=' console.text; then return 1; fi
    done
    "$stellarium" commit killed killed
    "$stellarium" export killed raw
    e2fsck -fn raw
    "$stellarium" rm ./killed
}

# Disk images with partition tables and small blocks: what is written to one is there in an image made of it.
partitions()
{
    "$stellarium" import "$payload/gpt.raw" gpt
    "$stellarium" import "$payload/mbr.raw" mbr
    "$stellarium" clone gpt parted
    root=/dev/vda1
    machine partitions --volume parted --disk cas:mbr
    is sectors "512/4096 512/4096"
    is gpt written
    is mbr written
    machine partitions --volume parted --disk cas:mbr,sector=4096
    is sectors "512/4096 4096/4096"
    is gpt found
    is mbr none # the table was written for sectors of another size
    "$stellarium" commit parted gpt
    "$stellarium" export gpt raw
    dd if=raw of=part bs=512 skip=133120 count=16384 2>/dev/null
    e2fsck -fn part
    "$stellarium" rm ./parted
}

discard()
{
    "$stellarium" clone root trimmed
    machine discard --volume trimmed
    is trimmed "done"
    "$stellarium" rm ./trimmed
}

# has_lease PID: it has a manifest open, which is locked then
has_lease()
{
    for descriptor in "/proc/$1/fd"/*; do
        case $(readlink "$descriptor" || true) in */manifests/*) return 0 ;; esac
    done
    return 1
}

# gc with nothing but a running VM to hold an image.
gc_while_running()
{
    "$stellarium" import "$payload/rootfs.ext4" held
    "$stellarium" rm root 2>/dev/null || true
    rm -f console
    "$payload/volt-vmm" --kernel "$payload/vmlinuz" --initrd "$payload/initrd.cpio" --memory 256M --disk cas:held \
        --serial file=console --append 'root=/dev/vda rw volt.run="inside-store write"' >log 2>&1 </dev/null &
    vmm=$!
    tries=0
    until has_lease "$vmm"; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { cat log && return 1; }
        sleep 0.1
    done
    "$stellarium" rm held
    "$stellarium" gc
    wait "$vmm" || echo "status $?"
    tr -d '\r' <console >console.text
    tail -c 2000 console.text
    cat log
    is "done" write
    "$stellarium" verify
    "$stellarium" gc
    "$stellarium" import "$payload/rootfs.ext4" root
}

# A corrupt object: an I/O error on that disk, the rest of it and the guest's root are fine.
corrupt()
{
    dd if=/dev/urandom of=random bs=1M count=8 2>/dev/null
    "$stellarium" import random random
    object=$(find store/objects -type f -size +2047k -size -2049k | while read -r file; do
        cmp -s -n 2097152 "$file" random && echo "$file"
    done | head -n 1)
    [ -n "$object" ]
    chmod u+w "$object"
    printf x | dd of="$object" bs=1 seek=100000 conv=notrunc 2>/dev/null
    "$stellarium" clone root healthy
    machine readdisk --volume healthy --disk cas:random,ro
    is read error
    is tail "$(dd if=random bs=1M skip=4 count=4 2>/dev/null | sha256sum | cut -c 1-16)"
    is alive yes
    grep -q corrupt log
    "$stellarium" rm ./healthy
    "$stellarium" rm random
    if "$stellarium" verify; then return 1; fi
    "$stellarium" gc
    "$stellarium" verify
}

"$stellarium" init >/dev/null
"$stellarium" import "$payload/rootfs.ext4" root >/dev/null 2>&1 # standard error is a terminal in the lab: no progress
tap_run "boots a volume, again, and from an image made of it" boots_a_volume
tap_run "ten clones take what was written to them" ten_clones
tap_run "what was flushed is there after kill -9" killed
tap_run "disk images with partitions" partitions
tap_run "discard" discard
tap_run "gc spares what a running VM stands on" gc_while_running
tap_run "a corrupt object is an I/O error on its disk only" corrupt
tap_done
