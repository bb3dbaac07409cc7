#!/bin/bash
# volt-vmm as a process, with a tiny guest: what it refuses at once and by name, and what ends it.
set -euo pipefail
. test/tap.sh

vmm=$PWD/${BUILD:-build}/volt-vmm
hello=$PWD/${BUILD:-build}/test/guest/hello
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# refused WORDS OPTION...: status 1, WORDS on standard error, and no waiting.
refused()
{
    local words=$1 status=0
    shift
    timeout -s KILL 10 "$vmm" "$@" >log 2>&1 </dev/null || status=$?
    cat log
    [ "$status" -eq 1 ] || { echo "status $status, not 1" && return 1; }
    grep -qF -- "$words" log || { echo "no '$words'" && return 1; }
}

no_file_to_boot()
{
    mkfifo fifo
    refused "--kernel fifo: a FIFO" --kernel fifo
    refused "--kernel /dev/zero: a device" --kernel /dev/zero
    refused "--kernel /etc: a folder" --kernel /etc
    refused "--initrd fifo: a FIFO" --kernel "$hello" --initrd fifo
}

sizes_of_memory()
{
    refused "cannot have 0 B of memory: give a multiple of 2M" --kernel "$hello" --memory 0
    refused "cannot have 3.0 MiB of memory" --kernel "$hello" --memory 3M
    refused "cannot have 2.0 TiB of memory" --kernel "$hello" --memory 2T
}

formats_of_disks()
{
    printf 'QFI\373\0\0\0\3' >disk.qcow2 && truncate -s 1M disk.qcow2
    printf 'KDMV\1' >disk.vmdk && truncate -s 1M disk.vmdk
    refused "disk.qcow2: a qcow2 image, not a raw disk" --kernel "$hello" --rootfs disk.qcow2
    refused "disk.qcow2: a qcow2 image, not a raw disk" --kernel "$hello" --disk disk.qcow2,direct
    refused "disk.vmdk: a vmdk image, not a raw disk" --kernel "$hello" --disk disk.vmdk,ro
}

# As its documentation and its SDK write them: every key is there, and what is not wanted is null or empty.
firecracker_configuration()
{
    truncate -s 1M disk
    cat >vm.json <<J
{"boot-source": {"kernel_image_path": "$hello", "boot_args": "end=s5", "initrd_path": null},
 "drives": [{"drive_id": "rootfs", "partuuid": null, "is_root_device": true, "cache_type": "Unsafe", "is_read_only": false,
             "path_on_host": "disk", "io_engine": "Sync", "rate_limiter": null, "socket": null}],
 "machine-config": {"vcpu_count": 1, "mem_size_mib": 128, "smt": false, "track_dirty_pages": false, "huge_pages": "None"},
 "cpu-config": null, "balloon": null, "network-interfaces": [], "vsock": null, "logger": null, "metrics": null,
 "mmds-config": null, "entropy": null, "pmem": [], "memory-hotplug": null}
J
    timeout -s KILL 20 "$vmm" --config vm.json </dev/null
}

# deaf COMMAND...: starts a guest that does nothing, in $pid.
deaf()
{
    "$@" "$vmm" --kernel "$hello" --cmdline deaf=1 --memory 32M --serial file=console >log 2>&1 </dev/null &
    pid=$!
    for _ in $(seq 100); do
        if grep -q hello console 2>/dev/null; then return; fi
        sleep 0.1
    done
    cat log && echo "the guest did not start" && return 1
}

ends_by() # SIGNAL STATUS
{
    local status=0
    kill "-$1" "$pid"
    wait "$pid" || status=$?
    cat log
    [ "$status" -eq "$2" ] || { echo "status $status after $1, not $2" && return 1; }
}

# ignored SIGNAL COMMAND...
ignored()
{
    local signal=$1
    shift
    rm -f console
    deaf "$@"
    kill "-$signal" "$pid"
    sleep 0.3
    kill -0 "$pid" || { cat log && echo "$signal ended it" && return 1; }
    ends_by TERM 143
}

with_int_ignored()
{
    trap '' INT
    exec "$@"
}

# Standard error is a pipe that is full and that nobody reads.
full_standard_error()
{
    mkfifo errors
    sleep 60 <>errors &
    local reader=$!
    exec 4<>errors
    dd if=/dev/zero of=errors bs=64k count=1 oflag=nonblock status=none || true
    rm -f console
    "$vmm" --kernel "$hello" --cmdline deaf=1 --memory 32M --serial file=console 2>errors </dev/null &
    pid=$!
    for _ in $(seq 100); do
        if grep -q hello console 2>/dev/null; then break; fi
        sleep 0.1
    done
    (sleep 10 && kill -KILL "$pid") &
    local killer=$! status=0
    kill "$pid"
    wait "$pid" || status=$?
    kill "$killer"
    exec 4>&-
    kill "$reader"
    [ "$status" -eq 143 ] || { echo "status $status" && return 1; }
}

if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    tap_skip "the process" "/dev/kvm cannot be opened on this machine"
    tap_done
    exit
fi

tap_run "process: a FIFO, a device or a folder is no kernel and no initrd" no_file_to_boot
tap_run "process: sizes of memory that no guest can have" sizes_of_memory
tap_run "process: qcow2 and vmdk are no raw disks" formats_of_disks
tap_run "process: a configuration as Firecracker's clients write it" firecracker_configuration
tap_run "process: SIGHUP that nohup ignores" ignored HUP nohup
tap_run "process: SIGINT that a script's & ignores" ignored INT with_int_ignored
rm -f console
tap_run "process: standard error that nobody reads" full_standard_error
tap_done
