#!/bin/bash
# shellcheck disable=SC2317 # the tests are called by tap_run
# A VM that writes and flushes to a volume (test/guest/flusher.c) is killed at random moments, again and again on the same
# volume, with gc, commit and clone in between: what the guest was told is flushed is there (flushed.c). A tiny guest, so that
# hundreds of kills take a minute on any /dev/kvm. KILLS says how many, KILL_SEED repeats the delays of a failure.
set -euo pipefail
build=${BUILD:-build}
make -s all guests store-tests
. test/tap.sh
vmm=$(realpath "$build/volt-vmm")
stellarium=$(realpath "$build/stellarium")
flushed=$(realpath "$build/test/store/flushed")
guest=$(realpath "$build/test/guest/flusher")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export STELLARIUM_STORE=$work/store
kills=${KILLS:-300}
seed=${KILL_SEED:-$RANDOM}

# delay BELOW: waits a random time of less than so many milliseconds
delay()
{
    local us=$((RANDOM % $1 * 1000 + RANDOM % 1000))
    sleep "0.$(printf '%06d' "$us")"
}

# One VM, killed: every fourth while it starts, the others after its guest's first words. Its complete lines in `text`.
run_and_kill()
{
    local n=$1 tries=0
    rm -f console
    "$vmm" --kernel "$guest" --cmdline none --memory 32M --volume volume --serial file=console >log 2>&1 </dev/null &
    local pid=$!
    if [ $((n % 4)) -eq 0 ]; then
        delay 20
    else
        until [ -s console ]; do
            tries=$((tries + 1))
            if [ "$tries" -gt 5000 ] || ! kill -0 "$pid" 2>/dev/null; then
                echo "no word of the guest" && cat log && return 1
            fi
            sleep 0.002
        done
        if [ $((n % 10)) -eq 1 ]; then "$stellarium" gc; fi
        delay 80
    fi
    kill -KILL "$pid" # fails if the VM has ended by itself
    wait "$pid" 2>/dev/null || true
    touch console
    # Complete lines: the kernel may still be writing the last one, as a dead process's ring ends after it.
    text=$(while IFS= read -r line; do echo "$line"; done <console | tr -d '\r' | sed -n '/FAILED/p; /^flush[a-z]* [0-9]*$/p')
    if [[ $text == *FAILED* ]] || [ -s log ]; then echo "$text" && cat log && return 1; fi
}

# The next VMs go on from an image of the volume: its map is empty again, as are flushes that change nothing in it.
renew()
{
    "$stellarium" commit volume state
    "$stellarium" rm ./volume
    "$stellarium" gc
    "$stellarium" clone state volume
    "$stellarium" verify
    "$flushed" check store volume "$last"
}

killed()
{
    local n text last=0 in_flush=0 silent=0 newest
    RANDOM=$seed
    for ((n = 1; n <= kills; n++)); do
        run_and_kill "$n" || { echo "kill $n, KILL_SEED=$seed" && return 1; }
        newest=$(sed -n 's/^flushed //p' <<<"$text" | tail -n 1)
        last=${newest:-$last}
        case ${text##*$'\n'} in
        flushing*) in_flush=$((in_flush + 1)) ;;
        '') silent=$((silent + 1)) ;;
        esac
        "$flushed" check store volume "$last" || { echo "kill $n, KILL_SEED=$seed" && return 1; }
        if [ $((n % 20)) -eq 0 ]; then renew || { echo "after kill $n, KILL_SEED=$seed" && return 1; }; fi
    done
    echo "$kills kills: $silent before the guest's first words, $in_flush during a flush; $last generations were flushed"
    # Fewer would be no test of what the name says.
    [ "$last" -ge "$((kills / 3))" ] && [ "$in_flush" -gt 0 ] && [ "$silent" -gt 0 ]
}

# The judge is not content with just anything: as it was, said to be newer than it is, with one foreign word.
judged()
{
    "$flushed" check store volume 0
    if "$flushed" check store volume 1; then return 1; fi
    printf x | dd of=base.raw bs=1 seek=1000000 conv=notrunc status=none
    "$stellarium" import --reread base.raw foreign
    "$stellarium" clone foreign other
    if "$flushed" check store other 0; then return 1; fi
}

if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then
    tap_skip "what was flushed is there after kill -9" "/dev/kvm cannot be opened on this machine"
    tap_done
    exit
fi

"$flushed" make base.raw
"$stellarium" init >/dev/null
"$stellarium" import base.raw base >/dev/null
"$stellarium" clone base volume >/dev/null
tap_run "a volume that has not what was flushed is noticed" judged
tap_run "what was flushed is there after kill -9, at $kills random moments" killed
tap_done
