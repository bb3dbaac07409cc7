#!/bin/sh
# Fetches Debian's current kernel with apt and leaves in DIR: vmlinuz, modules/KVER (with modules.dep), config, and
# kver, a file with the version. Nothing is installed, and nothing needs root.
set -eu
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

usage="usage: get-debian-kernel.sh DIR [cloud|generic]"
die() {
    echo "get-debian-kernel.sh: $*" >&2
    exit 1
}
[ $# -ge 1 ] && [ $# -le 2 ] || die "wrong arguments
$usage"
out=$1
case ${2:-cloud} in
cloud) meta=linux-image-cloud-amd64 ;;
generic) meta=linux-image-amd64 ;;
*) die "$2: neither cloud nor generic
$usage" ;;
esac
for program in apt-get apt-cache dpkg-deb depmod; do
    command -v "$program" >/dev/null || die "$program: no such program (Debian has it; depmod is in the package kmod)"
done

# The package is behind a metapackage, whose dependency names the current version.
download() {
    package=$(apt-cache depends "$meta" 2>"$work/log" | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
    [ -n "$package" ] && (cd "$work" && apt-get -q download "$package" >log 2>&1)
}

mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$out.XXXXXX") || die "$out: cannot be written there"
trap 'rm -rf "$work"' EXIT INT TERM
chmod 0755 "$work" # apt's own user reads and writes there when root asks
if ! download; then
    [ "$(id -u)" -eq 0 ] || die "$meta: $(cat "$work/log") (does apt-get update help?)"
    echo "get-debian-kernel.sh: renewing apt's lists, which are missing or older than the archive" >&2
    apt-get -qq update >&2
    download || die "$meta: $(cat "$work/log")"
fi
dpkg-deb -x "$work"/linux-image-*.deb "$work/x"
kver=$(ls "$work/x/lib/modules")
depmod -b "$work/x" "$kver"

rm -rf "$work/new"
mkdir "$work/new"
mv "$work/x/boot/vmlinuz-$kver" "$work/new/vmlinuz"
mv "$work/x/boot/config-$kver" "$work/new/config"
mv "$work/x/lib/modules" "$work/new/modules"
echo "$kver" >"$work/new/kver"
rm -rf "$out"
mv -T "$work/new" "$out" || [ -f "$out/kver" ] # somebody else was faster
