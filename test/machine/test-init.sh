#!/bin/bash
# volt-init as PID 1 of real machines: what it prepares, reaps, forwards and says, and that every way to the end ends in
# time with clean disks.
set -euo pipefail
here=test/machine
build=${BUILD:-build}

make -s all images guests
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
cp "$build/volt-vmm" "$build/guest/vmlinuz" "$build/guest/initrd.cpio" $here/init-cases.sh "$payload/"
guest/image/make-image.sh --init "$build/guest/volt-init" --run $here/init-run "$payload/rootfs.ext4"
mkdir "$payload/empty"
guest/image/make-ext4.sh --size 16M "$payload/empty" "$payload/second.ext4"

if reason=$(test/lab/host-runs-linux "$build" "$build/guest/vmlinuz"); then
    tap=$PWD/test/tap.sh
    (cd "$payload" && TAP=$tap sh ./init-cases.sh)
else
    echo "# in the lab: $reason"
    test/lab/lab-tap -t 600 -d "$payload" -p e2fsck "$payload/init-cases.sh"
fi
