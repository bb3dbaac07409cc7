#!/bin/bash
# minimal-root.sh [COMMAND...]: runs a command (make check) in a fresh clone inside a minimal Debian, as a new machine has it: with
# apt and a shell and little else. As root. This machine's apt configuration goes in, and its cache of fetched files does not.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- make check
[ "$(id -u)" -eq 0 ] || { echo "minimal-root.sh: run it as root" >&2 && exit 1; }
test/need mmdebstrap git util-linux

root=$(mktemp -d "${TMPDIR:-/var/tmp}/minimal-root.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT TERM
echo "making a minimal Debian in $root"
mmdebstrap --quiet --variant=minbase --include=ca-certificates,make bookworm "$root"
for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources /etc/apt/apt.conf /etc/resolv.conf /etc/hosts; do
    [ ! -e "$file" ] || cp -L "$file" "$root$file"
done
git clone --quiet --no-hardlinks . "$root/stardust"
# A PID namespace, so that nothing survives; a mount namespace, so that nothing stays mounted.
# shellcheck disable=SC2016 # expanded inside
unshare --mount --pid --fork --propagation private -- bash -c '
    root=$1 && shift
    mount --bind "$root" "$root" # a mount of its own, so that it can be the root of mount namespaces inside
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t sysfs sysfs "$root/sys"
    mount -t tmpfs tmpfs "$root/run"
    exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM:-dumb}" \
        sh -c "cd /stardust && exec \"\$@\"" sh "$@"' bash "$root" "$@"
