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

# Disks with partitions, for 512-byte sectors as disk images are: one with a GPT that has the root and a file system of 1 KiB
# blocks, one with an MBR.
mke2fs -q -t ext4 -b 1024 "$payload/small" 8M
truncate -s 76M "$payload/gpt.raw"
truncate -s 9M "$payload/mbr.raw"
printf 'label: gpt\nstart=2048, size=131072, type=linux\nstart=133120, size=16384, type=linux\n' | sfdisk -q "$payload/gpt.raw"
printf 'label: dos\nstart=63, size=16384, type=83\n' | sfdisk -q "$payload/mbr.raw"
dd if="$payload/rootfs.ext4" of="$payload/gpt.raw" bs=512 seek=2048 conv=notrunc,sparse status=none
dd if="$payload/small" of="$payload/gpt.raw" bs=512 seek=133120 conv=notrunc status=none
dd if="$payload/small" of="$payload/mbr.raw" bs=512 seek=63 conv=notrunc status=none
rm "$payload/small"

if reason=$(test/lab/host-runs-linux "$build" "$build/guest/vmlinuz"); then
    tap=$PWD/test/tap.sh
    (cd "$payload" && TAP=$tap sh ./cases.sh)
else
    echo "# in the lab: $reason"
    test/lab/lab -t 800 -m 3072 -d "$payload" -p e2fsck "$payload/cases.sh"
fi
