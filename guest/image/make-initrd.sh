#!/bin/sh
# Makes the initramfs of a stock kernel: volt-init as /init, and the modules without which it finds no root and no
# power button. The same input gives the same bytes.
set -eu
export LC_ALL=C

usage="usage: make-initrd.sh --init VOLT-INIT MODULES-DIR KVER OUT.cpio
  MODULES-DIR has a folder KVER with a modules.dep, as /lib/modules has"
die() {
    echo "make-initrd.sh: $*" >&2
    exit 1
}
[ $# -eq 5 ] && [ "$1" = --init ] || die "wrong arguments
$usage"
init=$2 modules=$3/$4 kver=$4 out=$5
case $kver in '' | */* | .*) die "$kver: not the version of a kernel" ;; esac
[ -f "$init" ] || die "$init: no such file (build it with: make)"
[ -f "$modules/modules.dep" ] || die "$modules/modules.dep: no such file (depmod makes it)"
command -v cpio >/dev/null || die "cpio: no such program (apt-get install cpio)"

# The root's disk first. ext4, and the checksum that it asks for at run time, is for kernels that have it as a module;
# those that a kernel lacks or has built in are left out.
wanted="virtio_mmio virtio_blk crc32c_generic ext4 virtio_rng virtio_net virtio_balloon vmw_vsock_virtio_transport button evdev"

work=$(mktemp -d)
new=$(mktemp "$out.XXXXXX") || die "$out: cannot be written there"
trap 'rm -rf "$work" "$new"' EXIT INT TERM
chmod 0644 "$new"
umask 022
root=$work/root
mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/tmp" "$root/etc/volt" "$root/lib/modules/$kver"
install -m 0755 "$init" "$root/init"

for name in $wanted; do
    pattern=$(echo "$name" | sed 's/_/[-_]/g')
    line=$(grep -E "^([^:]*/)?$pattern\.ko(\.[a-z0-9]+)?:" "$modules/modules.dep" || true)
    [ -n "$line" ] || continue
    echo "$name" >>"$root/etc/volt/modules"
    echo "$line" | tr -d : | tr ' ' '\n' >>"$work/files"
done
[ -s "$work/files" ] || die "$modules: none of the modules wanted ($wanted)"
sort -u "$work/files" | while read -r file; do
    case /$file in //* | */../*) die "$modules/modules.dep: $file leads out of the folder" ;; esac
    mkdir -p "$root/lib/modules/$kver/$(dirname "$file")"
    cp "$modules/$file" "$root/lib/modules/$kver/$file" || exit 1
    grep -F "$file:" "$modules/modules.dep" | grep "^$file:" >>"$root/lib/modules/$kver/modules.dep"
done

find "$root" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
(cd "$root" && find . | sort | cpio -o -H newc --reproducible -R 0:0 --quiet) >"$new"
mv "$new" "$out"
