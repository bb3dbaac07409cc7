#!/bin/bash
# Whole machines with Linux guests: under this machine's KVM if that runs an unmodified Linux, else in the lab.
set -euo pipefail
here=test/machine
build=${BUILD:-build}

make -s all images guests machine-tests
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
cp "$build/volt-vmm" "$build/voltctl" "$build/stellarium" "$build/guest/vmlinuz" "$build/guest/initrd.cpio" \
    "$build/test/guest/hostile" "$build/test/machine/peer" $here/cases.sh "$payload/"
guest/image/make-image.sh --init "$build/guest/volt-init" --add $here/inside:/usr/bin/inside \
    --add "$build/test/machine/peer:/usr/bin/peer" --size 48M "$payload/rootfs.ext4"
groups=(${TAP_ONLY:+"only=$TAP_ONLY"} boot tiny main)
if ours=$("$build/volt-kernel" path volt 2>/dev/null); then
    cp "$ours" "$payload/vmlinux"
fi
groups+=(ours)

if reason=$(test/lab/host-runs-linux "$build" "$build/guest/vmlinuz"); then
    tap=$PWD/test/tap.sh
    (cd "$payload" && TAP=$tap sh ./cases.sh "${groups[@]}")
else
    echo "# in the lab: $reason"
    test/lab/lab-tap -t 1100 -m 6144 -d "$payload" -p "e2fsck script" "$payload/cases.sh" "${groups[@]}"
fi
