#!/bin/bash
# A whole Debian with systemd, up to its login prompt: by its generic kernel with its own initrd, and by the cloud kernel.
set -euo pipefail
build=${BUILD:-build}
cache=${VOLT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/volt}/debian

test/need mmdebstrap
make -s all images guests
[ -e "$cache/kver" ] || guest/image/make-debian.sh "$cache"
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
cp "$build/volt-vmm" "$build/guest/vmlinuz" "$build/guest/initrd.cpio" test/machine/cases.sh "$payload/"
cp "$cache/vmlinuz" "$payload/vmlinuz-generic"
cp "$cache/initrd.img" "$payload/"
groups=(${TAP_ONLY:+"only=$TAP_ONLY"} debian)

if reason=$(test/lab/host-runs-linux "$build" "$build/guest/vmlinuz"); then
    tap=$PWD/test/tap.sh
    cp --sparse=always "$cache/rootfs.ext4" "$payload/debian.ext4"
    (cd "$payload" && TAP=$tap DEBIAN=$payload/debian.ext4 sh ./cases.sh "${groups[@]}")
else
    echo "# in the lab: $reason"
    test/lab/lab-tap -t 900 -m 4096 -d "$payload" -b "$cache/rootfs.ext4" -p e2fsck "$payload/cases.sh" "${groups[@]}"
fi
