#!/bin/bash
# Tiny guests under this machine's /dev/kvm, hardware or emulated: what a monitor must do for any driver, and what it must do
# to a hostile one.
set -euo pipefail
. test/tap.sh

vmm=${VMM:-${BUILD:-build}/volt-vmm}
guests=${BUILD:-build}/test/guest
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# guest NAME CMDLINE OPTION...: it must say OK and the monitor must end well. Console in $work/console, log in $work/log.
guest()
{
    local name=$1 cmdline=$2 status=0
    rm -f "$work/console" # it is appended to
    shift 2
    timeout -k 5 60 "$vmm" --kernel "$guests/$name" --cmdline "$cmdline" --memory 32M --cpus 1 \
        --serial "file=$work/console" "$@" >"$work/log" 2>&1 || status=$?
    cat "$work/console" "$work/log"
    [ "$status" -eq 0 ] || { echo "status $status of volt-vmm" && return 1; }
    tr -d '\r' <"$work/console" | grep -x OK >/dev/null || { echo "the guest did not say OK" && return 1; }
}

# A disk of 1 MiB whose first sector can be told.
disk()
{
    rm -f "$work/disk"
    truncate -s 1M "$work/disk"
    printf 'first sector' | dd of="$work/disk" conv=notrunc status=none
}

hello()
{
    guest hello "some words end=$1"
    grep -q "command line 'some words end=$1" "$work/console"
}

memory()
{
    guest memory "memory_mib=$1" --memory "$1M"
}

block() # OPTION of the disk: ,direct
{
    disk
    guest block "sectors=2048" --disk "$work/disk$1"
    # The pattern of block.c: byte i is i * 7 + i / 512 + 1.
    for i in 0 1 511 512 8191; do
        [ "$(od -An -tu1 -j $((64 * 512 + i)) -N1 "$work/disk" | tr -d ' ')" -eq $(((i * 7 + i / 512 + 1) % 256)) ] ||
            { echo "byte $i of the pattern is wrong in the file" && return 1; }
    done
    [ "$(head -c 12 "$work/disk")" = "first sector" ]
}

block_read_only()
{
    disk
    local before
    before=$(sha256sum <"$work/disk")
    guest block "sectors=2048 ro=1" --disk "$work/disk,ro"
    [ "$before" = "$(sha256sum <"$work/disk")" ]
}

# hostile CASE reported|silent
hostile()
{
    disk
    guest hostile "case=$1 memory_mib=32 seed=${3:-1}" --disk "$work/disk"
    if [ "$2" = reported ]; then
        grep -q "$fault_words" "$work/log" || { echo "no log line has '$fault_words'" && return 1; }
    fi
}
fault_words="disk 0 (virtio-blk): the guest's driver broke the protocol"

if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    tap_skip "tiny guests" "/dev/kvm cannot be opened on this machine"
    tap_done
    exit
fi

tap_run "hello, then S5" hello s5
tap_run "hello, then the keyboard controller's reset" hello reboot
for mib in 4 32 512 3072 3074 5120; do
    tap_run "memory map of $mib MiB" memory "$mib"
done
tap_run "virtio-rng" guest rng ""
tap_run "virtio-blk" block ""
if dd if="$0" of=/dev/null iflag=direct bs=512 status=none 2>/dev/null; then
    tap_run "virtio-blk, past the page cache" block ,direct
else
    tap_skip "virtio-blk, past the page cache" "no direct I/O of 512 bytes on this file system"
fi
tap_run "virtio-blk, read-only" block_read_only
for case in head-index head-index-far next-index avail-jump chain-loop chain-self address-wrap address-hole address-edge \
    length-huge length-zero header-hole status-hole header-short no-status readable-after-writable indirect-nested \
    indirect-odd indirect-empty indirect-hole indirect-huge indirect-index indirect-loop queue-size-odd \
    queue-size-huge queue-size-zero queue-desc-hole queue-avail-wrap queue-used-hole queue-misaligned; do
    tap_run "hostile: $case" hostile "$case" reported
done
for case in reset-in-flight notify-early features-wild ack-flood shown-writes; do
    tap_run "hostile: $case" hostile "$case" silent
done
for seed in 1 2 3; do
    tap_run "hostile: registers-wild, seed $seed" hostile registers-wild silent "$seed"
    tap_run "hostile: ports-wild, seed $seed" hostile ports-wild silent "$seed"
done
tap_done
