#!/bin/bash
# A whole Debian with systemd, up to its login prompt: by its generic kernel with its own initrd, and by the cloud kernel.
set -euo pipefail
build=${BUILD:-build}

make -s all images guests
debian=$(test/debian-image)
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
cp "$build/volt-vmm" "$build/guest/vmlinuz" "$build/guest/initrd.cpio" test/machine/cases.sh "$payload/"
cp "$debian/vmlinuz" "$payload/vmlinuz-generic"
cp "$debian/initrd.img" "$payload/"
groups=(${TAP_ONLY:+"only=$TAP_ONLY"} debian)

if reason=$(test/lab/host-runs-linux "$build" "$build/guest/vmlinuz"); then
    tap=$PWD/test/tap.sh
    cp --sparse=always "$debian/rootfs.ext4" "$payload/debian.ext4"
    (cd "$payload" && TAP=$tap DEBIAN=$payload/debian.ext4 sh ./cases.sh "${groups[@]}")
else
    echo "# in the lab: $reason"
    test/lab/lab-tap -t 900 -m 4096 -d "$payload" -b "$debian/rootfs.ext4" -p e2fsck "$payload/cases.sh" "${groups[@]}"
fi
