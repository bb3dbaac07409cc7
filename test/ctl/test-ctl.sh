#!/bin/bash
# The control socket of volt-vmm with tiny guests on this machine's KVM: a table of requests, Firecracker's command line and
# name, and clients that are many, slow or curious.
set -euo pipefail
. test/tap.sh

top=$PWD
build=$(cd "${BUILD:-build}" && pwd)
vmm=$build/volt-vmm
work=$(mktemp -d)
vm=
# shellcheck disable=SC2317 # called by the trap
clean_up()
{
    [ -z "$vm" ] || kill "$vm" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT

# Waits, 20 seconds at most, until COMMAND... succeeds.
until_true()
{
    local i
    for ((i = 0; i < 400; i++)); do
        if "$@"; then return; fi
        sleep 0.05
    done
    echo "it took too long: $*"
    return 1
}

# A folder with what the requests name, as the program's own: so the columns in messages do not depend on where it is.
fresh()
{
    rm -rf "${work:?}/vm"
    mkdir "$work/vm"
    cd "$work/vm"
    truncate -s 1M disk disk2
    ln -s "$build/test/guest/hello" kernel
}

# NAME OPTION...: the program under NAME in a fresh folder, until its socket is there.
start()
{
    local name=$1
    shift
    ln -sf "$vmm" "$name"
    "./$name" "$@" >out 2>err &
    vm=$!
    until_true test -S socket
}

# Ends the VM by SIGTERM, or waits for its end; its status is to be $1.
ended_with()
{
    local status=0
    wait "$vm" || status=$?
    vm=
    [ "$status" -eq "$1" ] || { cat out err && echo "status $status, not $1" && return 1; }
}

call() # METHOD PATH [BODY]
{
    printf '%s\n' "== one" "$*" >one
    /usr/bin/python3 "$top/test/ctl/requests.py" --record socket one | sed -n 3p
}

table()
{
    fresh
    start volt-vmm --api-sock socket
    [ "$(stat -c %a socket)" = 600 ]
    /usr/bin/python3 "$top/test/ctl/requests.py" socket "$top/test/ctl/requests"
    kill "$vm"
    ended_with 143
    [ ! -e socket ]
    grep -q "hello from a guest, command line 'deaf=1 root=/dev/vda ro'" console
    grep -q ':api:INFO:src/ctl/api.c:.*The API server received a Put request on "/actions"' log
    [ "$(grep -c '"id":"anonymous-instance","properties":{"a":"b"}' metrics)" -ge 3 ]
    grep -q '"boot_source_count":[0-9]*,"boot_source_fails":[0-9]' metrics
    grep -q '"block_scratch":{"activate_fails":0,' metrics
    # Each line has the same members, which clients check against a schema.
    sed 's/:[0-9][0-9]*/:N/g; s/"block_[a-z_]*":{[^{]*{[^{]*{[^}]*}[^}]*},//g' metrics | sort -u >shapes
    [ "$(wc -l <shapes)" -eq 1 ]
}

personality()
{
    fresh
    echo '{"boot-source":{"kernel_image_path":"kernel","boot_args":"end=s5"},"drives":[]}' >config
    ln -sf "$vmm" firecracker
    local status=0
    ./firecracker --no-api --config-file config --id my-vm >out 2>err || status=$?
    [ "$status" -eq 0 ]
    grep -q '\[my-vm:main\] Running Firecracker v1' out
    grep -q 'Successfully started microvm that was configured from one single json' out
    grep -q 'Vmm is stopping' out
    grep -q 'Firecracker exiting successfully. exit_code=0' out
    ./firecracker --version >out # not into a pipe: who reads one line of it ends it by SIGPIPE
    head -n 1 out | grep -qx 'Firecracker v[0-9]*\.[0-9]*\.[0-9]*'
    status=0
    ./firecracker --nonsense >out 2>err || status=$?
    [ "$status" -eq 153 ]
}

# STATUS WORDS OPTION...: ends with the status, and says the words on standard output.
says()
{
    local want=$1 words=$2 status=0
    shift 2
    ./firecracker "$@" >out 2>err </dev/null || status=$?
    [ "$status" -eq "$want" ] && grep -qF -- "$words" out || { echo "$*: $status" && cat out err && return 1; }
    [ "$want" -eq 0 ] || grep -q "Firecracker exiting with error. exit_code=$want" out
}

words_of_failures()
{
    fresh
    ln -sf "$vmm" firecracker
    local json='Failed to build MicroVM from Json: Configuration for VMM from one single json failed'
    echo '{"boot-source":{"kernel_image_path":"nothing"},"drives":[]}' >wrong
    echo '{"boot-source":{"kernel_image_path":"kernel"},"drives":[' >broken
    echo '{"boot-source":{"kernel_image_path":"kernel"},"drives":[],"machine-config":{"vcpu_count":0,"mem_size_mib":128}}' >machine
    echo '{"a":{"b":1}}' >data
    echo '{"a":{"b"' >unfinished
    says 153 "Arguments parsing error: Found argument 'nonsense' which wasn't expected, or isn't valid in this context." --nonsense
    says 153 "The argument 'id' was provided more than once." --id a --id b
    says 153 "The argument 'id' requires a value, but none was supplied." --id
    says 153 "Argument 'config-file' required, but not found." --no-api
    says 153 "Argument 'seccomp-filter' cannot be used together with argument 'no-seccomp'." --no-seccomp --seccomp-filter f
    says 152 'Invalid value for logger level: Failed to parse string to level filter: foo.Possible values: [Error, Warning, Info, Debug]' --level foo
    says 1 "RunWithoutApiError error: $json: Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)" \
        --no-api --config-file wrong
    says 1 "RunWithoutApiError error: $json: Invalid JSON: EOF while parsing a list at line 2 column 0" --no-api --config-file broken
    says 1 "RunWithApiError error: $json: VM config error: The number of vCPUs must be" --api-sock s --config-file machine
    says 1 'RunWithApiError error: Failed to bind and run the HTTP server: IO error: No such file or directory (os error 2)' \
        --api-sock nowhere/s
    says 1 'Could not initialize logger: Failed to open target file: No such file or directory (os error 2)' --log-path nowhere/l
    says 1 'Could not initialize metrics: Cannot initialize the metrics system due to bad user input: No such file or directory (os error 2)' \
        --metrics-path nowhere/m
    says 1 "Populating MMDS from file failed: The MMDS patch request doesn't fit." --api-sock s --mmds-size-limit 3 --metadata data
    says 1 'MMDS error: metadata provided not valid json: EOF while parsing an object' --api-sock s --metadata unfinished
    says 1 'Seccomp error: Filter file open error: No such file or directory (os error 2)' --seccomp-filter nothing
    says 0 'v11.0.0' --snapshot-version
    says 0 '--api-sock <api-sock>' --help
    [ ! -e s ]
}

# SIGNAL STATUS WORDS
signalled()
{
    fresh
    start firecracker --api-sock socket --metrics-path metrics
    until_true grep -q 'API server started\.' out
    call PUT '/boot-source {"kernel_image_path":"kernel","boot_args":"deaf=1"}'
    call PUT '/actions {"action_type":"InstanceStart"}' | grep -qx 204
    kill -"$1" "$vm"
    [ "$2" -eq 0 ] || ended_with "$2"
    [ -z "$3" ] || until_true grep -qF "$3" out
    if [ "$2" -eq 0 ]; then
        call PUT '/actions {"action_type":"FlushMetrics"}' | grep -qx 204
        kill "$vm"
        ended_with 143
    fi
}

signals()
{
    local name status
    while read -r name status; do
        signalled "$name" "$status" "Shutting down VM after intercepting signal $(kill -l "$name"), code 0"
        tail -n 1 metrics | grep -q "\"sig${name,,}\":1" || [ "$name" = SYS ]
    done <<<'HUP 156
XCPU 154
SEGV 150
SYS 148'
    signalled PIPE 0 'Received signal 13'
    sed -n 2p metrics | grep -q '"sigpipe":1'
}

as_firecracker()
{
    fresh
    start firecracker --api-sock socket
    until_true grep -q 'API server started\.' out
    call GET /version | grep -q '^200 {"firecracker_version":"1.17.0"}$'
    call PUT '/machine-config {"vcpu_count":33,"mem_size_mib":32}' | grep -q 'less than 32 and'
    # A socket that is there is an error under this name, whatever is behind it.
    local status=0
    ./firecracker --api-sock socket >out2 2>err2 || status=$?
    [ "$status" -eq 1 ]
    grep -q 'Failed to open the API socket at: socket. Check that it is not already used.' out2
    kill "$vm"
    ended_with 143
}

config_file()
{
    fresh
    cat >config <<'END'
{
  "boot-source": {"kernel_image_path": "kernel", "boot_args": "deaf=1"},
  "drives": [{"drive_id": "a", "is_root_device": false, "path_on_host": "disk"}],
  "machine-config": {"vcpu_count": 2, "mem_size_mib": 64},
  "network-interfaces": [],
  "not-known": 1
}
END
    start volt-vmm --api-sock socket --config-file config --id vm-1
    call GET / | grep -q '"id":"vm-1","state":"Running"'
    call GET /vm/config | grep -q '"drive_id":"a".*"vcpu_count":2,"mem_size_mib":64'
    kill "$vm"
    ended_with 143
    sed -i 's/"vcpu_count": 2/"vcpu_count": "2"/' config
    local status=0
    ./volt-vmm --no-api --config-file config >out 2>err || status=$?
    [ "$status" -eq 1 ]
    grep -q 'config: invalid type: string "2", expected u8 at line 4 column 38' err || { cat err && return 1; }
}

# What the command line says of a disk stays although there is a socket.
given_drives()
{
    fresh
    truncate -s 1049088 odd
    ln -sf "$vmm" volt-vmm
    local status=0
    timeout 20 ./volt-vmm --kernel kernel --serial off --disk odd,sector=4096 --api-sock socket >out 2>err || status=$?
    cat err
    [ "$status" -eq 1 ] && grep -q 'odd: .*4096' err
}

# Another disk while the VM runs: one in a folder that was allowed, one that was not, and one that has grown.
replaced_drives()
{
    fresh
    mkdir allowed
    truncate -s 2M allowed/disk other
    start volt-vmm --kernel kernel --cmdline deaf=1 --serial off --disk disk,iops=1000 --api-sock socket --allow-path allowed
    until_true test -n "$(call GET / | grep -o Running)"
    call PATCH '/drives/disk0 {"drive_id":"disk0","path_on_host":"allowed/disk"}' | grep -qx 204
    call GET /vm/config | grep -q '"path_on_host":"allowed/disk"'
    truncate -s 3M allowed/disk
    call PATCH '/drives/disk0 {"drive_id":"disk0","path_on_host":"allowed/disk"}' | grep -qx 204
    if call GET /sandbox | grep -q '"name":"landlock","in_force":true'; then
        call PATCH '/drives/disk0 {"drive_id":"disk0","path_on_host":"other"}' | grep -q 'Permission denied.*--allow-path'
    fi
    call GET /vm/config | grep -q '"path_on_host":"allowed/disk"'
    # The old one is closed.
    readlink "/proc/$vm"/fd/* >open || true
    grep -q 'vm/allowed/disk$' open
    if grep 'vm/disk$' open; then return 1; fi
    kill "$vm"
    ended_with 143
}

# One that another VM holds is tried for a second: meanwhile there is no second one, all else is answered, and the VM ends.
replaced_at_the_end()
{
    fresh
    ln -sf "$vmm" volt-vmm
    ./volt-vmm --kernel kernel --cmdline deaf=1 --serial off --disk disk2 --api-sock other >/dev/null 2>&1 &
    local other=$! bad=0 calling
    until_true test -S other
    start volt-vmm --kernel kernel --cmdline deaf=1 --serial off --disk disk --api-sock socket --allow-path .
    until_true test -n "$(call GET / | grep -o Running)"
    "$build/voltctl" drive ./socket disk0=disk2 >first 2>&1 &
    calling=$!
    sleep 0.2
    "$build/voltctl" drive ./socket disk0=disk2 >second 2>&1 || true
    "$build/voltctl" config ./socket | grep -q '"path_on_host":"disk"' || bad=1
    wait "$calling" || true
    grep -q 'in use by another VM' first || bad=1
    grep -q 'another disk is being put in its place already' second || bad=1
    "$build/voltctl" drive ./socket disk0=disk2 >third 2>&1 &
    calling=$!
    sleep 0.2
    kill "$vm"
    ended_with 143 || bad=1
    wait "$calling" || true
    grep -q 'The microVM is ending' third || bad=1
    kill "$other"
    wait "$other" || true
    cat first second third
    return "$bad"
}

# Not started: their TAPs are opened then.
network_cards()
{
    fresh
    start volt-vmm --api-sock socket
    call PUT '/network-interfaces/1 {"iface_id":"1","host_dev_name":"tap0","guest_mac":"06:00:00:00:00:01","mtu":9000,"rx_rate_limiter":{"ops":{"size":10,"refill_time":100}}}' | grep -qx 204
    call PUT '/network-interfaces/2 {"iface_id":"2","host_dev_name":"tap1","guest_mac":"06:00:00:00:00:01"}' |
        grep -q 'MAC address is already in use: 06:00:00:00:00:01'
    call PUT '/network-interfaces/1 {"iface_id":"1","host_dev_name":"tap2","guest_mac":"06:00:00:00:00:01"}' | grep -qx 204
    call GET /vm/config | grep -q '"network-interfaces":\[{"iface_id":"1","host_dev_name":"tap2"[^]]*"rx_rate_limiter":null[^]]*\]'
    kill "$vm"
    ended_with 143
}

command_line()
{
    fresh
    start volt-vmm --kernel kernel --cmdline deaf=1 --memory 64M --disk disk,ro --serial file=console --api-sock socket
    call GET /vm/config | grep -q '"path_on_host":"disk".*"kernel_image_path":"kernel".*"boot_args":"deaf=1".*"mem_size_mib":64'
    call PUT '/boot-source {"kernel_image_path":"kernel"}' | grep -q 'after starting'
    kill "$vm"
    ended_with 143
}

# The guest ignores its power button, so the deadline ends it; who listens is told all of it.
events_and_shutdown()
{
    fresh
    start volt-vmm --api-sock socket --serial off
    /usr/bin/python3 "$top/test/ctl/clients.py" events socket events &
    until_true grep -q 'Transfer-Encoding: chunked' events
    call PUT '/machine-config {"vcpu_count":1,"mem_size_mib":32}'
    call PUT '/boot-source {"kernel_image_path":"kernel","boot_args":"deaf=1"}'
    call PUT '/actions {"action_type":"InstanceStart"}' | grep -qx 204
    /usr/bin/python3 "$top/test/ctl/clients.py" pipeline socket
    call PUT '/vm/shutdown {"timeout_ms":200}' | grep -qx 204
    ended_with 0
    wait
    grep -q 'the guest did not shut down in time' err
    tr -d '\r' <events | sed -n 's/.*"event":"\([a-z-]*\)".*/\1/p' | tr '\n' ' ' >said
    [ "$(cat said)" = "running pausing paused running ending ended " ] || { cat said && return 1; }
    grep -q '"reason":"the guest did not shut down in time"' events
    grep -q '"event":"ended","status":0' events
}

# Anonymous memory in KiB.
memory_of()
{
    awk '/^RssAnon:/ { print $2 }' "/proc/$vm/status"
}

at_most_open() # COUNT of descriptors
{
    [ "$(find "/proc/$vm/fd" -type l | wc -l)" -le "$1" ]
}

# OPTION...: 10,000 calls to a VM with them
many_calls()
{
    fresh
    start volt-vmm "$@" --serial off --api-sock socket
    /usr/bin/python3 "$top/test/ctl/clients.py" calls socket 2000
    local before after files
    before=$(memory_of)
    files=$(find "/proc/$vm/fd" -type l | wc -l)
    /usr/bin/python3 "$top/test/ctl/clients.py" calls socket 10000
    after=$(memory_of)
    echo "anonymous memory: $before, after 10,000 calls $after KiB"
    # A page or two more of the heap; 13 bytes a call would be more than that.
    [ "$((after - before))" -le 128 ]
    until_true at_most_open "$files"
    kill "$vm"
    ended_with 143
}

idle_connections()
{
    fresh
    start volt-vmm --kernel kernel --cmdline deaf=1 --memory 32M --serial off --api-sock socket
    /usr/bin/python3 "$top/test/ctl/clients.py" idle socket 1000
    call GET /metrics >/dev/null
    kill "$vm"
    ended_with 143
}

stale_socket()
{
    fresh
    start volt-vmm --api-sock socket
    kill -KILL "$vm"
    ended_with 137
    [ -S socket ]
    start volt-vmm --api-sock socket
    until_true eval 'call GET / | grep -q ^200'
    local status=0
    ./volt-vmm --api-sock socket >out2 2>err2 || status=$?
    [ "$status" -eq 1 ]
    grep -q 'socket: is there already, and in use' err2
    call GET / | grep -q ^200
    kill "$vm"
    ended_with 143
    [ ! -e socket ]
}

payload_limit()
{
    fresh
    start volt-vmm --api-sock socket --http-api-max-payload-size 250 --metadata <(echo '{"from":"file"}')
    call GET /mmds | grep -qx '200 {"from":"file"}'
    call PUT "/mmds {\"a\":\"$(printf %0300d 1)\"}" | grep -q '^400 {"error":"Request payload with size 308 is larger than the limit of 250'
    kill "$vm"
    ended_with 143
    start volt-vmm --api-sock socket --mmds-size-limit 30
    call PUT '/mmds {"a":"01234567890123456789"}' | grep -qx 204
    call PUT '/mmds {"a":"0123456789012345678901234567"}' |
        grep -qx "413 MMDS limit exceeded error: The MMDS patch request doesn't fit."
    kill "$vm"
    ended_with 143
}

voltctl_life()
{
    fresh
    export VOLT_RUNTIME_DIR=$work/vm/run
    ctl=$build/voltctl
    "$ctl" list | grep -q '^NAME'
    "$ctl" start web --kernel kernel --cmdline deaf=1 --memory 32M --disk disk
    "$ctl" start idle
    "$ctl" list | grep -q '^web  *Running  *[0-9]*  *1  *32  *1$'
    "$ctl" list --json | tr '\n' ' ' | grep -q '^\[{"name":"idle","state":"Not started",.*{"name":"web","state":"Running",.*\]'
    [ "$(stat -c %a run run/web.sock | tr '\n' ' ')" = "700 600 " ]
    "$ctl" start web && return 1
    "$ctl" start web --memory 64M && return 1
    "$ctl" start idle 2>err && return 1
    grep -q 'idle: Start microvm error: Cannot start microvm without kernel configuration' err
    "$ctl" rm web 2>err && return 1
    grep -q 'web: runs' err
    "$ctl" events web >followed &
    "$ctl" pause web
    "$ctl" list | grep -q '^web  *Paused'
    "$ctl" resume web
    "$ctl" config web | grep -q '"mem_size_mib":32'
    "$ctl" balloon web | grep -q '^{"amount_mib":0,"deflate_on_oom":true,.*"free_page_reporting":true}$'
    "$ctl" balloon web 8M 2>err && return 1
    grep -q 'web: Balloon update error: Balloon: Device not activated yet.' err
    "$ctl" balloon web 8K 2>err && return 1
    grep -q 'whole MiB' err
    "$ctl" metrics web | grep -q '^stardust_state{state="running"} 1'
    "$ctl" logs --console web | grep -q 'hello from a guest'
    "$ctl" stop --timeout 0 web
    wait
    grep -q '"event":"ended"' followed
    "$ctl" logs web | grep -q 'did not shut down in time'
    "$ctl" start wrong --kernel nothing 2>err && return 1
    grep -q 'wrong: did not start: .*nothing: No such file' err
    "$ctl" stop --force idle
    "$ctl" stop idle 2>err && return 1
    grep -q 'idle: no VM of that name' err
    "$ctl" rm idle
    "$ctl" rm web
    "$ctl" rm wrong
    [ -z "$(ls run)" ]
    local status=0
    "$ctl" rm ../x 2>err || status=$?
    [ "$status" -eq 1 ]
    "$ctl" nonsense 2>err || status=$?
    [ "$status" -eq 2 ]
}

tap_run "payloads and the metadata store have limits" payload_limit
tap_run "under the name firecracker: the words of failures" words_of_failures
tap_run "a stale socket is replaced, a live one is not" stale_socket
if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    tap_skip "control socket with guests" "/dev/kvm cannot be opened on this machine"
    tap_done
    exit
fi
tap_run "a table of requests" table
tap_run "under the name firecracker: words and exit statuses" personality
tap_run "under the name firecracker: the socket" as_firecracker
tap_run "under the name firecracker: signals" signals
tap_run "a configuration file" config_file
tap_run "ctl: network cards" network_cards
tap_run "a command line and a socket" command_line
tap_run "events, and a shutdown with a deadline" events_and_shutdown
tap_run "10,000 calls leak nothing" many_calls --kernel kernel --cmdline deaf=1 --memory 32M
tap_run "nor do they before the start" many_calls
tap_run "1,000 idle connections" idle_connections
tap_run "what the command line says of a disk" given_drives
tap_run "another disk while the VM runs" replaced_drives
tap_run "another disk that is held, and the end of the VM" replaced_at_the_end
tap_run "voltctl, from start to rm" voltctl_life
tap_done
