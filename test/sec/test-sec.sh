#!/bin/bash
# The sandbox against an attacker inside of it (evil.c), and from outside: what /proc shows of a running VM.
set -euo pipefail
. test/tap.sh

top=$PWD
build=$(cd "${BUILD:-build}" && pwd)
make -s BUILD="$build" sec-tests guests
evil=$build/test/sec/evil-vmm
vmm=$build/volt-vmm
guest=$build/test/guest/hello
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir allowed read-only
truncate -s 1M allowed/disk
echo x | tee allowed/file >read-only/file
options=(--kernel "$guest" --memory 32M --serial off)
landlock=$(EVIL=loop/landlock "$evil" "${options[@]}" --sandbox=limits 2>&1 | sed -n 's/^allowed 0$/1/p')

# NAME THREAD EXPECTED OPTION...: one act, compared.
try()
{
    local name=$1 thread=$2 expected=$3 status=0 said
    shift 3
    [ "$expected" != - ] || return 0
    { EVIL=$thread/$name timeout 20 "$evil" "${options[@]}" "$@" >out 2>err </dev/null || status=$?; } 2>/dev/null
    case $expected in
    T) # with the words, or by the kernel itself for calls of another kind of program
        said="the sandbox ends the VM: thread $thread.* called "
        [ "$status" -eq 159 ] && { [ "$name" = x32 ] || grep -q "$said" err; } && return
        ;;
    R) [ "$status" -eq 0 ] && grep -q '^refused' err && return ;;
    A) [ "$status" -eq 0 ] && grep -q '^allowed' err && return ;;
    esac
    echo "$thread: $name: not $expected but status $status: $(cat err)"
    return 1
}

# COLUMN THREAD OPTION...: every act, with what that column of the list expects.
try_all()
{
    local column=$1 thread=$2 bad=0 count=0 name expected
    shift 2
    while read -r name expected; do
        if [ -z "$landlock" ] && [[ $column = [356] ]] && [ "$expected" = R ] && [[ $name != ring* ]]; then
            continue # only Landlock refuses it
        fi
        rm -f vm.sock guest.vsock
        try "$name" "$thread" "$expected" "$@" || bad=1
        count=$((count + 1))
    done < <(EVIL=list "$evil" | cut -d ' ' -f "1,$column")
    [ "$count" -gt 100 ] || { echo "only $count acts" && return 1; }
    return "$bad"
}

# Waits, 10 seconds at most, until COMMAND... succeeds.
until_true()
{
    local i
    for ((i = 0; i < 200; i++)); do
        if "$@"; then return; fi
        sleep 0.05
    done
    echo "it took too long: $*"
    return 1
}

seen_from_outside()
{
    local task count=0 bad=0
    rm -f vm.sock
    "$vmm" "${options[@]}" --cmdline deaf=1 --cpus 2 --api-sock vm.sock >out 2>err </dev/null &
    vm=$!
    until_true "$build/voltctl" --dir "$work" sandbox ./vm.sock >report || { cat err && kill "$vm" && return 1; }
    until_true grep -q 'Seccomp:.2' /proc/$vm/task/$vm/status || bad=1
    for task in /proc/"$vm"/task/*; do
        for line in 'Seccomp:.2' 'NoNewPrivs:.1' 'CapInh:.0*' 'CapPrm:.0*' 'CapEff:.0*' 'CapBnd:.0*' 'CapAmb:.0*'; do
            [ "$(id -u)" -eq 0 ] || [ "$line" != 'CapBnd:.0*' ] || continue # dropping needs a right that a user has not
            grep -qx "$line" "$task/status" || { echo "$(cat "$task/comm"): $(grep "^${line%%:*}:" "$task/status")" && bad=1; }
        done
        count=$((count + 1))
    done
    [ "$count" -ge 3 ] || bad=1
    grep -q '^Max core file size *0 *0' /proc/$vm/limits || bad=1
    "$build/voltctl" --dir "$work" sandbox ./vm.sock >report
    cat report
    grep -q '"name":"seccomp","in_force":true' report || bad=1
    grep -q '"name":"vcpu 1","id":[0-9]*,"seccomp":2,"filters":1,"no_new_privs":true' report || bad=1
    grep -q '"path":"'"$work"'","access":"remove files"' report || bad=1
    kill "$vm"
    wait "$vm" || true
    [ ! -e vm.sock ] || { echo "the socket is still there" && bad=1; }
    return "$bad"
}

switched_off()
{
    "$vmm" "${options[@]}" --sandbox=off >out 2>err </dev/null
    grep -q 'THE SANDBOX IS OFF' err
    "$vmm" "${options[@]}" --sandbox=seccomp,ring >out 2>err </dev/null
    grep -q 'THE SANDBOX IS NOT WHOLE' err
    local status=0
    "$vmm" "${options[@]}" --sandbox=walls >out 2>err </dev/null || status=$?
    [ "$status" -eq 1 ] && grep -q "give off, or a list of seccomp" err
}

# Root's files are out of reach, also where there is no Landlock.
another_user()
{
    local status=0 bad=0
    "$vmm" "${options[@]}" --uid 0 --gid 0 >out 2>err </dev/null || status=$?
    [ "$status" -eq 1 ] && grep -q "not root's" err || bad=1
    status=0
    "$vmm" "${options[@]}" --uid 4711 >out 2>err </dev/null || status=$?
    [ "$status" -eq 1 ] && grep -q 'give both or none' err || bad=1
    "$vmm" "${options[@]}" --cmdline deaf=1 --uid 4711 --gid 4712 --disk allowed/disk >out 2>err </dev/null &
    vm=$!
    if [ "$(id -u)" -ne 0 ]; then
        status=0
        wait "$vm" || status=$?
        [ "$status" -eq 2 ] && grep -q 'only root can' err && return "$bad"
        return 1
    fi
    until_true grep -q 'Seccomp:.2' "/proc/$vm/status" || bad=1
    for task in /proc/"$vm"/task/*; do
        for line in 'Uid:.4711.4711.4711.4711' 'Gid:.4712.4712.4712.4712' 'Groups:[ 	]*' 'CapPrm:.0*' 'CapEff:.0*' 'CapBnd:.0*'; do
            grep -qx "$line" "$task/status" || { grep "^${line%%:*}:" "$task/status" && bad=1; }
        done
    done
    kill "$vm"
    wait "$vm" || true
    grep -q 'ended by signal 15' err || { cat err && bad=1; }
    return "$bad"
}

each_alone()
{
    local layer
    for layer in seccomp ring landlock capabilities limits; do
        [ "$layer" != landlock ] || [ -n "$landlock" ] || continue
        "$vmm" "${options[@]}" --sandbox="$layer" >out 2>err </dev/null || { echo "$layer: $?" && cat err && return 1; }
    done
}

# systemd's own view of the unit: "safe" is an exposure below 1.0.
systemd_unit()
{
    SYSTEMD_COLORS=0 systemd-analyze security --offline=yes --threshold=9 "$top/systemd/volt@.service" >said 2>&1 ||
        { grep '^✗\|Overall' said && return 1; }
    grep 'Overall exposure' said
}

allowed_folder_missing()
{
    local status=0
    "$vmm" "${options[@]}" --allow-path "$work/absent" >out 2>err </dev/null || status=$?
    cat err
    [ "$status" -ne 0 ] && grep -q "$work/absent" err
}

tap_run "an evil loop" try_all 2 loop
tap_run "an evil loop with a control socket" try_all 3 loop --api-sock vm.sock --allow-path allowed/file --allow-path read-only,ro
tap_run "an evil loop that may make files" try_all 5 loop --api-sock vm.sock --allow-path allowed --allow-path read-only,ro
tap_run "an evil loop whose copies go on as VMs" try_all 6 loop --api-sock vm.sock --allow-path allowed/file --allow-path read-only,ro --allow-fork
tap_run "an evil loop with a vsock device" try_all 7 loop --vsock cid=3,uds=guest.vsock
tap_run "an evil vCPU" try_all 4 vcpu
tap_run "an evil opener of disks" try_all 8 opener --cmdline deaf=1 --api-sock vm.sock --allow-path allowed/file
tap_run "seen from outside" seen_from_outside
tap_run "switched off, loudly" switched_off
tap_run "another user" another_user
tap_run "each layer alone" each_alone
tap_run "the systemd unit is safe" systemd_unit
tap_run "a folder to allow that is not there" allowed_folder_missing
tap_done
