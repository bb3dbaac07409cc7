#!/bin/bash
# The image scripts, without the network and without booting: what they make is sound, is the same each time, and what
# they cannot make they refuse with a reason and leave nothing behind.
set -euo pipefail
. test/tap.sh
PATH=$PATH:/usr/sbin:/sbin

image=guest/image
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
init=$work/volt-init # its content does not matter here
printf '#!/bin/sh\n' >"$init"
chmod +x "$init"

# refuses WORDS COMMAND...: it must fail, say WORDS, and leave no file in $work/out.
refuses()
{
    local words=$1 status=0
    shift
    rm -rf "$work/out"
    mkdir "$work/out"
    "$@" >"$work/said" 2>&1 || status=$?
    cat "$work/said"
    [ "$status" -ne 0 ] || { echo "it did not fail" && return 1; }
    grep -qF -- "$words" "$work/said" || { echo "it did not say: $words" && return 1; }
    [ -z "$(ls -A "$work/out")" ] || { echo "left behind: $(ls -A "$work/out")" && return 1; }
}

in_image()
{
    debugfs -R "$1" "$2" 2>/dev/null
}

default_image_is_sound()
{
    "$image/make-image.sh" --init "$init" "$work/a.ext4"
    e2fsck -fn "$work/a.ext4"
    [ "$(stat -c %s "$work/a.ext4")" -eq $((32 << 20)) ]
    in_image 'stat /sbin/init' "$work/a.ext4" | grep >/dev/null 'Mode:  0755'
    in_image 'stat /sbin/poweroff' "$work/a.ext4" | grep >/dev/null 'Fast link dest: "init"'
    in_image 'stat /bin/sh' "$work/a.ext4" | grep >/dev/null 'Fast link dest: "/bin/busybox"'
    in_image 'stat /tmp' "$work/a.ext4" | grep >/dev/null 'Mode:  01777'
    [ "$(in_image 'cat /etc/hostname' "$work/a.ext4")" = volt ]
}

same_input_same_bytes()
{
    "$image/make-image.sh" --init "$init" "$work/a.ext4"
    touch "$init"
    sleep 1.1
    (umask 077 && "$image/make-image.sh" --init "$init" "$work/b.ext4")
    cmp "$work/a.ext4" "$work/b.ext4"
    SOURCE_DATE_EPOCH=1700000000 "$image/make-image.sh" --init "$init" "$work/b.ext4"
    in_image 'stat /sbin/init' "$work/b.ext4" | grep >/dev/null 'mtime: 0x6553f100'
}

files_of_anybody_become_roots()
{
    mkdir -p "$work/tree/folder"
    echo text >"$work/tree/folder/a file"
    chown -R 1234:1234 "$work/tree" 2>/dev/null || true # anybody else owns them already
    "$image/make-ext4.sh" --owner-root "$work/tree" "$work/o.ext4"
    e2fsck -fn "$work/o.ext4"
    in_image 'stat "/folder/a file"' "$work/o.ext4" | grep >/dev/null 'User:     0   Group:     0'
    in_image 'stat /' "$work/o.ext4" | grep >/dev/null 'User:     0   Group:     0'
}

takes_a_workload_and_files()
{
    printf '#!/bin/sh\nexit 3\n' >"$work/run"
    "$image/make-image.sh" --init "$init" --hostname guest-7 --size 48M --run "$work/run" --add "$work/run:/opt/x/y" \
        "$work/a.ext4"
    e2fsck -fn "$work/a.ext4"
    [ "$(stat -c %s "$work/a.ext4")" -eq $((48 << 20)) ]
    in_image 'cat /etc/volt/run' "$work/a.ext4" | cmp - "$work/run"
    in_image 'stat /etc/volt/run' "$work/a.ext4" | grep >/dev/null 'Mode:  0755'
    in_image 'cat /opt/x/y' "$work/a.ext4" | cmp - "$work/run"
    [ "$(in_image 'cat /etc/hostname' "$work/a.ext4")" = guest-7 ]
}

# An applet is a link to /bin/busybox: what replaces it must not be written through the link, to this machine's own.
replaces_a_link()
{
    mkdir -p "$work/ls/folder"
    echo replaced >"$work/ls/ls"
    echo nested >"$work/ls/folder/x"
    "$image/make-image.sh" --init "$init" --busybox "$(command -v busybox)" --add "$work/ls:/bin" "$work/a.ext4"
    [ "$(in_image 'cat /bin/ls' "$work/a.ext4")" = replaced ]
    [ "$(in_image 'cat /bin/folder/x' "$work/a.ext4")" = nested ]
    in_image 'stat /bin/cat' "$work/a.ext4" | grep >/dev/null 'Fast link dest'
    [ "$(head -c 4 /bin/busybox | tail -c 3)" = ELF ]
}

names_cannot_speak_to_debugfs()
{
    mkdir -p "$work/odd"
    local name
    for name in 'a"b' $'a\nquit'; do
        : >"$work/odd/$name"
        refuses 'in a name' "$image/make-ext4.sh" --owner-root "$work/odd" "$work/out/a.ext4"
        rm "$work/odd/$name"
    done
    : >"$work/odd/a \$(b) 'c' \\ d"
    "$image/make-ext4.sh" --owner-root "$work/odd" "$work/o.ext4"
    e2fsck -fn "$work/o.ext4"
}

grows_with_its_content()
{
    head -c 60M /dev/zero | tr '\0' 'x' >"$work/large"
    "$image/make-image.sh" --init "$init" --add "$work/large:/large" "$work/a.ext4"
    e2fsck -fn "$work/a.ext4"
    in_image 'stat /large' "$work/a.ext4" | grep >/dev/null "Size: $((60 << 20))"
}

bad_images_are_refused()
{
    local make=$image/make-image.sh out=$work/out/a.ext4
    refuses 'usage:' "$make"
    refuses 'no such option' "$make" --bogus "$out"
    refuses 'no such file' "$make" --init "$work/none" "$out"
    refuses 'no such file' "$make" "$out"
    refuses 'one image at a time' "$make" --init "$init" "$out" "$out"
    refuses 'a value is missing' "$make" --init
    refuses 'not a size' "$make" --init "$init" --size 12Q "$out"
    refuses 'not a size' "$make" --init "$init" --size '1;M' "$out"
    refuses 'not a size' "$make" --init "$init" --size -1 "$out"
    refuses 'does not fit' "$make" --init "$init" --size 1M "$out"
    refuses 'only letters' "$make" --init "$init" --hostname 'a;b' "$out"
    refuses 'not FILE:/PATH' "$make" --init "$init" --add "$init" "$out"
    refuses 'leads out' "$make" --init "$init" --add "$init:/a/../../x" "$out"
    refuses 'leads out' "$make" --init "$init" --add "$init:/a/.." "$out"
    refuses 'a colon' "$make" --init "$init" --add "$init:/a:/b" "$out"
    refuses 'cannot be copied' "$make" --init "$init" --add "$work/none:/x" "$out"
    refuses 'no such folder' "$make" --init "$init" --modules "$work/none" 6.1 "$out"
    refuses 'no such program' "$make" --init "$init" --busybox "$work/none" "$out"
    refuses 'not static' "$make" --init "$init" --busybox "$(command -v bash)" "$out"
    refuses 'cannot be written' "$make" --init "$init" "$work/none/a.ext4"
    refuses 'not a number' env SOURCE_DATE_EPOCH=yesterday "$make" --init "$init" "$out"
}

# A tree of modules as depmod leaves it: one with two dependencies, one compressed, one that nobody wants.
fake_modules()
{
    mkdir -p "$work/modules/6.1.0-x/kernel"
    local module
    for module in virtio.ko virtio_ring.ko virtio_mmio.ko virtio-rng.ko.xz unwanted.ko; do
        echo "$module" >"$work/modules/6.1.0-x/kernel/$module"
    done
    cat >"$work/modules/6.1.0-x/modules.dep" <<'D'
kernel/virtio.ko:
kernel/virtio_ring.ko: kernel/virtio.ko
kernel/virtio_mmio.ko: kernel/virtio_ring.ko kernel/virtio.ko
kernel/virtio-rng.ko.xz: kernel/virtio_ring.ko kernel/virtio.ko
kernel/unwanted.ko: kernel/virtio.ko
D
}

initramfs_has_what_is_wanted()
{
    fake_modules
    "$image/make-initrd.sh" --init "$init" "$work/modules" 6.1.0-x "$work/a.cpio"
    sleep 1.1
    "$image/make-initrd.sh" --init "$init" "$work/modules" 6.1.0-x "$work/b.cpio"
    cmp "$work/a.cpio" "$work/b.cpio"
    mkdir "$work/unpacked"
    (cd "$work/unpacked" && cpio -id --quiet <"$work/a.cpio")
    [ -x "$work/unpacked/init" ]
    printf 'virtio_mmio\nvirtio_rng\n' | cmp - "$work/unpacked/etc/volt/modules"
    [ "$(ls "$work/unpacked/lib/modules/6.1.0-x/kernel")" = "$(printf 'virtio-rng.ko.xz\nvirtio.ko\nvirtio_mmio.ko\nvirtio_ring.ko')" ]
    grep -v unwanted "$work/modules/6.1.0-x/modules.dep" | sort | cmp - "$work/unpacked/lib/modules/6.1.0-x/modules.dep"
}

bad_initramfs_are_refused()
{
    local make=$image/make-initrd.sh out=$work/out/a.cpio
    fake_modules
    refuses 'usage:' "$make"
    refuses 'usage:' "$make" --bogus "$init" "$work/modules" 6.1.0-x "$out"
    refuses 'no such file' "$make" --init "$work/none" "$work/modules" 6.1.0-x "$out"
    refuses 'no such file' "$make" --init "$init" "$work/modules" 5.0 "$out"
    refuses 'cannot be written' "$make" --init "$init" "$work/modules" 6.1.0-x "$work/none/a.cpio"
    refuses 'not the version' "$make" --init "$init" "$work/modules" ../modules/6.1.0-x "$out"
    echo '../../x/virtio_blk.ko:' >"$work/modules/6.1.0-x/modules.dep"
    refuses 'leads out' "$make" --init "$init" "$work/modules" 6.1.0-x "$out"
    : >"$work/modules/6.1.0-x/modules.dep"
    refuses 'none of the modules' "$make" --init "$init" "$work/modules" 6.1.0-x "$out"
}

fetchers_refuse_bad_arguments()
{
    refuses 'usage:' "$image/get-debian-kernel.sh"
    refuses 'neither cloud nor generic' "$image/get-debian-kernel.sh" "$work/out/kernel" tiny
    refuses 'usage:' "$image/make-debian.sh"
}

init_is_no_command()
{
    local program=${BUILD:-build}/guest/volt-init
    [ -x "$program" ] || { echo "$program: not built" && exit 77; }
    refuses 'only runs as PID 1' "$program"
    ln -s "$(realpath "$program")" "$work/poweroff"
    refuses 'takes no arguments' "$work/poweroff" now
}

tap_run "the default image is sound" default_image_is_sound
tap_run "the same input makes the same bytes" same_input_same_bytes
tap_run "files of anybody become root's" files_of_anybody_become_roots
tap_run "an image takes a workload and files" takes_a_workload_and_files
tap_run "a file replaces a link" replaces_a_link
tap_run "names of files are no commands" names_cannot_speak_to_debugfs
tap_run "an image grows with its content" grows_with_its_content
tap_run "bad images are refused" bad_images_are_refused
tap_run "an initramfs has what is wanted" initramfs_has_what_is_wanted
tap_run "bad initramfs are refused" bad_initramfs_are_refused
tap_run "fetchers refuse bad arguments" fetchers_refuse_bad_arguments
tap_run "volt-init is no command" init_is_no_command
tap_done
