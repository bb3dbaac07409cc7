#!/bin/sh
# shellcheck disable=SC2317 # the cases are called by tap_run
# Ten VMs at a time on clones of a whole Debian, on a host or in the lab (busybox sh). Says TAP lines. Runs in a folder with
# volt-vmm, stellarium, vmlinuz, initrd.cpio and inside-debian; DEBIAN is the image, which is written to.
set -eu
# shellcheck source=test/tap.sh
. "${TAP:-/tap.sh}"

payload=$PWD
image=${DEBIAN:-/dev/vda}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export STELLARIUM_STORE="$work/store" TMPDIR="$work"
stellarium=$payload/stellarium
clones="1 2 3 4 5 6 7 8 9 10"

allocated() # bytes on disk of these files
{
    du -k "$@" | awk '{ sum += $1 } END { printf "%d\n", sum * 1024 }'
}
fact() # N NAME: of the guest on clone N
{
    tr -d '\r' <"console$1" | sed -n "s/^$2=//p" | tail -n 1
}

imports()
{
    printf 'write %s /inside\nset_inode_field /inside mode 0100755\n' "$payload/inside-debian" >commands
    debugfs -w -f commands "$image"
    "$stellarium" init
    "$stellarium" import "$image" debian
}

# No guest writes before all of them are up.
run_all()
{
    before=$(allocated store)
    vmms=''
    for n in $clones; do
        "$stellarium" clone debian "clone$n"
        mkfifo "input$n"
        # Read and write, so that it opens at once.
        timeout -k 5 400 "$payload/volt-vmm" --kernel "$payload/vmlinuz" --initrd "$payload/initrd.cpio" --memory 160M \
            --volume "clone$n" --append "rw init=/inside" <>"input$n" >"console$n" 2>"log$n" &
        vmms="$vmms $!"
    done
    tries=0
    until [ "$(cat console* | grep -c '^ready=1')" -eq 10 ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { tail -n 5 console* log* && return 1; }
        sleep 1
    done
    for n in $clones; do
        echo go >"input$n"
    done
    for vmm in $vmms; do
        wait "$vmm" || { tail -n 5 console* log* && return 1; }
    done
    echo "$before" >before
}

# Within 5 % of what the guests' own disk statistics say.
space()
{
    total=0
    for n in $clones; do
        written=$(fact "$n" written)
        [ "$written" -ge $((10 << 20)) ]
        total=$((total + written))
    done
    grown=$(($(allocated clone*) + $(allocated store) - $(cat before)))
    echo "the guests wrote $total bytes, the clones and the store grew by $grown" | tee space
    [ "$grown" -le $((total * 105 / 100)) ]
    [ "$grown" -ge $((total * 95 / 100)) ]
}

# What the guest wrote is what is read back from clone N, and its file system is whole.
whole() # N
{
    "$stellarium" commit "clone$1" "image$1"
    "$stellarium" export "image$1" raw
    e2fsck -fn raw
    [ "$(debugfs -R 'cat /own' raw 2>/dev/null | sha256sum | cut -c 1-16)" = "$(fact "$1" sum)" ]
    rm raw
}

# One test, since none of the steps can be gone on from when the lab is started again.
ten_debians()
{
    imports
    run_all
    space
    "$stellarium" verify
    whole 1
    whole 10
}

tap_run "ten Debians at a time on clones, 10 MiB written in each: space within 5 %, all is whole" ten_debians
[ ! -e space ] || sed 's/^/# /' space
tap_done
