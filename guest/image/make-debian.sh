#!/bin/sh
# Makes a whole Debian, with systemd and Debian's own kernel and initrd, that comes up to a login prompt on the serial
# console. Leaves in DIR: rootfs.ext4, vmlinuz, initrd.img and kver. Takes minutes and the network; root may log in
# without a password. As root, or as anybody where user namespaces are allowed.
set -eu
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)

die() {
    echo "make-debian.sh: $*" >&2
    exit 1
}

# Called back by mmdebstrap with the finished root, still with /proc and others mounted on it: what the archive left
# behind goes, kernel and initrd come out, and the image is made of a view without those mounts.
if [ "${1:-}" = --finish ]; then
    out=$2 root=$3
    echo volt-debian >"$root/etc/hostname"
    echo '/dev/vda / ext4 errors=remount-ro 0 1' >"$root/etc/fstab"
    chroot "$root" passwd -q -d root
    find "$root/var/lib/apt/lists" "$root/var/cache/apt" -type f -delete
    cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
    cp "$root"/boot/initrd.img-* "$out/initrd.img"
    ls "$root/lib/modules" >"$out/kver"
    mkdir "$out/view"
    mount --bind "$root" "$out/view"
    status=0
    "$here/make-ext4.sh" "$out/view" "$out/rootfs.ext4" || status=$?
    umount "$out/view"
    exit "$status"
fi

[ $# -eq 1 ] || die "wrong arguments
usage: make-debian.sh DIR"
out=$1
case $here$out in *"'"* | *'
'*) die "a quote or a line feed in a name" ;; esac
command -v mmdebstrap >/dev/null || die "mmdebstrap: no such program (apt-get install mmdebstrap)"

mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(cd "$(dirname "$out")" && pwd)/debian.XXXXXX") || die "$out: cannot be written there"
trap 'rm -rf "$work"' EXIT INT TERM
chmod 0755 "$work"
mkdir -m 0777 "$work/new" # in a user namespace the hook is somebody else

# initramfs-tools puts the virtio drivers into its initrd by itself (MODULES=most). systemd starts a login on the
# console that the kernel's command line names.
mmdebstrap --quiet --variant=minbase --format=null \
    --include=systemd-sysv,udev,dbus,linux-image-amd64,initramfs-tools,zstd,e2fsprogs,kmod,iproute2,procps \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="'$here/make-debian.sh' --finish '$work/new' \"\$1\"" \
    bookworm /dev/null >"$work/log" 2>&1 || die "mmdebstrap failed: $(tail -n 20 "$work/log")"

mkdir "$work/done"
for file in rootfs.ext4 vmlinuz initrd.img kver; do
    cp --sparse=always "$work/new/$file" "$work/done/$file" # and so belongs to the caller
done
rm -rf "$out"
mv -T "$work/done" "$out" || [ -f "$out/kver" ] # somebody else was faster
