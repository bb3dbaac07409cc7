#!/bin/bash
# Ten VMs on clones of a whole Debian: under this machine's KVM if that runs an unmodified Linux, else in the lab.
set -euo pipefail
here=test/store
build=${BUILD:-build}

make -s all images guests
debian=$(test/debian-image)
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
cp "$build/volt-vmm" "$build/stellarium" "$build/guest/vmlinuz" "$build/guest/initrd.cpio" $here/inside-debian "$payload/"

if reason=$(test/lab/host-runs-linux "$build" "$build/guest/vmlinuz"); then
    tap=$PWD/test/tap.sh
    cp --sparse=always "$debian/rootfs.ext4" "$payload/debian.ext4"
    cp $here/debian-cases.sh "$payload/"
    (cd "$payload" && TAP=$tap DEBIAN=$payload/debian.ext4 sh ./debian-cases.sh)
else
    echo "# in the lab: $reason"
    # The store and its exports are in memory there, half of which is for files.
    test/lab/lab-tap -t 600 -m 10240 -d "$payload" -b "$debian/rootfs.ext4" -p 'e2fsck debugfs' $here/debian-cases.sh
fi
