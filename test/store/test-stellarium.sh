#!/bin/bash
# shellcheck disable=SC2317 # the tests are called by tap_run
# The stellarium command: what it imports, its words and statuses, and being killed at random moments.
set -euo pipefail
build=${BUILD:-build}
make -s all
. test/tap.sh
top=$PWD
stellarium=$(realpath "$build/stellarium")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export STELLARIUM_STORE=$work/store

# status WANTED COMMAND...
status()
{
    local wanted=$1 got=0
    shift
    "$@" || got=$?
    [ "$got" -eq "$wanted" ] || { echo "status $got, not $wanted: $*" && return 1; }
}
# json KEY: a number from what a command printed
json()
{
    sed -n "s/.*\"$1\": \([0-9.e-]*\).*/\1/p" | head -n 1
}

golden_files()
{
    cd "$top/test/golden"
    sha256sum -c manifest-v1.sha256 volume-map-v1.sha256
}

raw_images()
{
    "$stellarium" import base.raw base
    "$stellarium" export base out.raw
    cmp base.raw out.raw
    [ "$(du -k out.raw | cut -f 1)" -le "$(du -k base.raw | cut -f 1)" ]
    sleep 3 # times of the last two seconds are not trusted
    [ "$("$stellarium" import --json base.raw base | json bytes_read)" -gt 0 ]
    "$stellarium" import --json base.raw base | grep '"unchanged": true'
    touch base.raw
    "$stellarium" import --json base.raw base | grep '"unchanged": false'
    "$stellarium" export base - 2>/dev/null || true # a file named -
}

changed_images()
{
    cp base.raw changed.raw
    printf x | dd of=changed.raw bs=1 seek=3000000 conv=notrunc 2>/dev/null
    [ "$("$stellarium" import --json --base base changed.raw changed | json bytes_stored)" -eq 4096 ]
    status 1 "$stellarium" diff base changed >ranges
    [ "$(cat ranges)" = "2998272 +4096" ]
    status 0 "$stellarium" diff base base
}

make_tree()
{
    rm -rf tree
    mkdir -p tree/usr/bin tree/etc
    echo hello >tree/etc/motd
    seq 10000 >tree/usr/bin/numbers
    ln -s motd tree/etc/issue
    ln tree/etc/motd tree/etc/hard
}

directories()
{
    make_tree
    "$stellarium" import tree tree1
    cp -a tree tree-copied
    sleep 1.1
    "$stellarium" import tree-copied tree2
    status 0 "$stellarium" diff tree1 tree2
    "$stellarium" export tree1 fs.raw
    e2fsck -fn fs.raw
    [ "$(debugfs -R 'cat /etc/motd' fs.raw 2>/dev/null)" = hello ]
    [ "$(stat -c %s fs.raw)" -lt 100000000 ]
}

archives()
{
    command -v bsdtar >/dev/null || { echo "bsdtar is not installed (libarchive-tools)" && exit 77; }
    [ "$(id -u)" -eq 0 ] || { echo "needs root, or fakeroot" && exit 77; }
    make_tree
    tar -C tree --sort=name -czf tree.tar.gz .
    "$stellarium" import --size 64M tree.tar.gz tar1
    sleep 1.1
    "$stellarium" import --size 64M tree.tar.gz tar2
    status 0 "$stellarium" diff tar1 tar2
    tar -C / -cPf evil.tar --transform 's|^|../../|' etc/hostname 2>/dev/null || true
    status 3 "$stellarium" import evil.tar evil
}

# Two layers; the second removes a file, empties a directory, and has a link that wants to lead out.
oci_images()
{
    command -v bsdtar >/dev/null || { echo "bsdtar is not installed (libarchive-tools)" && exit 77; }
    [ "$(id -u)" -eq 0 ] || { echo "needs root, or fakeroot" && exit 77; }
    rm -rf one two oci
    mkdir -p one/etc one/dir two/etc two/dir oci/blobs/sha256
    echo 1 >one/etc/gone
    echo 1 >one/etc/stays
    echo 1 >one/dir/old
    touch two/etc/.wh.gone two/dir/.wh..wh..opq
    echo 2 >two/dir/new
    layers=''
    for layer in one two; do
        tar -C $layer -czf layer.tar.gz .
        sum=$(sha256sum layer.tar.gz | cut -d ' ' -f 1)
        mv layer.tar.gz "oci/blobs/sha256/$sum"
        layers="$layers{\"mediaType\": \"application/vnd.oci.image.layer.v1.tar+gzip\", \"digest\": \"sha256:$sum\"},"
    done
    echo "{\"schemaVersion\": 2, \"layers\": [${layers%,}]}" >manifest
    sum=$(sha256sum manifest | cut -d ' ' -f 1)
    mv manifest "oci/blobs/sha256/$sum"
    echo "{\"schemaVersion\": 2, \"manifests\": [{\"digest\": \"sha256:$sum\"}]}" >oci/index.json
    "$stellarium" import oci oci
    tar -C oci -cf oci.tar .
    "$stellarium" import oci.tar oci-archive
    for name in oci oci-archive; do
        "$stellarium" export $name fs.raw
        [ "$(debugfs -R 'cat /dir/new' fs.raw 2>/dev/null)" = 2 ]
        [ "$(debugfs -R 'cat /etc/stays' fs.raw 2>/dev/null)" = 1 ]
        for gone in /etc/gone /dir/old /etc/.wh.gone; do
            if debugfs -R "stat $gone" fs.raw 2>/dev/null | grep >/dev/null Inode:; then
                echo "$gone is there"
                return 1
            fi
        done
    done
    printf x >>"oci/blobs/sha256/$sum"
    status 4 "$stellarium" import oci broken
}

words_and_statuses()
{
    status 2 "$stellarium"
    status 2 "$stellarium" frobnicate
    status 2 "$stellarium" import base.raw
    status 2 env -u STELLARIUM_STORE "$stellarium" ls
    status 0 "$stellarium" --help
    for command in init import export ls info clone commit rm gc verify stat diff; do
        "$stellarium" "$command" --help | grep >/dev/null Usage
    done
    status 3 "$stellarium" info nothing 2>words
    grep -q 'nothing: no image of this name' words
    status 3 "$stellarium" init
    head -c 1000 base.raw >odd.raw
    status 3 "$stellarium" import odd.raw odd 2>words
    grep -q 'multiple of 512' words
    status 3 "$stellarium" import base.raw ../bad
    echo "stellarium 9 sha256 2097152" >other-format
    mkdir -p other && cp other-format other/format
    status 4 "$stellarium" ls --store other
    for command in ls stat gc verify "info base"; do
        # shellcheck disable=SC2086 # words
        "$stellarium" $command --json | python3 -m json.tool >/dev/null
    done
}

read_only_store()
{
    [ "$(id -u)" -eq 0 ] || { echo "needs root for a read-only mount" && exit 77; }
    unshare -m sh -e <<S || { echo "no mount namespaces here" && exit 77; }
mount --bind store store
mount -o remount,ro,bind store
"$stellarium" verify
"$stellarium" export base out.raw
cmp base.raw out.raw
if "$stellarium" import --reread base.raw new; then exit 1; fi
if "$stellarium" gc; then exit 1; fi
S
}

# A full disk: an error in words, and nothing harmed.
full_disk()
{
    [ "$(id -u)" -eq 0 ] || { echo "needs root for a small tmpfs" && exit 77; }
    head -c 30M /dev/urandom >big.raw
    mkdir -p small
    unshare -m sh -e <<S || exit 1
mount -t tmpfs -o size=24m,nr_inodes=2000 none small
"$stellarium" init --store small/store
head -c 8M big.raw >part.raw
"$stellarium" import --store small/store part.raw part
if "$stellarium" import --store small/store big.raw big 2>words; then exit 1; fi
grep -i 'no space' words
"$stellarium" verify --store small/store
"$stellarium" gc --store small/store
"$stellarium" verify --store small/store
S
}

# Import, clone, commit, rm and gc at once, all killed at random moments.
killed_at_random()
{
    head -c 24M /dev/urandom >random.raw
    local end=$((SECONDS + ${KILL_SECONDS:-40})) kills=0 pids pid n=0
    while [ "$SECONDS" -lt "$end" ]; do
        n=$((n + 1))
        printf '%s' "$n" | dd of=random.raw bs=1 seek=$((RANDOM * 700)) conv=notrunc 2>/dev/null
        pids=()
        "$stellarium" import random.raw "random$((n % 3))" & pids+=($!)
        "$stellarium" import --base base changed.raw "other$((n % 2))" & pids+=($!)
        "$stellarium" gc & pids+=($!)
        "$stellarium" clone base "volume$n" & pids+=($!)
        "$stellarium" commit "volume$((n - 1))" committed & pids+=($!)
        "$stellarium" rm "random$(((n + 1) % 3))" & pids+=($!)
        sleep "0.0$((RANDOM % 10))$((RANDOM % 10))"
        for pid in "${pids[@]}"; do
            if kill -KILL "$pid"; then kills=$((kills + 1)); fi
        done
        wait
        rm -rf "volume$((n - 1))"
        if [ $((n % 10)) -eq 0 ]; then
            "$stellarium" verify || return 1
        fi
    done >/dev/null 2>errors
    echo "$kills kills in $n rounds"
    "$stellarium" verify
    "$stellarium" gc
    "$stellarium" verify
    "$stellarium" export base out.raw
    cmp base.raw out.raw
    "$stellarium" import --reread random.raw random
    "$stellarium" export random out.raw
    cmp random.raw out.raw
}

# What an interrupted import has stored is not written again.
interrupted_import()
{
    head -c 700M /dev/zero | tr '\0' x >large.raw
    # Every object of it another one: a number at the head of each region.
    for ((i = 0; i < 350; i++)); do
        printf '%s' "$i" | dd of=large.raw bs=1 seek=$((i * 2097152)) conv=notrunc 2>/dev/null
    done
    "$stellarium" import large.raw large >/dev/null 2>&1 &
    pid=$!
    until [ "$(find store/objects -size +2000k | wc -l)" -gt 200 ] || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
    kill -KILL $pid 2>/dev/null || true
    wait $pid || true
    stored=$("$stellarium" import --json large.raw large | json bytes_stored)
    echo "the second time, $stored bytes were stored"
    [ "$stored" -lt $((700 * 1048576)) ]
    "$stellarium" rm large
    rm large.raw
    "$stellarium" gc
}

"$stellarium" init >/dev/null
mke2fs -q -t ext4 -d "$top/src" base.raw 64M 2>/dev/null
tap_run "golden files are as they were" golden_files
tap_run "raw images" raw_images
tap_run "changed images" changed_images
tap_run "directories become the same file system each time" directories
tap_run "archives" archives
tap_run "OCI layouts and archives, with whiteouts" oci_images
tap_run "words and exit statuses" words_and_statuses
tap_run "a read-only store" read_only_store
tap_run "a full disk" full_disk
tap_run "an interrupted import goes on" interrupted_import
tap_run "killed at random moments" killed_at_random
tap_done
