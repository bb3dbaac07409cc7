#!/bin/sh
# Makes an ext4 image of a folder, without being root and without mounting anything. The same folder gives the same
# bytes: identifiers are fixed, and so are the times.
set -eu
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

usage="usage: make-ext4.sh [--size SIZE] [--owner-root] FOLDER OUT.ext4
  --owner-root   every file belongs to root and shows SOURCE_DATE_EPOCH (0 without one) as its time"
die() {
    echo "make-ext4.sh: $*" >&2
    exit 1
}

size='' owner_root=''
while [ $# -gt 2 ]; do
    case $1 in
    --size) size=$2; shift 2 ;;
    --owner-root) owner_root=yes; shift ;;
    *) die "$1: no such option
$usage" ;;
    esac
done
[ $# -eq 2 ] || die "a folder and an image are needed
$usage"
folder=$1 out=$2
[ -d "$folder" ] || die "$folder: no such folder"
case $folder$out in *'
'*) die "a line feed in a name" ;; esac
command -v mke2fs >/dev/null || die "mke2fs: no such program (apt-get install e2fsprogs)"
epoch=${SOURCE_DATE_EPOCH:-0}
case $epoch in '' | *[!0-9]*) die "SOURCE_DATE_EPOCH=$epoch: not a number of seconds" ;; esac

if [ -z "$size" ]; then
    # A third on top for the file system's own and for something to write; an inode for each 16 KiB is mke2fs's habit.
    used=$(du -sxk --apparent-size "$folder" | cut -f1)
    files=$(find "$folder" | wc -l)
    need=$((used + files * 4))
    size=$(((need + need / 3) / 1024 + 16))
    [ "$size" -ge 32 ] || size=32
    size=${size}M
fi

# Beside the result, so that the rename that publishes it cannot be a copy.
new=$(mktemp "$out.XXXXXX") || die "$out: cannot be written there"
script=$(mktemp)
trap 'rm -f "$new" "$script"' EXIT INT TERM
chmod 0644 "$new"

id=766f6c74-7374-4172-8475-737400000001 # any will do, as long as it stays
E2FSPROGS_FAKE_TIME=$epoch
[ "$epoch" -ne 0 ] || E2FSPROGS_FAKE_TIME=1 # 0 is not taken for a time
export E2FSPROGS_FAKE_TIME
mke2fs -q -F -t ext4 -b 4096 -m 1 -L volt-root -U "$id" -E "hash_seed=$id,lazy_itable_init=0,lazy_journal_init=0,nodiscard" \
    -d "$folder" "$new" "$size" >"$script" 2>&1 ||
    die "$(cat "$script")
$folder: does not fit into $size, or cannot be read (--size makes room)"

# mke2fs copies owner and change time of each file: whoever built it, whenever.
if [ -n "$owner_root" ]; then
    # Names go into a script for debugfs, which can write files of this machine: none may end its quotes or its line.
    odd=$(find "$folder" -name '*"*' -o -name '*
*')
    [ -z "$odd" ] || die "$odd: a quote or a line feed in a name"
    (cd "$folder" && find . -printf '%P\n') | while IFS= read -r path; do
        for field in uid gid; do printf 'sif "/%s" %s 0\n' "$path" "$field"; done
        for field in atime ctime mtime crtime; do printf 'sif "/%s" %s @%s\n' "$path" "$field" "$epoch"; done
        for field in atime_extra ctime_extra mtime_extra crtime_extra; do printf 'sif "/%s" %s 0\n' "$path" "$field"; done
    done >"$script"
    debugfs -w -f "$script" "$new" >/dev/null 2>"$script.err" || die "$(cat "$script.err")"
    if grep -v '^debugfs ' "$script.err" >&2; then
        rm -f "$script.err"
        die "$out: debugfs failed"
    fi
    rm -f "$script.err"
fi
mv "$new" "$out"
