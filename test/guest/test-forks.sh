#!/bin/bash
# Live forks, with a tiny guest under this machine's /dev/kvm: counter.c counts, and looks at its memory and its disk in
# each round, so that a copy that shared what is written would find another's words.
set -euo pipefail
. test/tap.sh
. test/guest/counter.sh

# Descriptors of VM $1, without those of who has just asked it something.
descriptors_of()
{
    find "/proc/$(vmm_pid "$1")/fd" -type l -printf '%l\n' | grep -vc '^socket:'
}

# NAME STATE: what the list says of it.
is()
{
    ctl list >listed
    grep -q "^$1 *$2" listed || { cat listed && return 1; }
}

both_go_on()
{
    start vm "pages=200" --allow-fork
    ctl fork vm copy
    counts copy "$(round vm)"
    counts vm "$(round copy)"
    grep -q '"id":"copy"' <(curl -s --unix-socket run/copy.sock http://localhost/)
    [ "$(vmm_pid vm)" != "$(vmm_pid copy)" ]
    # A copy can do what a VM can.
    ctl pause copy
    is copy Paused
    is vm Running
    ctl resume copy
    counts copy "$(round copy)"
    refused "is a fork" ctl reset copy
    ctl snapshot copy snap-of-copy
    end copy
    [ ! -e run/copy.sock ]
    [ -S run/vm.sock ]
    counts vm "$(round vm)"
    ctl restore copy snap-of-copy
    counts copy 2
    end copy
    end vm
}

# Each is a copy of the one before, which ends.
deep()
{
    local i before=base first
    start base "pages=50" --allow-fork
    for ((i = 1; i <= 12; i++)); do
        ctl fork "$before" "deep$i"
        counts "deep$i" "$(round "$before")"
        [ "$i" -ne 1 ] || first=$(descriptors_of deep1)
        end "$before"
        before=deep$i
    done
    counts "$before" "$(round "$before")"
    [ "$(descriptors_of "$before")" -eq "$first" ] || { ls -l "/proc/$(vmm_pid "$before")/fd" && return 1; }
    end "$before"
}

wide()
{
    local i
    start vm "pages=50" --allow-fork
    ctl --json fork -n 20 vm | tr ',' '\n' | sed -n 's/.*"pid":\([0-9]*\).*/\1/p' | sort -u >pids
    [ "$(wc -l <pids)" -eq 20 ]
    for ((i = 1; i <= 20; i++)); do
        counts "vm-$i" "$(round vm)"
    done
    # The next ones have the next names.
    [ "$(ctl fork -n 2 vm | tr '\n' ' ')" = "vm-21 vm-22 " ]
    # No copy keeps the VM, or another copy, alive.
    end vm
    [ "$(find /proc/[0-9]*/fd -lname '*anon_inode:kvm-vm*' 2>/dev/null | grep -cF -f <(sed 's|.*|/proc/&/fd|' pids))" -eq 20 ]
    for ((i = 1; i <= 22; i++)); do
        counts "vm-$i" "$(round "vm-$i")"
        end "vm-$i"
    done
}

paused_ones()
{
    start vm "pages=10" --allow-fork
    ctl fork --paused vm waits
    is waits Paused
    is vm Running
    [ "$(round waits)" -eq 0 ]
    ctl resume waits
    counts waits 2
    # A VM that is paused stays so, and its copies run.
    ctl pause vm
    ctl fork vm copy
    counts copy 2
    is vm Paused
    ctl resume vm
    counts vm "$(round vm)"
    end waits
    end copy
    end vm
}

# Whoever dies takes no other along.
killed()
{
    local i
    start vm "pages=50" --allow-fork --log-path "$work/lines"
    ctl fork vm one two
    kill -KILL "$(vmm_pid one)"
    for ((i = 0; i < 100; i++)); do
        if grep -q "copy one (process [0-9]*) has ended with status 137" lines; then break; fi
        sleep 0.05
    done
    grep -q "has ended with status 137" lines
    ctl rm one
    counts vm "$(round vm)"
    kill -KILL "$(vmm_pid vm)"
    counts two "$(round two)"
    ctl rm vm
    ctl fork two three
    end two
    counts three "$(round three)"
    # SIGTERM is a copy's own.
    kill -TERM "$(vmm_pid three)"
    for ((i = 0; i < 100 && $(test -S run/three.sock; echo $?) == 0; i++)); do sleep 0.05; done
    grep -q "ended by signal 15" run/three.log
}

refusals()
{
    start vm "pages=10"
    refused "start it with --allow-fork" ctl fork vm
    [ ! -e run/vm-1.sock ]
    start vm "pages=10" --allow-fork
    refused "is no name of a VM" ctl fork vm a/b
    refused "give a number" ctl fork -n x vm
    refused "is there already" ctl fork vm vm
    counts vm "$(round vm)"
    request vm PUT /vm/fork '{"count":1,"ids":["x"]}' | grep -q "0 descriptors came with the request, and a copy needs 4"
    request vm PUT /vm/fork '{"count":0}' | grep -q "count is 0"
    request vm PUT /vm/fork '{"count":-1}' | grep -q "fault_message"
    request vm PUT /vm/fork '{"count":4294967295}' | grep -q "descriptors came"
    python3 - run/vm.sock <<'P'
import json, os, socket, sys
def ask(body, files):
    body = json.dumps(body)
    text = "PUT /vm/fork HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sys.argv[1])
        socket.send_fds(s, [text.encode()], files)
        return s.recv(65536).decode()
zero = os.open("/dev/null", os.O_RDWR)
assert "0 ids for 1 copies" in ask({"count": 1}, [zero] * 4)
assert "Invalid char" in ask({"count": 1, "ids": ["a/b"]}, [zero] * 4)
assert "5 descriptors came" in ask({"count": 1, "ids": ["a"]}, [zero] * 5)
# What is no socket ends the copy, and nobody else.
assert "200 OK" in ask({"count": 1, "ids": ["a"]}, [zero] * 4)
P
    counts vm "$(round vm)"
    end vm
    if huge_pages; then
        start vm "pages=10" --allow-fork --hugepages
        refused "leave --hugepages out" ctl fork vm
        end vm
    fi
}

# What is written after the fork is each one's own; what was written before, both have.
disks()
{
    truncate -s 1M disk
    new_store
    "$build/stellarium" import disk plain
    start vm "pages=10 disk=1" --disk cas:plain --allow-fork
    ctl fork -n 3 vm
    ctl fork vm-1 grandchild
    for name in vm vm-1 vm-2 vm-3 grandchild; do
        counts "$name" $(($(round "$name") + 70)) # each sector of it
        end "$name"
    done
    "$build/stellarium" verify
    # A volume: a copy's writes are lost at its end, and the volume has the VM's alone.
    "$build/stellarium" clone plain volume
    start vm "pages=10 disk=1" --disk volume:volume --allow-fork
    ctl fork vm copy
    counts copy $(($(round vm) + 70))
    counts vm "$(round copy)"
    end copy
    end vm
    "$build/stellarium" commit volume written
    # A file in which both would write, on a file system that cannot share blocks.
    if ! cp --reflink=always disk reflinked 2>/dev/null; then
        start vm "pages=10 disk=1" --disk disk --allow-fork
        refused "disk 0, disk: its file cannot be copied at once" ctl fork vm
        counts vm "$(round vm)"
        end vm
    fi
    truncate -s 1M read-only
    start vm "pages=10" --disk read-only,ro --allow-fork
    ctl fork vm copy
    counts copy "$(round vm)"
    end vm
    end copy
}

# Requests that come at once, and files that are not empty: each is answered, and the VM goes on.
at_once()
{
    new_store
    truncate -s 1M disk
    "$build/stellarium" import disk plain
    start vm "pages=10 disk=1" --disk cas:plain --allow-fork --allow-path "$work"
    python3 - run/vm.sock "$(vmm_pid vm)" "$work" <<'P'
import json, os, signal, socket, sys, time
def request(path, body):
    body = json.dumps(body)
    return ("PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path, len(body), body)).encode()
def connection():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(sys.argv[1])
    return s
def scratch(words=b""):
    f = os.open(sys.argv[3], os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(f, words)
    return f
listener = socket.socket(socket.AF_UNIX)
listener.bind(os.path.join(sys.argv[3], "run/copy.sock"))
listener.listen()
log = [os.open(os.path.join(sys.argv[3], "run/copy." + name), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
       for name in ("console", "log")]
null = os.open("/dev/null", os.O_RDONLY)
def fds(disk):
    return [listener.fileno(), null, *log, disk]
fork = request("/vm/fork", {"count": 1, "ids": ["copy"]})
with connection() as s:
    socket.send_fds(s, [fork], fds(scratch(b"x")))
    said = s.recv(65536).decode()
    assert "no empty file" in said, said
one, two = connection(), connection()
time.sleep(0.1)
os.kill(int(sys.argv[2]), signal.SIGSTOP)
two.send(request("/snapshot/create", {"snapshot_path": sys.argv[3] + "/s", "mem_file_path": sys.argv[3] + "/m"}))
socket.send_fds(one, [fork], fds(scratch())) # what came last is heard first
time.sleep(0.1)
os.kill(int(sys.argv[2]), signal.SIGCONT)
said = [s.recv(65536).decode() for s in (one, two)]
assert "200 OK" in said[0], said
assert "fault_message" in said[1] and "reset or forked" in said[1], said
P
    counts copy 2
    counts vm "$(round vm)"
    end copy
    end vm
}

# A copy's vsock device has a socket of its own.
vsock_devices()
{
    start vm "pages=10" --allow-fork --vsock "cid=3,uds=$work/run/vm.vsock"
    ctl fork vm one
    ctl fork one two
    [ -S run/one.vsock ] && [ -S run/two.vsock ]
    request two GET /vm/config '' >/dev/null
    curl -s --unix-socket run/two.sock http://localhost/vm/config | grep -q "\"uds_path\":\"$work/run/two.vsock\""
    end one
    [ ! -e run/one.vsock ] && [ -S run/vm.vsock ] && [ -S run/two.vsock ]
    # Who connects is heard: there is no such server in the guest.
    [ -z "$(printf 'CONNECT 5\n' | timeout 5 socat - "UNIX-CONNECT:run/two.vsock")" ] || return 1
    counts two "$(round vm)"
    end two
    end vm
}

# From a snapshot of the store: its objects stay mapped, also when nobody else has them.
of_a_restored_one()
{
    new_store
    start vm "pages=20 every=100" --allow-fork
    ctl snapshot vm cas:one
    end vm
    ctl restore base cas:one --allow-fork
    ctl fork base one two
    end base
    "$build/stellarium" rm one
    "$build/stellarium" gc
    counts one 20
    counts two 20
    ctl snapshot one snap-of-one
    end one
    end two
    ctl restore vm snap-of-one
    counts vm 2
    end vm
}

if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    tap_skip "forks" "/dev/kvm cannot be opened on this machine"
    tap_done
    exit
fi

tap_run "forks: both go on" both_go_on
tap_run "forks: twelve deep" deep
tap_run "forks: twenty-two wide" wide
tap_run "forks: paused ones" paused_ones
tap_run "forks: whoever is killed" killed
tap_run "forks: what is refused" refusals
tap_run "forks: disks" disks
tap_run "forks: requests at once" at_once
tap_run "forks: vsock devices" vsock_devices
tap_run "forks: of a restored VM" of_a_restored_one
tap_done
