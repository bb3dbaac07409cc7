#!/bin/sh
# shellcheck disable=SC2317 # the cases are called by tap_run
# The machines of test-init.sh, on a host or in the lab (busybox sh). Says TAP lines.
set -eu
# shellcheck source=test/tap.sh
. "${TAP:-/tap.sh}"

payload=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# machine WORDS OPTION...: a machine to its end, with WORDS on its kernel's command line; what stands on the standard input
# is typed. Console and log in $work, without carriage returns.
machine()
{
    words=$1
    shift
    status=0
    timeout -k 5 90 "$payload/volt-vmm" --kernel "$payload/vmlinuz" --initrd "$payload/initrd.cpio" --memory 256M \
        --append "$words" "$@" >output 2>log || status=$?
    tr -d '\r' <output >console
    tail -n 40 console
    echo "--- volt-vmm, status $status:"
    tail -n 5 log
    [ "$status" -eq 0 ]
}

fresh_root()
{
    cp "$payload/rootfs.ext4" root
}

says() # LINE: on the console
{
    grep -qxF -- "$1" console || { echo "the console has no line: $1" && return 1; }
}

never_says() # PATTERN
{
    if grep -q -- "$1" console; then
        echo "the console says: $1"
        return 1
    fi
}

ended() # HOW: powered off, or rebooted
{
    grep -q "the guest $1" log || { echo "not $1" && return 1; }
}

clean() # IMAGE: was unmounted, so there is no journal to replay
{
    e2fsck -fn "$1" >fsck 2>&1 || { cat fsck && return 1; }
    if grep -q 'recovering journal\|skipping journal' fsck; then
        cat fsck
        return 1
    fi
}

duties()
{
    fresh_root
    cp "$payload/second.ext4" second
    machine "rw volt.hostname=named TERM=vt100" --rootfs root --disk second </dev/null
    says "host=named home=/root term=vt100 path=set folder=/root"
    says "mounts=/ /dev /dev/pts /dev/shm /proc /run /sys /sys/fs/cgroup /tmp "
    says "tty=/dev/console"
    says "foreground=1"
    says "loopback=unknown" # what a loopback that is up calls itself
    says "writable=yes"
    says "zombies=0"
    says "hups=1"
    says "volt-init: /etc/volt/run: exit status 42"
    says "volt-init: some processes do not end, killing them"
    says "volt-init: powering off"
    never_says 'neither unmounted'
    ended "powered off"
    clean root
    clean second
}

wait_for_shell()
{
    tries=0
    until grep -q 'To leave:' output 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ]
        sleep 0.2
    done
}

typed() # COMMAND HOW: to the shell on the console
{
    fresh_root
    rm -f output
    { wait_for_shell && echo "$1"; } | machine "rw -- /bin/sh -l" --rootfs root
    ended "$2"
    never_says 'killing'
    clean root
}

read_only_root()
{
    fresh_root
    machine "ro -- sh -c \"touch /x || kill -9 \$\$\"" --rootfs root,ro </dev/null
    says "volt-init: sh: exit status 137 (killed by signal 9)"
    ended "powered off"
    cmp root "$payload/rootfs.ext4"
}

no_such_command()
{
    fresh_root
    machine "rw -- /bin/none" --rootfs root </dev/null
    says "volt-init: /bin/none: exit status 127"
    machine "rw -- /etc/passwd" --rootfs root </dev/null
    says "volt-init: /etc/passwd: exit status 126"
}

no_such_root()
{
    fresh_root
    machine "root=/dev/vdz" --disk root </dev/null
    says "volt-init: root=/dev/vdz: no such device after 10 s (disks there are: vda)"
    says "volt-init: cannot go on, rebooting"
    ended rebooted
    machine "root=/dev/vda rootfstype=vfat" --disk root </dev/null
    grep -q "volt-init: root=/dev/vda: cannot mount it as vfat" console
    machine "root=/dev/vda init=/sbin/none" --disk root </dev/null
    grep -q "volt-init: /sbin/none: cannot start it from /dev/vda: No such file" console
    ended rebooted
}

# A kernel without ACPI cannot power off: the sleep register is written by hand.
powers_off_without_acpi()
{
    machine "acpi=off -- none" </dev/null
    says "volt-init: none: exit status 127"
    ended "powered off"
}

tap_run "init: a machine is prepared, and ends clean" duties
tap_run "init: poweroff at the shell" typed poweroff "powered off"
tap_run "init: reboot at the shell" typed reboot rebooted
tap_run "init: the end of the shell" typed exit "powered off"
tap_run "init: a root that stays read-only" read_only_root
tap_run "init: a command that cannot be run" no_such_command
tap_run "init: a root that cannot be had" no_such_root
tap_run "init: power off without ACPI" powers_off_without_acpi
tap_done
