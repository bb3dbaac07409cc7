#!/bin/bash
# VMs on disks of the store: under this machine's KVM if that runs an unmodified Linux, else in the lab.
set -euo pipefail
here=test/store
build=${BUILD:-build}

make -s all images
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
cp "$build/volt-vmm" "$build/stellarium" "$build/guest/vmlinuz" "$build/guest/initrd.cpio" $here/cases.sh "$payload/"
guest/image/make-image.sh --init "$build/guest/volt-init" --add $here/inside:/usr/bin/inside-store --size 64M "$payload/rootfs.ext4"

if reason=$(test/lab/host-runs-linux "$build" "$build/guest/vmlinuz"); then
    tap=$PWD/test/tap.sh
    (cd "$payload" && TAP=$tap sh ./cases.sh)
else
    echo "# in the lab: $reason"
    test/lab/lab -t 800 -m 3072 -d "$payload" -p e2fsck "$payload/cases.sh"
fi
