#!/bin/bash
# The few machines that must boot on Intel's VMX, in the lab under Bochs: with EPT, with shadow paging, and without
# unrestricted guest, as old CPUs have it.
set -euo pipefail
build=${BUILD:-build}

make -s all images guests
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
cp "$build/volt-vmm" "$build/voltctl" "$build/guest/vmlinuz" "$build/guest/initrd.cpio" \
    "$build/test/guest/hostile" test/machine/cases.sh "$payload/"
guest/image/make-image.sh --init "$build/guest/volt-init" --add test/machine/inside:/usr/bin/inside --size 48M "$payload/rootfs.ext4"

# intel NAME PARAMETERS GROUPS: one start of the lab, numbered on its own; the lines go to a file, since two run side by side.
intel()
{
    # shellcheck disable=SC2086 # words
    test/lab/lab -I -t 800 -m 2048 -k "$2" -d "$payload" -p e2fsck "$payload/cases.sh" $3 >"$payload/$1.tap" 2>&1 || true
    if ! grep -q '^1\.\.' "$payload/$1.tap"; then
        { echo "not ok 0 - the lab's end" && sed 's/^/# /' "$payload/$1.tap"; } >"$payload/$1.broken"
        mv "$payload/$1.broken" "$payload/$1.tap"
    fi
    sed "/^1\.\./d; s/^\(\(not \)\?ok\) [0-9]* - /\1 - $1: /" "$payload/$1.tap"
}
intel "EPT" "" "boot tiny" &
intel "shadow paging" "ept=0" slow &
wait -n
intel "no unrestricted guest" "unrestricted_guest=0" slow &
wait
echo "1..$(cat "$payload"/*.tap | grep -c '^\(not \)\?ok')"
! grep -q '^not ok' "$payload"/*.tap
