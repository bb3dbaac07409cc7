#!/bin/sh
# shellcheck disable=SC2317 # the cases are called by tap_run
# Whole machines: Linux guests under volt-vmm, on a host or in the lab (busybox sh). Says TAP lines.
#
# cases.sh [only=PATTERN] GROUP...   in a folder with volt-vmm, vmlinuz, initrd.cpio and rootfs.ext4 (which has test/machine/inside), and the
#                     optional vmlinux (our own kernel: no initramfs)
set -eu
# shellcheck source=test/tap.sh
. "${TAP:-/tap.sh}"

vmm=$PWD/volt-vmm
payload=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# --- running a machine ---

# A root of its own for this test: $work/root.
fresh_root()
{
    cp "$payload/rootfs.ext4" root
}

# start CASE OPTION...: the VMM in the background, its input held open by descriptor 3.
# machine CASE OPTION...: to its end; the status in $status, the console in $work/console, the log in $work/log.
kernel="debian"
arguments()
{
    case $kernel in
    debian) echo "--kernel $payload/vmlinuz --initrd $payload/initrd.cpio" ;;
    ours) echo "--kernel $payload/vmlinux" ;;
    esac
}
machine()
{
    guest_case=$1
    shift
    status=0
    rm -f console
    # shellcheck disable=SC2046 # words
    timeout -k 5 "${limit:-60}" "$vmm" $(arguments) --serial file=console --memory 256M "$@" \
        --append "${root_mode-rw} volt.run=\"inside $guest_case\" ${append:-}" >log 2>&1 </dev/null || status=$?
    tr -d '\r' <console >console.text
    show
}
start()
{
    guest_case=$1
    shift
    rm -f console input
    mkfifo input
    # shellcheck disable=SC2046
    "$vmm" $(arguments) --serial stdio --memory 256M "$@" \
        --append "${root_mode-rw} volt.run=\"inside $guest_case\" ${append:-}" <input >console 2>log &
    vmm_pid=$!
    exec 3>input
}
finish()
{
    status=0
    ( sleep "${limit:-60}" && kill -KILL "$vmm_pid" ) >/dev/null 2>&1 3>&- &
    watchdog=$!
    wait "$vmm_pid" || status=$?
    kill "$watchdog" 2>/dev/null || true
    exec 3>&-
    tr -d '\r' <console >console.text
    show
}

# What a failed test is told by.
show()
{
    tail -c 3000 console.text
    echo "--- volt-vmm, status $status:"
    tail -n 20 log
}

wait_for() # TEXT: in the console of a started machine
{
    tries=0
    until grep -q "$1" console 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt $((${limit:-60} * 5)) ] || { echo "no '$1' on the console" && return 1; }
        kill -0 "$vmm_pid" || { echo "volt-vmm ended early" && return 1; }
        sleep 0.2
    done
}

# --- what is expected ---

fact() # NAME: its value
{
    sed -n "s/^$1=//p" console.text | tail -n 1
}
expect_fact() # NAME VALUE
{
    [ "$(fact "$1")" = "$2" ] || { echo "$1 is '$(fact "$1")', not '$2'" && return 1; }
}
expect_status() # STATUS
{
    [ "$status" -eq "$1" ] || { echo "status $status, not $1" && return 1; }
}
expect_log() # PATTERN
{
    grep -q "$1" log || { echo "the log has no '$1'" && return 1; }
}
expect_refusal() # PATTERN: bad configuration, in words
{
    expect_status 1
    expect_log "$1"
}
expect_alive() # not killed by a signal, and not by timeout (124, 137)
{
    [ "$status" -lt 124 ] || { echo "status $status: killed or hung" && return 1; }
}
expect_clean_fs()
{
    e2fsck -fn root || { echo "e2fsck is not content" && return 1; }
}

# --- the cases ---

boots()
{
    fresh_root
    machine facts --rootfs root --cpus "$1"
    expect_status 0
    expect_log "powered off"
    expect_fact cpus "$1"
    expect_fact timer_cpus "$1"
    expect_fact root vda,rw
    expect_fact "done" facts
}

memory() # MIB
{
    fresh_root
    machine facts --rootfs root --memory "$1M"
    expect_status 0
    found=$(fact memory_kib)
    # The map lacks the last KiB of base memory, the hole below 1 MiB, and what the kernel drops at its ends.
    [ "$found" -le $(($1 * 1024)) ] && [ "$found" -gt $(($1 * 1024 - 1024)) ] ||
        { echo "$found KiB found of $1 MiB" && return 1; }
}

root_read_write()
{
    fresh_root
    machine write --rootfs root
    expect_status 0
    written=$(fact sum)
    [ -n "$written" ]
    expect_clean_fs
    machine read --rootfs root
    expect_fact sum "$written"
}

root_read_only()
{
    fresh_root
    before=$(sha256sum <root)
    root_mode='' machine facts --rootfs root,ro
    expect_fact root vda,ro
    root_mode='' machine refuse --rootfs root,ro
    expect_status 0
    expect_fact wrote 0
    [ "$before" = "$(sha256sum <root)" ] || { echo "the image changed" && return 1; }
}

no_disk()
{
    # The initramfs alone: no root, so its init says so and the machine ends by itself.
    machine facts
    expect_alive
}

reboots()
{
    fresh_root
    machine reboot --rootfs root
    expect_status 0
    expect_log "rebooted"
    expect_clean_fs
}

panics()
{
    fresh_root
    case $kernel in
    debian) machine panic --rootfs root ;;
    ours) append=root=/dev/none machine facts --rootfs root ;; # it has no sysrq to crash it with
    esac
    expect_status 3
    grep -q "Kernel panic" console.text
}

terminated()
{
    fresh_root
    start idle --rootfs root
    wait_for ready=1
    kill -TERM "$vmm_pid"
    finish
    expect_status 143
}

# Ctrl-A p, which only a terminal can type: through ACPI's generic event device to the guest, and to its init.
power_button()
{
    fresh_root
    : >console
    vmm_pid=$$ # wait_for is to wait for no process of ours
    (
        wait_for ready=1
        printf '\001p'
        wait_for "the guest powered off" # the end of input would end script(1)
    ) | timeout "${limit:-60}" script -qec "$vmm $(arguments) --memory 256M --rootfs root \
        --append 'rw volt.run=\"inside idle\"'" /dev/null >console 2>&1 &
    wait $! || true
    tr -d '\r' <console >console.text
    grep -q "the guest powered off" console.text || { tail -n 20 console.text && return 1; }
}

console_input()
{
    fresh_root
    start echo --rootfs root
    wait_for ready=1
    echo "one line, typed" >&3
    finish
    expect_status 0
    expect_fact line "one line, typed"
}

# More than any buffer on the way holds, while the guest is slower than the writer.
console_input_flood()
{
    fresh_root
    seq 1 3000 | awk '{ printf "line %08d\n", $1 }' >lines
    start count --rootfs root
    wait_for ready=1
    { cat lines && echo end; } >&3
    finish
    expect_status 0
    expect_fact lines "3000 sum=$(sha256sum <lines | cut -c 1-16)"
}

console_flood()
{
    fresh_root
    limit=150 machine flood --rootfs root
    expect_status 0
    expect_fact "done" flood
    [ "$(grep -c '^flood [0-9]* abcdefghijklmnopqrstuvwxyz$' console.text)" -eq 4000 ] || { echo "lines are missing" && return 1; }
}

# A reader that takes nothing must not stop the guest.
console_nobody_reads()
{
    fresh_root
    mkfifo output
    # shellcheck disable=SC2217 # it is there not to read
    sleep 1000 <output &
    reader=$!
    status=0
    # shellcheck disable=SC2046
    timeout -k 5 150 "$vmm" $(arguments) --serial stdio --memory 256M --rootfs root \
        --append 'rw volt.run="inside flood"' >output 2>log </dev/null || status=$?
    kill "$reader"
    : >console.text
    show
    expect_status 0
    expect_log "powered off"
}

disks()
{
    fresh_root
    set --
    i=1
    while [ "$i" -le 20 ]; do
        truncate -s "${i}M" "disk$i"
        printf 'this is disk %d\n' "$i" | dd of="disk$i" conv=notrunc 2>/dev/null
        case $i in
        3) set -- "$@" --disk "disk$i,ro" ;;
        *) set -- "$@" --disk "disk$i" ;;
        esac
        i=$((i + 1))
    done
    machine disks --rootfs root "$@"
    rm -f disk*
    expect_status 0
    i=1
    for letter in b c d e f g h i j k l m n o p q r s t u; do
        ro=0
        [ "$i" -ne 3 ] || ro=1
        expect_fact "vd$letter" "this is disk $i $((i * 2048)) $ro"
        i=$((i + 1))
    done
}

block_device()
{
    fresh_root
    loop=$(losetup -f)
    losetup "$loop" root
    machine write --rootfs "$loop"
    losetup -d "$loop"
    expect_status 0
    expect_clean_fs
}

# Nothing but an error in words may come of a file that is cut off, wherever.
truncated_kernel()
{
    size=$(wc -c <"$payload/vmlinuz")
    for bytes in 0 1 511 512 600 4096 20000 $((size / 2)) $((size * 3 / 4)); do
        head -c "$bytes" "$payload/vmlinuz" >short
        status=0
        timeout -k 5 30 "$vmm" --kernel short --serial off >log 2>&1 </dev/null || status=$?
        echo "cut at $bytes: status $status: $(tail -n 1 log)"
        expect_refusal "short: "
    done
}

truncated_initrd()
{
    fresh_root
    head -c 100000 "$payload/initrd.cpio" >initrd
    status=0
    timeout -k 5 60 "$vmm" --kernel "$payload/vmlinuz" --initrd initrd --rootfs root --memory 256M \
        --serial file=console >log 2>&1 </dev/null || status=$?
    cp console console.text
    show
    expect_alive
}

truncated_root()
{
    head -c 1000001 "$payload/rootfs.ext4" >root
    machine facts --rootfs root
    expect_refusal "root: .*512"
    # Whole sectors, but most of the file system is gone: the guest's own trouble.
    head -c 8388608 "$payload/rootfs.ext4" >root
    machine facts --rootfs root
    expect_alive
}

# Files that are rewritten and cut while the monitor reads them.
changing_kernel()
{
    fresh_root
    round=0
    while [ "$round" -lt 8 ]; do
        cp "$payload/vmlinuz" changing
        ( n=0; while [ "$n" -lt 40 ]; do
            dd if=/dev/urandom of=changing bs=4096 count=1 seek=$((n * 67 % 3000)) conv=notrunc 2>/dev/null
            n=$((n + 1))
        done; truncate -s 100000 changing ) &
        scribbler=$!
        status=0
        timeout -k 5 20 "$vmm" --kernel changing --serial off --memory 128M >log 2>&1 </dev/null || status=$?
        wait "$scribbler" || true
        echo "round $round: status $status: $(tail -n 1 log)"
        # A kernel that was read broken may also run wild until it is ended: that is its own affair.
        [ "$status" -lt 124 ] || [ "$status" -eq 124 ] || { echo "killed" && return 1; }
        round=$((round + 1))
    done
}

shrinking_disk()
{
    fresh_root
    dd if=/dev/zero of=shrinking bs=1M count=16 2>/dev/null
    start load --rootfs root --disk shrinking
    wait_for ready=1
    sleep 0.5
    truncate -s 1M shrinking
    sleep 0.5
    truncate -s 0 shrinking
    finish
    expect_status 0
    expect_fact "done" load
    expect_fact error 1
}

transparent_pages()
{
    fresh_root
    machine facts --rootfs root --thp "$1"
    expect_status 0
    expect_fact "done" facts
}

huge_pages()
{
    [ -w /proc/sys/vm/nr_hugepages ] || { echo "not root" && return 77; }
    fresh_root
    machine facts --rootfs root --hugepages
    expect_alive
    [ "$status" -ne 0 ] || { echo "there are no huge pages, and yet it ran" && return 1; }
    expect_log "huge"
    before=$(cat /proc/sys/vm/nr_hugepages)
    echo 140 >/proc/sys/vm/nr_hugepages
    machine facts --rootfs root --hugepages
    echo "$before" >/proc/sys/vm/nr_hugepages
    expect_status 0
    expect_fact "done" facts
}

configuration_file()
{
    fresh_root
    cat >vm.json <<J
{"boot-source": {"kernel_image_path": "$payload/vmlinuz", "initrd_path": "$payload/initrd.cpio",
                 "boot_args": "console=ttyS0 reboot=k panic=-1 rw volt.run=\"inside facts\""},
 "drives": [{"drive_id": "root", "path_on_host": "root", "is_root_device": true, "is_read_only": false}],
 "machine-config": {"vcpu_count": 2, "mem_size_mib": 256}}
J
    sed -i 's|volt.run="inside facts"|volt.run=\\"inside facts\\"|' vm.json
    status=0
    timeout -k 5 60 "$vmm" --config vm.json --serial file=console >log 2>&1 </dev/null || status=$?
    tr -d '\r' <console >console.text
    show
    expect_status 0
    expect_fact cpus 2
    expect_fact root vda,rw
}

# The sums over /proc/PID/task of what a thread that is no vCPU does while the guest sleeps. A worker that the kernel made for an
# fsync stays, and looks every 5 s whether it is needed (WORKER_IDLE_TIMEOUT, io_uring/io-wq.c): not ours to stop.
wake_ups()
{
    for task in /proc/"$vmm_pid"/task/*; do
        case $(cat "$task/comm") in
        vcpu* | iou-wrk*) ;;
        *) sed -n 's/^\(non\)\?voluntary_ctxt_switches:\s*//p' "$task/status" ;;
        esac
    done | awk '{ n += $1 } END { print n }'
}
idle()
{
    fresh_root
    # A guest that really is idle: nothing to write back, and Linux feeds its pool from virtio-rng every few seconds.
    root_mode='' append=module_blacklist=virtio_rng start idle --rootfs root,ro
    wait_for ready=1
    sleep 8
    before=$(wake_ups)
    sleep 4
    after=$(wake_ups)
    echo "switches of the other threads: $before, and 4 s later $after"
    # What is anonymous beside the guest's memory, the largest mapping.
    awk '/^[0-9a-f]+-/ { map = $0 } /^Size:/ { size = $2 } /^Anonymous:/ { if ($2 && size < 100000) print $2, map }' \
        /proc/"$vmm_pid"/smaps
    beyond=$(awk '/^[0-9a-f]+-/ { size = 0 } /^Size:/ { size = $2 } /^Anonymous:/ { if (size < 100000) n += $2 } END { print n }' \
        /proc/"$vmm_pid"/smaps)
    echo "anonymous beyond guest memory: $beyond KiB"
    finish
    expect_status 0
    [ "$before" -eq "$after" ] || { echo "a thread of the monitor woke up" && return 1; }
    [ "$beyond" -le 512 ] || { echo "$beyond KiB are more than 512" && return 1; }
}

resident() # MiB that the host has of a started machine
{
    awk '/^VmRSS:/ { print int($2 / 1024) }' "/proc/$vmm_pid/status"
}
wait_resident() # -lt|-ge MIB
{
    tries=0
    until now=$(resident) && test "$now" "$1" "$2"; do
        tries=$((tries + 1))
        [ "$tries" -lt 250 ] || { echo "$now MiB on the host, not $1 $2" && give_up; }
        sleep 0.2
    done
    echo "$now MiB on the host"
}

# What a guest frees is the host's again, by itself.
memory_comes_back() # MIB: at most so many are left; OPTION...
{
    most=$1
    shift
    fresh_root
    start free --rootfs root --memory 1G "$@"
    wait_for used=1
    wait_resident -ge 512
    echo go >&3
    wait_for freed=1
    wait_resident -lt "$most"
    echo end >&3
    finish
    expect_status 0
}

# A drive is replaced while the guest reads it: by a larger file, which then grows in place.
drive_replaced()
{
    fresh_root
    truncate -s 8M old
    truncate -s 24M new
    printf 'newdev' | dd of=new conv=notrunc 2>/dev/null
    printf 'middle' | dd of=new bs=1 seek=$((24 * 1048576 - 6)) conv=notrunc 2>/dev/null
    start drive --rootfs root --disk old --api-sock socket --allow-path "$work"
    wait_for ready=1
    sleep 1
    "$payload/voltctl" drive ./socket disk1=new || give_up
    wait_for seen1=1
    truncate -s 40M new
    printf 'at end' | dd of=new bs=1 seek=$((40 * 1048576 - 6)) conv=notrunc 2>/dev/null
    "$payload/voltctl" pause ./socket || give_up
    "$payload/voltctl" drive ./socket disk1=new || give_up
    "$payload/voltctl" resume ./socket || give_up
    wait_for seen2=1
    finish
    expect_status 0
    expect_fact size 16384
    expect_fact size1 49152
    expect_fact first1 newdev
    expect_fact last1 middle
    expect_fact size2 81920
    expect_fact first2 newdev
    expect_fact last2 "at end"
    expect_fact failed ""
}

# Its target changes while the guest runs.
balloon_changes()
{
    fresh_root
    start balloon --rootfs root --balloon 0,stats=1,hinting=on --api-sock socket
    wait_for ready=1
    "$payload/voltctl" balloon ./socket 150M || give_up
    wait_for small=1
    "$payload/voltctl" balloon ./socket 0 || give_up
    wait_for large=1
    finish
    expect_status 0
}

# A full balloon keeps its memory from the guest, and gives it back before the guest kills a program.
balloon_under_pressure()
{
    fresh_root
    machine pressure --rootfs root --balloon 150M
    expect_status 0
    [ "$(fact free_mib)" -lt 90 ] || { echo "$(fact free_mib) MiB are free in the guest" && return 1; }
    expect_fact lived 1
    expect_fact killed ""
}

# The VMM in the background, as start() does it, from the snapshot in snap.
go_on()
{
    rm -f console input
    mkfifo input
    "$vmm" --restore snap --serial stdio --api-sock socket "$@" <input >console 2>log &
    vmm_pid=$!
    exec 3>input
}

# Sockets between host and guest: both ways, much data, many connections. BYTES CONNECTIONS
vsock()
{
    fresh_root
    rm -f guest.sock*
    "$payload/peer" serve unix:guest.sock_1234 &
    server=$!
    start "vsock $1 $2" --rootfs root --vsock cid=3,uds=guest.sock
    wait_for ready=1
    [ "$(stat -c %a guest.sock)" = 600 ] || give_up
    "$payload/peer" call unix:guest.sock:52 1 "$1" || give_up
    "$payload/peer" call unix:guest.sock:52 "$2" 200 || give_up
    if "$payload/peer" call unix:guest.sock:53 1 1; then give_up; fi
    # One that lives is not taken over.
    if "$vmm" --kernel "$payload/hostile" --memory 32M --vsock cid=4,uds=guest.sock 2>second; then give_up; fi
    grep 'guest.sock: is there already, and in use' second || give_up
    echo go >&3
    finish
    kill "$server"
    expect_status 0
    expect_fact called 1
    expect_fact storm 1
    expect_fact refused 1
    [ ! -e guest.sock ] || { echo "the socket is still there" && return 1; }
}

# A server in the guest lives on after a restore; its connections do not.
vsock_restored()
{
    fresh_root
    rm -rf snap socket guest.sock* other.sock*
    start "vsock 1000000 20" --rootfs root --vsock cid=3,uds=guest.sock --api-sock socket
    wait_for ready=1
    "$payload/peer" serve unix:other.sock_1234 &
    server=$!
    "$payload/peer" hold unix:guest.sock:52 >held 2>&1 &
    holder=$!
    sleep 1
    "$payload/voltctl" pause ./socket || give_up
    "$payload/voltctl" snapshot ./socket snap || give_up
    kill -TERM "$vmm_pid"
    finish
    expect_status 143
    wait "$holder" || true
    go_on --vsock cid=7,uds=other.sock
    tries=0
    until [ -S other.sock ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || give_up
        sleep 0.1
    done
    "$payload/peer" call unix:other.sock:52 1 1000000 || give_up
    "$payload/peer" call unix:other.sock:52 20 200 || give_up
    echo go >&3
    finish
    kill "$server"
    expect_status 0
    expect_fact called 1
    expect_fact storm 1
}

# Commands in the guest, by volt-init's agent. TIMES: how many one after another
said() # STATUS TEXT OPTION... VM -- COMMAND...: status and standard output
{
    wanted_status=$1 wanted=$2 got_status=0
    shift 2
    got=$("$payload/voltctl" exec "$@" 2>said.error </dev/null 3>&-) || got_status=$?
    [ "$got_status" -eq "$wanted_status" ] && [ "$got" = "$wanted" ] && return
    echo "exec $*: status $got_status, '$got', not $wanted_status, '$wanted'"
    cat said.error
    give_up
}
agent()
{
    fresh_root
    rm -rf socket guest.sock*
    start agent --rootfs root --vsock cid=3,uds=guest.sock --api-sock socket
    wait_for ready=1
    vm=./socket
    said 0 '' $vm -- true
    count='cat; ls /proc/1/fd | wc -l' # once the end of input has closed a pipe
    descriptors=$("$payload/voltctl" exec $vm -- sh -c "$count" </dev/null 3>&-) || give_up
    said 1 '' $vm -- false
    said 42 '' $vm -- sh -c 'exit 42'
    said 137 '' $vm -- sh -c 'kill -KILL $$'
    said 127 '' $vm -- no-such-command
    grep 'no-such-command: No such file' said.error || give_up
    said 126 '' $vm -- /etc
    said 0 out $vm -- sh -c 'echo err >&2; echo out'
    [ "$(cat said.error)" = err ] || give_up
    # shellcheck disable=SC2016 # for the guest's shell
    said 0 '1000 100' -u 1000:100 $vm -- sh -c 'echo $(id -u) $(id -g)'
    # shellcheck disable=SC2016
    said 0 'a b /tmp' -e 'X=a b' -w /tmp $vm -- sh -c 'echo $X $PWD'
    said 126 '' -w /nowhere $vm -- true
    said 0 5 $vm -- sh -c 'sleep 600 >/dev/null 2>&1 & echo 5'

    # Standard input, its end, and as much back.
    dd if=/dev/urandom of=bytes bs=1000 count=1049 2>/dev/null
    "$payload/voltctl" exec $vm -- cat <bytes >back || give_up
    cmp bytes back || give_up
    [ "$("$payload/voltctl" exec $vm -- sha256sum <bytes | cut -c 1-64)" = "$(sha256sum bytes | cut -c 1-64)" ] || give_up
    # One that does not read its input can be signalled, and one whose reader is gone ends.
    "$payload/voltctl" exec $vm -- sleep 601 </dev/zero &
    sleeper=$!
    sleep 1
    kill -TERM "$sleeper"
    got_status=0
    wait "$sleeper" || got_status=$?
    [ "$got_status" -eq 143 ] || { echo "status $got_status after SIGTERM" && give_up; }
    [ "$("$payload/voltctl" exec $vm -- yes </dev/null | head -n 1)" = y ] || give_up
    "$payload/voltctl" exec $vm -- sh -c 'trap "" HUP; sleep 602; sleep 602' </dev/null &
    holder=$!
    sleep 1
    kill -KILL "$holder"

    # A terminal.
    script -qec "stty rows 33 cols 77; $payload/voltctl exec -t $vm -- sh -c 'stty size; tty; exit 3'" /dev/null >terminal \
        </dev/null || echo "terminal=$?" >>terminal
    cat terminal
    grep '33 77' terminal && grep '^/dev/pts/' terminal && grep '^terminal=3' terminal || give_up

    # 64 at once, of which 20 are started at once; the rest are told so. They read a pipe that is held open.
    mkfifo many
    exec 4<>many
    n=0
    pids=''
    while [ "$n" -lt 70 ]; do
        "$payload/voltctl" exec $vm -- sh -c 'echo in; read -r line; exit 7' <many >"many.$n" 2>&1 4>&- 3>&- &
        pids="$pids $!"
        n=$((n + 1))
        [ "$n" -ge 20 ] || continue
        tries=0
        until [ "$(cat many.* | wc -l)" -ge "$n" ] || [ "$tries" -ge 300 ]; do
            sleep 0.1
            tries=$((tries + 1))
        done
    done
    exec 4>&-
    seven=0
    for pid in $pids; do
        got_status=0
        wait "$pid" || got_status=$?
        [ "$got_status" -ne 7 ] || seven=$((seven + 1))
    done
    busy=$(cat many.* | grep -c 'too many commands') || true
    cat many.* | sort | uniq -c
    rm -f many many.*
    echo "at once: $seven ran, $busy were turned away"
    [ "$seven" -eq 64 ] && [ "$busy" -eq 6 ] || give_up

    # Nothing is left of them, nor of many more.
    n=0
    before=$(cut -d ' ' -f 1 /proc/uptime | tr -d .)
    while [ "$n" -lt "$1" ]; do
        "$payload/voltctl" exec $vm -- true </dev/null || give_up
        n=$((n + 1))
    done
    echo "one exec of true: $((($(cut -d ' ' -f 1 /proc/uptime | tr -d .) - before) * 10000 / $1)) us"
    sleep 3
    said 0 "$descriptors" $vm -- sh -c "$count"
    said 1 '' $vm -- sh -c 'ps | grep "[s]leep 60[12]"'
    if "$payload/voltctl" exec "$work/nobody" -- true; then give_up; fi
    "$payload/voltctl" shutdown $vm || give_up
    finish
    expect_status 0
    grep -q 'volt-init: powering off' console.text
}

# A VM without vsock, and a guest without the agent.
no_agent()
{
    fresh_root
    rm -rf socket guest.sock*
    start idle --rootfs root --api-sock socket
    wait_for ready=1
    said 125 '' ./socket -- true
    grep 'start it with --vsock' said.error || give_up
    "$payload/voltctl" stop --force ./socket
    finish
    rm -rf socket
    append=init=/bin/sh start idle --rootfs root --vsock cid=3,uds=guest.sock --api-sock socket
    wait_for '#'
    said 125 '' ./socket -- true
    grep "init is not volt-init" said.error || give_up
    "$payload/voltctl" stop --force ./socket
    finish
}

# From snapshot to snapshot, each in a process of its own: CPUS TIMES MIB.
snapshots()
{
    fresh_root
    rm -rf snap socket
    start "steps $(($2 * 3 + 5))" --rootfs root --cpus "$1" --memory "$3M" --api-sock socket
    n=0
    while [ "$n" -lt "$2" ]; do
        wait_for "step=[0-9]*[02468]" || give_up
        "$payload/voltctl" pause ./socket || give_up
        "$payload/voltctl" snapshot ./socket snap || give_up
        kill -TERM "$vmm_pid"
        finish
        expect_status 143
        no_bad
        go_on
        n=$((n + 1))
    done
    finish
    expect_status 0
    no_bad
    expect_fact "done" steps
    expect_fact stalls 0
    # Where the host's own TSC is not stable, KVM holds that of a guest which does not run.
    [ "$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)" != tsc ] || expect_fact unstable 0
    # A copy is a new machine: its kernel reseeds. Debian's kernels have no driver for the generation ID.
    [ "$kernel" != ours ] || expect_fact reseeded "$2"
    expect_clean_fs
}

# Until copy $1 has ended by itself, content.
copy_ended()
{
    tries=0
    while [ -S "run/$1.sock" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || { echo "$1 does not end:" && tail "run/$1.console" "run/$1.log" && return 1; }
        sleep 0.1
    done
    tr -d '\r' <"run/$1.console" >console.text
    tail -n 3 "run/$1.console" "run/$1.log"
    no_bad
    grep -q "the guest powered off" "run/$1.log"
    expect_fact "done" steps
    expect_fact stalls 0
}

# Copies of a machine that runs from a volume, and a copy of a copy, all writing to their disks: CPUS.
forks()
{
    fresh_root
    rm -rf store volume run socket checked
    mkdir run
    export STELLARIUM_STORE="$work/store" VOLT_RUNTIME_DIR="$work/run" TMPDIR="$work"
    "$payload/stellarium" init
    "$payload/stellarium" import root plain
    "$payload/stellarium" clone plain volume
    card=none
    [ ! -c /dev/net/tun ] || card=tap=forks
    start "steps 12" --volume volume --cpus "$1" --api-sock socket --allow-fork --net "$card"
    wait_for "step=3" || give_up
    "$payload/voltctl" fork ./socket one two || give_up
    "$payload/voltctl" fork one three || give_up
    finish
    expect_status 0
    no_bad
    expect_fact "done" steps
    expect_fact stalls 0
    expect_fact reseeded 0
    for copy in one two three; do
        copy_ended "$copy"
        grep -q "net 0: the link is down" "run/$copy.log" || { echo "$copy is on the network of another" && return 1; }
        [ "$kernel" != ours ] || [ "$(fact reseeded)" -ge 1 ] || { echo "$copy has the random numbers of another" && return 1; }
    done
    "$payload/stellarium" commit volume checked
    "$payload/stellarium" export checked root
    expect_clean_fs
}

# Back to a snapshot, in place: CPUS TIMES.
resets()
{
    fresh_root
    rm -rf snap socket
    root_mode='' start "steps $(($2 + 12)) nodisk" --rootfs root,ro --cpus "$1" --api-sock socket
    wait_for "step=4" || give_up
    "$payload/voltctl" snapshot ./socket snap || give_up
    kill -TERM "$vmm_pid"
    finish
    go_on
    n=0
    while [ "$n" -lt "$2" ]; do
        before=$(grep -c step= console) || true
        tries=0
        until [ "$(grep -c step= console)" -gt $((before + n % 3)) ]; do
            tries=$((tries + 1))
            [ "$tries" -lt 600 ] || give_up
            sleep 0.05
        done
        "$payload/voltctl" reset ./socket || give_up
        n=$((n + 1))
    done
    finish
    expect_status 0
    no_bad
    expect_fact "done" steps
    expect_fact stalls 0
    [ "$(grep -c 'step=6$' console.text)" -gt 3 ] || { echo "it did not go back" && return 1; }
}

no_bad()
{
    if grep bad= console.text; then return 1; fi
}

give_up()
{
    cat console log
    kill -KILL "$vmm_pid" || true
    return 1
}

# systemd's login prompt, a login, and a power off from the shell.
login() # OPTION...
{
    rm -f console input
    mkfifo input
    "$vmm" --memory 512M --cpus 2 --rootfs "${DEBIAN:-/dev/vda}" "$@" <input >console 2>log &
    vmm_pid=$!
    exec 3>input
    limit=240
    wait_for "volt-debian login:" || give_up || return 1
    echo root >&3
    wait_for "root@volt-debian:" || give_up || return 1
    # The answer is what an echo of the typed line cannot be.
    # shellcheck disable=SC2016 # the guest expands it
    echo 'echo cpus=$(nproc) failed=$(systemctl list-units --failed --no-legend | wc -l); systemctl poweroff' >&3
    finish
    expect_status 0
    expect_log "powered off"
    grep -q "cpus=2 failed=0" console.text || { echo "no shell, or units that failed" && return 1; }
}

# --- the groups ---

boot_group()
{
    tap_run "$kernel kernel: boots, 1 CPU" boots 1
    tap_run "$kernel kernel: reboots" reboots
    tap_run "$kernel kernel: panics" panics
}

main_group()
{
    tap_run "2 CPUs" boots 2
    tap_run "4 CPUs" boots 4
    for mib in 128 1024 3072 3074 5120; do
        tap_run "memory of $mib MiB" memory "$mib"
    done
    tap_run "root read-write: files, e2fsck, files again" root_read_write
    tap_run "root read-only" root_read_only
    tap_run "root on a block device" block_device
    tap_run "no disk" no_disk
    tap_run "ended by SIGTERM" terminated
    tap_run "power button" power_button
    tap_run "console input" console_input
    tap_run "console input, 3000 lines at once" console_input_flood
    tap_run "console flood into a file" console_flood
    tap_run "console flood that nobody reads" console_nobody_reads
    tap_run "twenty disks" disks
    tap_run "kernel cut off" truncated_kernel
    tap_run "initramfs cut off" truncated_initrd
    tap_run "root cut off" truncated_root
    tap_run "kernel rewritten while it is loaded" changing_kernel
    tap_run "disk that shrinks in use" shrinking_disk
    tap_run "transparent huge pages on" transparent_pages on
    tap_run "transparent huge pages off" transparent_pages off
    tap_run "pages of hugetlb" huge_pages
    tap_run "configuration file" configuration_file
    tap_run "idle: no wake-ups, little memory" idle
    tap_run "memory that the guest frees comes back" memory_comes_back 128
    tap_run "a drive that is replaced, and one that grows" drive_replaced
    tap_run "a balloon that fills and empties" balloon_changes
    tap_run "a full balloon under memory pressure" balloon_under_pressure
    tap_run "5 snapshots, each restored, 1 CPU" snapshots 1 5 256
    tap_run "3 snapshots, each restored, 4 CPUs" snapshots 4 3 256
    tap_run "a snapshot, restored, memory on both sides of the gap" snapshots 2 1 3584
    tap_run "forks of a running machine, 1 CPU" forks 1
    tap_run "forks of a running machine, 2 CPUs" forks 2
    tap_run "vsock: both ways" vsock 3000000 300
    tap_run "vsock: a snapshot, restored" vsock_restored
    tap_run "agent: commands in the guest" agent 100
    tap_run "agent: there is none" no_agent
    tap_run "20 resets to a snapshot, 1 CPU" resets 1 20
    tap_run "20 resets to a snapshot, 2 CPUs" resets 2 20
}

ours_group()
{
    if ! [ -e "$payload/vmlinux" ]; then
        tap_skip "our kernel" "it has not been built here (make kernel, or VOLT_BUILD_KERNEL=1 make check)"
        return
    fi
    kernel=ours
    boot_group
    tap_run "ours kernel: 4 CPUs" boots 4
    tap_run "ours kernel: memory of 64 MiB" memory 64
    tap_run "ours kernel: memory that the guest frees comes back, in 4 KiB pages" memory_comes_back 64 --thp off
    tap_run "ours kernel: memory of 5120 MiB" memory 5120
    tap_run "ours kernel: forks of a running machine" forks 1
    tap_run "ours kernel: vsock, both ways" vsock 3000000 100
    tap_run "ours kernel: 3 snapshots, each restored" snapshots 1 3 128
}

debian_group()
{
    tap_run "Debian: generic kernel, its own initrd, to a login" login --kernel "$payload/vmlinuz-generic" \
        --initrd "$payload/initrd.img"
    tap_run "Debian: cloud kernel, to a login" login --kernel "$payload/vmlinuz" --initrd "$payload/initrd.cpio" \
        --append init=/sbin/init
    [ -n "${DEBIAN:-}" ] || tap_run "Debian: file system after it" e2fsck -fn /dev/vda
}

# A tiny guest of test/guest, where KVM is the processor's: pages that are read without an exit, writes that KVM keeps.
tiny() # CASE
{
    truncate -s 1M disk
    printf 'first sector' | dd of=disk conv=notrunc 2>/dev/null
    rm -f console
    status=0
    timeout -k 5 60 "$vmm" --kernel "$payload/hostile" --cmdline "case=$1 memory_mib=32" --memory 32M --cpus 1 \
        --serial file=console --disk disk >log 2>&1 || status=$?
    tr -d '\r' <console >console.text
    show
    [ "$status" -eq 0 ] && grep -qx OK console.text
}

tiny_group()
{
    for case in ack-flood shown-writes registers-wild reset-in-flight; do
        tap_run "tiny guest: $case" tiny "$case"
    done
}

slow_group() # for a lab of which one boot takes a minute
{
    limit=300
    tap_run "boots" boots 1
    tap_run "a snapshot, restored" snapshots 1 1 128
}

for group; do
    case $group in
    only=*) TAP_ONLY=${group#only=} ;; # the lab has no environment of ours
    *) "${group}_group" ;;
    esac
done
tap_done
