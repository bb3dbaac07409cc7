# shellcheck shell=bash
# VMs that run counter.c, for the tests of snapshots and forks: sourced by them, after tap.sh. It makes a working folder
# and goes there.

build=$(cd "${BUILD:-build}" && pwd)
counter=$build/test/guest/counter
work=$(mktemp -d)
export VOLT_RUNTIME_DIR=$work/run STELLARIUM_STORE=$work/store
# shellcheck disable=SC2317 # called by the trap
clean_up()
{
    local socket
    for socket in "$work"/run/*.sock; do
        [ ! -S "$socket" ] || ctl stop --force "$(basename "$socket" .sock)" 2>/dev/null || true
    done
    ! mountpoint -q "$work/small" || umount "$work/small"
    [ ! -e "$work/pool" ] || cat "$work/pool" >/proc/sys/vm/nr_hugepages
    rm -rf "$work"
}
trap clean_up EXIT
cd "$work" || exit

ctl()
{
    timeout 60 "$build/voltctl" "$@"
}

# The last round that VM $1 has said; 0 before the first.
round()
{
    local said
    said=$(tr -d '\r' <"run/$1.console" | sed -n 's/^round \([0-9]*\)$/\1/p' | tail -n 1)
    echo "${said:-0}"
}

# counts NAME FROM: comes to a round beyond FROM, and finds nothing wrong.
counts()
{
    local i
    for ((i = 0; i < 600; i++)); do
        if grep -q FAILED "run/$1.console"; then break; fi
        [ "$(round "$1")" -le "$2" ] || return 0
        sleep 0.05
    done
    echo "$1 does not count beyond $2:"
    tail -n 5 "run/$1.console" "run/$1.log"
    return 1
}

# start NAME WORDS OPTION...: the counter, until it has counted a little. A VM that an earlier test left is ended.
start()
{
    local name=$1 words=$2
    shift 2
    end "$name"
    ctl start "$name" --kernel "$counter" --cmdline "$words" --memory 32M "$@"
    counts "$name" 2
}

end()
{
    ctl stop --force "$1" 2>/dev/null || true
}

# refused WORDS COMMAND...: fails, and says so.
refused()
{
    local words=$1
    shift
    if "$@" >said 2>&1; then echo "not refused: $*" && return 1; fi
    grep -q "$words" said || { cat said && return 1; }
}

request() # NAME METHOD PATH BODY
{
    curl -s --unix-socket "run/$1.sock" -X "$2" "http://localhost$3" -d "$4"
}

vmm_pid()
{
    ctl --json list | sed -n "s/.*\"name\":\"$1\".*\"pid\":\([0-9]*\).*/\1/p"
}

new_store()
{
    chmod -R u+w store 2>/dev/null || true
    rm -rf store
    "$build/stellarium" init >/dev/null
}

# True if the pool has the pages of a VM, which are added where that is allowed and taken away at the end.
huge_pages()
{
    local pool=/proc/sys/vm/nr_hugepages
    if [ "$(awk '/HugePages_Free/ { print $2 }' /proc/meminfo)" -lt 16 ] && [ -w $pool ]; then
        [ -e "$work/pool" ] || cp $pool "$work/pool"
        echo $(($(cat $pool) + 16)) >$pool
    fi
    [ "$(awk '/HugePages_Free/ { print $2 }' /proc/meminfo)" -ge 16 ]
}
