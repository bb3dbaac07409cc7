#!/bin/bash
# shellcheck disable=SC2317 # the tests are called by tap_run
# A tiny guest (test/guest/scribbler.c) makes the same random changes to a volume and to a raw file, and its VM ends in every
# way there is: power-off and reboot, between batches and in the middle of one, SIGTERM, SIGINT, kill -9. Afterwards every
# sector of both is as a model has it (scribbled.c): after a clean end all that the guest was told is done, flushed or not;
# after kill -9, on the volume, all that it was told is flushed. ENDS says how many, ENDS_SEED repeats a failure.
set -euo pipefail
build=${BUILD:-build}
make -s all guests store-tests
. test/tap.sh
vmm=$(realpath "$build/volt-vmm")
stellarium=$(realpath "$build/stellarium")
scribbled=$(realpath "$build/test/store/scribbled")
guest=$(realpath "$build/test/guest/scribbler")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export STELLARIUM_STORE=$work/store
ends=${ENDS:-150}
seed=${ENDS_SEED:-$RANDOM}

# start WORDS: a VM with these words for its guest, in the background. A script's background job ignores SIGINT otherwise.
start()
{
    rm -f console
    env --default-signal=INT "$vmm" --kernel "$guest" --cmdline "seed=$run $*" --memory 32M --volume volume \
        --disk file.raw --serial file=console >log 2>&1 </dev/null &
    pid=$!
}

# Ends the VM by a signal, some time after its guest's first words.
signal_it()
{
    local tries=0 us=$((RANDOM % 40000))
    until [ -s console ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 5000 ] || ! kill -0 "$pid" 2>/dev/null; then
            echo "no word of the guest" && cat log && return 1
        fi
        sleep 0.002
    done
    sleep "0.$(printf '%06d' "$us")"
    kill "-$1" "$pid"
}

# The greatest number that the guest said after word $1, in a complete line.
said()
{
    local lines
    lines=$(while IFS= read -r line; do echo "$line"; done <console | tr -d '\r' | sed -n "s/^$1 \([0-9]*\)$/\1/p" | tail -n 1)
    echo "${lines:-0}"
}

# One VM that ends as end number $1; `kept`: the batches that must be on the volume; `unheard`: that may have begun besides.
one()
{
    local batches=$((RANDOM % 6)) status=0 expected=0
    run=$((RANDOM * 32768 + RANDOM))
    unheard=1
    case $(($1 % 7)) in
    0) start "batches=$batches end=poweroff" ;;
    1) start "batches=$batches end=reboot" ;;
    2) start "batches=$batches end=poweroff abrupt=1" ;;
    3) start "batches=$batches end=reboot abrupt=1" ;;
    4) expected=143 && start "batches=1000000" && signal_it TERM ;;
    5) expected=130 && start "batches=1000000" && signal_it INT ;;
    6) expected=137 && start "batches=1000000" && signal_it KILL && unheard=2000 ;;
    esac
    wait "$pid" 2>/dev/null || status=$?
    touch console
    if [ "$status" -ne "$expected" ] || grep -q FAILED console; then
        echo "status $status, not $expected" && cat console log && return 1
    fi
    heard=$(said "done")
    kept=$heard
    if [ "$expected" -eq 137 ]; then kept=$(said flushed); fi
    case $(($1 % 7)) in
    [0-3]) [ "$heard" -eq "$batches" ] || { echo "$heard batches, not $batches" && return 1; } ;;
    esac
}

# The next VMs go on from an image of the volume: its map is empty again, and parts of pages are read from objects.
renew()
{
    "$stellarium" commit volume state
    "$stellarium" rm ./volume
    "$stellarium" gc
    "$stellarium" clone state volume
    "$stellarium" verify
}

ended()
{
    local n run heard kept unheard pid batches=0 lost=0
    RANDOM=$seed
    for ((n = 0; n < ends; n++)); do
        one "$n" && "$scribbled" check store volume file.raw model "$run" "$heard" "$kept" "$unheard" || {
            echo "end $n, ENDS_SEED=$seed" && return 1
        }
        batches=$((batches + heard))
        lost=$((lost + heard - kept))
        if [ $((n % 25)) -eq 24 ]; then renew || { echo "after end $n, ENDS_SEED=$seed" && return 1; }; fi
    done
    echo "$ends ends, $batches batches, $lost of them done and not flushed before a kill -9"
    [ "$batches" -ge "$ends" ] # fewer would be no test of what the name says
}

# The judge is not content with just anything.
judged()
{
    "$scribbled" check store volume file.raw model 1 0 0 0
    if "$scribbled" check store volume file.raw model 1 1 1 0; then return 1; fi
    cp file.raw other.raw
    cp model other
    printf x | dd of=other.raw bs=1 seek=1000000 conv=notrunc status=none
    if "$scribbled" check store volume other.raw other 1 0 0 0; then return 1; fi
}

if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    tap_skip "every end keeps what it must" "/dev/kvm cannot be opened on this machine"
    tap_done
    exit
fi

"$scribbled" make base.raw model
cp base.raw file.raw
"$stellarium" init >/dev/null
"$stellarium" import base.raw base >/dev/null
"$stellarium" clone base volume >/dev/null
tap_run "disks that have not what they should are noticed" judged
tap_run "every end keeps what it must, $ends times" ended
tap_done
