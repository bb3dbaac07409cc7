#!/bin/bash
# Snapshots in files, with a tiny guest under this machine's /dev/kvm: counter.c counts, and looks at its memory and its
# disk in each round.
set -euo pipefail
. test/tap.sh

. test/guest/counter.sh
mkdir small

# restore NAME DIR OPTION...
restore()
{
    end "$1"
    ctl restore "$@"
}

# No half-made file is left in folder $1.
no_leftovers()
{
    [ -z "$(find "$1" -name '*.new-*')" ] || { ls -la "$1" && return 1; }
}

goes_on_and_comes_back()
{
    local before after
    start vm "pages=100"
    before=$(round vm)
    ctl snapshot vm snap
    after=$(round vm)
    counts vm $((after + 5)) # the saved one
    no_leftovers snap
    restore copy snap
    counts copy "$before"
    [ "$(tr -d '\r' <run/copy.console | sed -n 's/^round //p' | head -n 1)" -le $((after + 5)) ] ||
        { head -n 3 run/copy.console && echo "saved between $before and $after" && return 1; }
    counts vm "$(round vm)"
    end vm
    end copy
}

# Each VM is saved over the files that it runs from itself.
a_chain_over_its_own_files()
{
    local i
    truncate -s 1M disk
    start vm0 "pages=100 disk=1" --disk disk
    for i in 1 2 3 4 5; do
        ctl pause "vm$((i - 1))"
        ctl snapshot "vm$((i - 1))" chain
        end "vm$((i - 1))"
        restore "vm$i" chain
        counts "vm$i" "$(round "vm$((i - 1))")"
    done
    end vm5
}

another_disk_in_its_place()
{
    rm -f disk other
    truncate -s 1M disk
    start vm "pages=10 disk=1" --disk disk
    ctl pause vm
    ctl snapshot vm snap-disk
    end vm
    cp disk other
    rm disk
    refused "disk: No such file" ctl restore copy snap-disk
    restore copy snap-disk --disk other
    counts copy 2
    end copy
    refused "is writable" ctl restore copy snap-disk --disk other,ro
    refused "no disk for it to replace" ctl restore copy snap-disk --disk other --disk other
    refused "what it had when it was saved" ctl restore copy snap-disk --memory 64M
}

stays_paused()
{
    start vm "pages=10"
    ctl pause vm
    ctl snapshot vm snap-paused
    [ "$(ctl --json list | tr -d ' \n')" = "$(ctl --json list | tr -d ' \n' | sed 's/Running/Paused/')" ]
    ctl resume vm
    counts vm "$(round vm)"
    end vm
}

# By requests: paused first, with the configuration to be seen, and resumed later.
by_requests()
{
    start vm "pages=10" --allow-path "$work"
    ctl pause vm
    request vm PUT /snapshot/create "{\"snapshot_path\":\"$work/by-state\",\"mem_file_path\":\"$work/by-memory\"}"
    [ -f by-state ] && [ -f by-memory ]
    refused "No such file" request vm PUT /snapshot/create '{"snapshot_path":"absent/a","mem_file_path":"absent/b"}' ||
        grep -q "Create snapshot error: absent/a: No such file" said
    end vm
    ctl start empty --memory 128M
    request empty PUT /snapshot/load "{\"snapshot_path\":\"$work/by-state\",\"mem_backend\":{\"backend_type\":\"Uffd\",\"backend_path\":\"x\"}}" |
        grep -q "not supported"
    request empty PUT /snapshot/load "{\"snapshot_path\":\"$work/by-memory\",\"mem_file_path\":\"$work/by-memory\"}" |
        grep -q "Load snapshot error: .*no snapshot of this program"
    request empty PUT /snapshot/load "{\"snapshot_path\":\"$work/by-state\",\"mem_backend\":{\"backend_type\":\"File\",\"backend_path\":\"$work/by-memory\"}}"
    request empty GET / '' 2>/dev/null | grep -q . || true
    curl -s --unix-socket run/empty.sock http://localhost/ | grep -q '"state":"Paused"'
    curl -s --unix-socket run/empty.sock http://localhost/vm/config | grep -q '"mem_size_mib":32'
    [ "$(round empty)" -eq 0 ]
    request empty PATCH /vm '{"state":"Resumed"}'
    counts empty 2
    request empty PUT /snapshot/load "{\"snapshot_path\":\"$work/by-state\",\"mem_file_path\":\"$work/by-memory\"}" |
        grep -q "not supported after starting"
    end empty
}

# A vsock device's socket and address: those of the snapshot, or others.
vsock_in_another_place()
{
    start vm "pages=10" --vsock "cid=5,uds=$work/v" --allow-path "$work"
    [ -S v ]
    ctl snapshot vm "$work/snap-vsock"
    refused "$work/v: is there already, and in use" ctl restore copy snap-vsock
    restore copy snap-vsock --vsock "cid=6,uds=$work/v2"
    counts copy 2
    [ -S v2 ]
    ctl config copy | grep -q "\"vsock\":{\"guest_cid\":6,\"uds_path\":\"$work/v2\"}"
    end copy
    [ ! -e v2 ]
    local files="\"snapshot_path\":\"$work/snap-vsock/state\",\"mem_file_path\":\"$work/snap-vsock/memory\""
    ctl start empty --memory 128M
    request empty PUT /snapshot/load "{$files,\"resume_vm\":true,\"vsock_override\":{\"uds_path\":\"$work/v3\"}}"
    counts empty 2
    [ -S v3 ]
    ctl config empty | grep -q "\"vsock\":{\"guest_cid\":5,\"uds_path\":\"$work/v3\"}"
    end empty
    end vm
    [ ! -e v ]
    start vm "pages=10"
    ctl snapshot vm "$work/snap-none"
    end vm
    refused "the snapshot's machine has no vsock device" ctl restore copy snap-none --vsock "uds=$work/v"
    files="\"snapshot_path\":\"$work/snap-none/state\",\"mem_file_path\":\"$work/snap-none/memory\""
    ctl start empty --memory 128M
    request empty PUT /snapshot/load "{$files,\"vsock_override\":{\"uds_path\":\"$work/v3\"}}" |
        grep -q "Load snapshot error: the snapshot has no vsock device"
    end empty
}

# What others did to the files is told by name, and no VM starts.
damaged_files()
{
    start vm "pages=10"
    ctl snapshot vm good
    ctl snapshot vm another
    end vm
    local size
    size=$(stat -c %s good/memory)

    cp -r good bad && printf x | dd of=bad/state bs=1 seek=500 conv=notrunc status=none
    refused "bad/state: damaged: its hash" ctl restore copy bad
    truncate -s 100 bad/state
    refused "bad/state: damaged" ctl restore copy bad
    : >bad/state
    refused "bad/state: no snapshot" ctl restore copy bad
    rm -r bad && cp -r good bad && printf '\x09' | dd of=bad/state bs=1 seek=8 conv=notrunc status=none
    refused "bad/state: a snapshot of version 9" ctl restore copy bad
    rm -r bad && cp -r good bad && truncate -s $((size - 4096)) bad/memory
    refused "bad/memory: has $((size - 4096)) bytes" ctl restore copy bad
    cp another/memory bad/memory
    refused "bad/memory: the memory of another snapshot" ctl restore copy bad
    rm bad/memory && mkfifo bad/memory
    refused "bad/memory: a FIFO" ctl restore copy bad
    rm -r bad
    refused "bad/state: No such file" ctl restore copy bad
}

# A folder that has no room, and a limit of a file's length: an error by name, and the VM goes on.
no_room()
{
    [ "$(id -u)" -eq 0 ] || { echo "only root can mount a small file system" && return 77; }
    mount -t tmpfs -o size=256k none small || { echo "no small file system can be mounted here" && return 77; }
    start vm "pages=200"
    refused "small/memory: No space left" ctl snapshot vm small
    [ -z "$(ls -A small)" ] || { ls -A small && return 1; }
    counts vm "$(round vm)"
    ctl snapshot vm snap-room
    end vm
    umount small
}

a_file_too_long()
{
    (ulimit -f 1024 && start limited "pages=1000")
    refused "snap-limit/memory: File too large" ctl snapshot limited snap-limit
    [ ! -e snap-limit ]
    counts limited "$(round limited)"
    end limited
}

# The child that writes, stopped before it is done.
catch_writer() # PID of the VM
{
    local i child
    for ((i = 0; i < 20000; i++)); do
        child=$(cat "/proc/$1/task/$1/children")
        [ -z "$child" ] || { kill -STOP "${child%% *}" && echo "${child%% *}" && return 0; }
    done
    return 1
}

writer_killed()
{
    local pid writer i
    start vm "pages=2000 spin=0" --memory 256M
    pid=$(vmm_pid vm)
    for i in 1 2 3 4 5 6 7 8; do
        ctl snapshot vm snap-killed >said 2>&1 &
        local asked=$!
        if writer=$(catch_writer "$pid"); then
            # In time only if it has not yet written all
            if [ ! -e snap-killed/state ]; then
                kill -KILL "$writer"
                if wait "$asked"; then continue; fi
                grep -q "the process that was to write it has died" said
                [ -z "$(ls -A snap-killed 2>/dev/null)" ]
                counts vm "$(round vm)"
                end vm
                return 0
            fi
            kill -CONT "$writer"
        fi
        wait "$asked" || true
        rm -rf snap-killed
    done
    end vm
    echo "the writer was always faster"
    return 77
}

# Kills the VM while its child writes, and waits for the child and for process $1, which has asked for it.
kill_vm_of_writer()
{
    local pid writer i
    pid=$(vmm_pid vm)
    writer=$(catch_writer "$pid") || { wait "$1"; end vm; echo "the writer was faster" && exit 77; }
    kill -KILL "$pid"
    kill -CONT "$writer"
    wait "$1" || true
    for ((i = 0; i < 200; i++)); do
        kill -0 "$writer" 2>/dev/null || break
        sleep 0.05
    done
}

# The VM is killed while a snapshot is written: it is whole later, or it is not there.
vm_killed()
{
    start vm "pages=2000 spin=0" --memory 256M
    mkdir snap-orphan
    ctl snapshot vm snap-orphan >said 2>&1 &
    local asked=$!
    kill_vm_of_writer "$asked"
    ctl rm vm
    # Files that were handed in are named by who did, and it has heard of no success.
    [ -z "$(ls -A snap-orphan 2>/dev/null)" ]
}

# By a request: whole later, on its own.
vm_killed_alone()
{
    start vm "pages=2000 spin=0" --memory 256M --allow-path "$work"
    mkdir snap-alone
    create vm "$work/snap-alone" >said 2>&1 &
    local asked=$!
    kill_vm_of_writer "$asked"
    no_leftovers snap-alone
    ctl rm vm
    restore copy snap-alone
    counts copy 2
    end copy
}

create() # NAME FOLDER: by a request without descriptors
{
    request "$1" PUT /snapshot/create "{\"snapshot_path\":\"$2/state\",\"mem_file_path\":\"$2/memory\"}"
}

# A VM makes files by itself only where a folder was named.
the_sandbox_is_closed()
{
    mkdir inside outside
    start vm "pages=10"
    create vm "$work/inside" | grep -q "start it with --allow-path"
    start vm "pages=10" --allow-path inside
    [ -z "$(create vm "$work/inside")" ]
    if grep -q landlock /sys/kernel/security/lsm 2>/dev/null; then
        create vm "$work/outside" | grep -q "may not be written (if it is the sandbox"
        [ -z "$(ls -A outside)" ]
    fi
    counts vm "$(round vm)"
    end vm
    restore copy inside
    counts copy 2
    end copy
}

# What comes with a request is looked at.
descriptors()
{
    start vm "pages=10"
    python3 - "run/vm.sock" "$work" <<'P'
import json, os, socket, sys
body = json.dumps({"snapshot_path": "a", "mem_file_path": "b"})
text = ("PUT /snapshot/create HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)).encode()
def ask(files):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sys.argv[1])
        socket.send_fds(s, [text], [f.fileno() for f in files])
        return s.recv(65536).decode()
def file(name, words=b""):
    f = open(os.path.join(sys.argv[2], name), "wb+")
    f.write(words)
    f.flush()
    return f
new = lambda name: file("handed-" + name)
for files, words in [([new("one")], "there must be two"), ([new("a"), new("b"), new("c")], "there must be two"),
                     ([new(str(i)) for i in range(20)], "there must be two"),
                     ([file("full", b"x"), new("b")], "no empty file"),
                     ([open("/dev/null", "wb+"), new("b")], "no empty file"),
                     ([new("a"), open(os.path.join(sys.argv[2], "handed-b"), "rb")], "Bad file descriptor"),
                     ([new("state"), new("memory")], "204")]:
    said = ask(files)
    assert words in said, (words, said)
P
    # None of them is left open.
    [ "$(find "/proc/$(vmm_pid vm)/fd" -lname '*handed*' | wc -l)" -eq 0 ]
    mkdir handed && mv handed-state handed/state && mv handed-memory handed/memory
    end vm
    restore copy handed
    counts copy 2
    end copy
}

memory_of_all_kinds()
{
    local option
    start vm "pages=100"
    ctl snapshot vm snap-kinds
    end vm
    for option in "--thp off" "--thp on"; do
        # shellcheck disable=SC2086 # two words
        restore copy snap-kinds $option
        counts copy 2
        end copy
    done
    if huge_pages; then
        restore copy snap-kinds --hugepages
        counts copy 2
        ctl snapshot copy snap-kinds
        end copy
    fi
}

# MiB of all objects in the store.
stored()
{
    find store/objects -type f -printf '%s\n' | awk '{ n += $1 } END { print int(n / 1048576) }'
}

in_the_store()
{
    new_store
    start vm "pages=20 every=100"
    ctl snapshot vm cas:one
    [ "$(stored)" -ge 7 ] || { echo "$(stored) MiB stored of 7 that there are" && return 1; }
    counts vm "$(round vm)"
    # What stayed is shared, also under another name, by the VM's own word.
    ctl snapshot vm cas:two
    [ "$(stored)" -le 9 ] || { echo "$(stored) MiB stored of twice nearly the same" && return 1; }
    end vm
    restore copy cas:one
    counts copy 2
    grep -q 'store/objects' "/proc/$(vmm_pid copy)/maps"
    ctl snapshot copy cas:three
    [ "$(stored)" -le 11 ] || { echo "$(stored) MiB stored of three times nearly the same" && return 1; }
    end copy
    restore copy cas:three
    counts copy 2
    end copy
    "$build/stellarium" verify
}

# Pages that lie apart are read instead of mapped one by one.
scattered_in_the_store()
{
    new_store
    start vm "pages=300 every=3"
    ctl snapshot vm cas:one
    counts vm "$(round vm)"
    ctl snapshot vm cas:two
    end vm
    restore copy cas:two
    counts copy 2
    [ "$(grep -c 'store/objects' "/proc/$(vmm_pid copy)/maps")" -le 30 ]
    end copy
    restore copy cas:one --thp off
    counts copy 2
    end copy
}

# As long as a VM runs from it, a snapshot stays, whatever is removed.
leased_in_the_store()
{
    new_store
    start vm "pages=20 every=100"
    ctl snapshot vm cas:one
    end vm
    restore copy cas:one
    "$build/stellarium" rm one
    "$build/stellarium" gc
    [ "$(stored)" -ge 6 ]
    counts copy 20
    end copy
    "$build/stellarium" gc
    [ "$(stored)" -eq 0 ]
    refused "one" ctl restore copy cas:one
}

damaged_in_the_store()
{
    local object
    new_store
    start vm "pages=20 every=100"
    ctl snapshot vm cas:one
    end vm
    truncate -s 4M disk-image
    printf x | dd of=disk-image conv=notrunc status=none
    "$build/stellarium" import disk-image plain
    refused "cas:plain: an image, and no snapshot" ctl restore copy cas:plain
    refused "absent" ctl restore copy cas:absent
    (unset STELLARIUM_STORE && refused "in which store" ctl restore copy cas:one)
    (unset STELLARIUM_STORE && ctl --cas-store store restore copy cas:one && counts copy 2 && end copy)
    object=$(find store/objects -type f -size 2M | head -n 1)
    chmod u+w "$object"
    printf 'rot' | dd of="$object" bs=1 seek=5000 conv=notrunc status=none
    refused "is corrupt" ctl restore copy cas:one
    # What is written to a clone that is thrown away would be missing.
    start vm "pages=10 disk=1" --disk cas:plain
    refused "thrown away at the end" ctl snapshot vm cas:two
    counts vm "$(round vm)"
    end vm
}

# counts_on NAME LINES: says five lines more than so many.
counts_on()
{
    local i
    for ((i = 0; i < 600; i++)); do
        [ "$(wc -l <"run/$1.console")" -lt $(($2 + 5)) ] || return 0
        sleep 0.05
    done
    echo "$1 says nothing more" && tail -n 3 "run/$1.console" "run/$1.log"
    return 1
}

# Back to the snapshot, again and again: from $1 on.
resets() # FROM OPTION...
{
    local i
    restore copy "$@"
    for i in 1 2 3 4 5 6 7 8; do
        counts_on copy "$(wc -l <run/copy.console)"
        ctl reset copy
        counts_on copy "$(wc -l <run/copy.console)"
        # The first line may be one that was half said when it was saved.
        [ "$(tr -d '\r' <run/copy.console | grep -c "round $((saved_round + 3))\$")" -eq $((i + 1)) ] ||
            { echo "after $i resets to round $saved_round:" && tail run/copy.console && return 1; }
        if grep FAILED run/copy.console; then return 1; fi
    done
    # A paused one stays so.
    ctl pause copy
    ctl reset copy
    ctl list | grep -q 'copy *Paused'
    ctl resume copy
    counts copy 2
    # What is saved after a reset is whole.
    ctl snapshot copy snap-reset
    end copy
    restore copy snap-reset
    counts copy 2
    end copy
}

reset_all_ways()
{
    truncate -s 1M ro-disk
    new_store
    start vm "pages=300 every=3" --disk ro-disk,ro
    ctl snapshot vm snap-base
    ctl snapshot vm cas:base
    counts vm $(($(round vm) + 3))
    ctl pause vm
    saved_round=$(round vm)
    ctl snapshot vm snap-base
    ctl snapshot vm cas:scattered
    refused "did not come from a snapshot" ctl reset vm
    end vm
    resets snap-base
    resets snap-base --thp off
    resets cas:scattered
    if huge_pages; then
        resets snap-base --hugepages
    fi
    start vm "pages=10 disk=1" --disk ro-disk
    ctl pause vm
    ctl snapshot vm snap-writable
    end vm
    restore copy snap-writable
    refused "is writable" ctl reset copy
    counts copy 2
    end copy
}

# Whoever is killed leaves a store that is whole.
killed_in_the_store()
{
    local i asked
    new_store
    start vm "pages=20 every=100"
    for i in 1 2 3 4 5 6 7 8; do
        timeout 60 "$build/voltctl" snapshot vm "cas:killed$i" >said 2>&1 &
        asked=$!
        sleep "0.0$i"
        pkill -KILL -P "$asked" voltctl || true
        wait "$asked" || true
    done
    counts vm "$(round vm)"
    "$build/stellarium" verify
    "$build/stellarium" gc
    [ -z "$(ls -A store/tmp)" ]
    ctl snapshot vm cas:whole
    end vm
    restore copy cas:whole
    counts copy 2
    end copy
}

if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    tap_skip "snapshots" "/dev/kvm cannot be opened on this machine"
    tap_done
    exit
fi

tap_run "snapshots: the saved goes on, and the restored from there" goes_on_and_comes_back
tap_run "snapshots: a chain over the files that it runs from" a_chain_over_its_own_files
tap_run "snapshots: another disk in its place" another_disk_in_its_place
tap_run "snapshots: a paused machine stays so" stays_paused
tap_run "snapshots: by requests" by_requests
tap_run "snapshots: a vsock device in another place" vsock_in_another_place
tap_run "snapshots: damaged files" damaged_files
tap_run "snapshots: no room" no_room
tap_run "snapshots: a file too long" a_file_too_long
tap_run "snapshots: the writer is killed" writer_killed
tap_run "snapshots: the VM is killed" vm_killed
tap_run "snapshots: the VM is killed, and had made the files" vm_killed_alone
tap_run "snapshots: the sandbox is closed" the_sandbox_is_closed
tap_run "snapshots: descriptors that come with a request" descriptors
tap_run "snapshots: memory of all kinds" memory_of_all_kinds
tap_run "snapshots: in the store, and what they share" in_the_store
tap_run "snapshots: in the store, pages that lie apart" scattered_in_the_store
tap_run "snapshots: in the store, removed while a VM runs from it" leased_in_the_store
tap_run "snapshots: in the store, damaged and refused" damaged_in_the_store
tap_run "snapshots: reset, in place" reset_all_ways
tap_run "snapshots: in the store, the writer is killed" killed_in_the_store
tap_done
