# shellcheck shell=bash
# shellcheck disable=SC2154 # work, here and the options are lab's
# Sourced by lab: its kernel and its root file system.
lab_cache=${VOLT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/volt}/debian-cloud

# Modules that the lab loads, or that SCRIPTs may.
lab_modules=(ext4 kvm-amd kvm-intel virtio_pci virtio_blk virtio_net tun tap macvtap bridge veth vhost_net vhost_vsock
    loop nbd fuse overlay)

# Debian's cloud kernel, which guests boot as well: vmlinuz, modules/ and kver.
lab_kernel()
{
    [ -e "$lab_cache/kver" ] || "$here/../../guest/image/get-debian-kernel.sh" "$lab_cache" cloud
}

# copy_program ROOT PROGRAM: with the shared libraries it is linked with.
copy_program()
{
    local root=$1 path file
    path=$(command -v "$2") || {
        echo "lab: $2: not on this machine" >&2
        return 1
    }
    { echo "$path" && { ldd "$path" 2>/dev/null | grep -o '/[^ ]*' || true; }; } | while read -r file; do
        mkdir -p "$root/$(dirname "$file")"
        cp -nL "$file" "$root/$file"
    done
    # Firmware is not a library, but QEMU (a peer in the benchmarks) does not start without.
    case $2 in
    qemu-system*)
        mkdir -p "$root/usr/share/qemu"
        cp -L /usr/share/qemu/{bios-microvm.bin,qboot.rom,pvh.bin,linuxboot_dma.bin,kvmvapic.bin} \
            /usr/share/seabios/bios-256k.bin "$root/usr/share/qemu/"
        ;;
    esac
}

# lab_initramfs FILE SCRIPT ARGUMENT...: uses the options' payloads, programs and kvm_params, and $work.
lab_initramfs()
{
    local output=$1 script=$2 root=$work/root version module file
    shift 2
    version=$(cat "$lab_cache/kver")
    mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,run,etc,payload,root,usr/bin,usr/share,"lib/modules/$version"}
    cp /bin/busybox "$root/bin/"
    ln -s busybox "$root/bin/sh"
    ln -s ../bin/busybox "$root/sbin/modprobe"
    mkdir -p "$work/kernel/lib" # as modprobe wants it
    ln -s "$lab_cache/modules" "$work/kernel/lib/modules"
    for module in "${lab_modules[@]}"; do
        modprobe -d "$work/kernel" -S "$version" --show-depends "$module" 2>/dev/null |
            sed -n "s|^insmod $work/kernel/||p" || true
    done | sort -u | while read -r file; do
        mkdir -p "$root/$(dirname "$file")"
        cp "$work/kernel/$file" "$root/$file"
    done
    cp "$lab_cache/modules/$version"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$version/"
    depmod -b "$root" "$version"

    for file in "${programs[@]}"; do
        copy_program "$root" "$file"
    done
    for file in "${payloads[@]}"; do
        cp -a "$file/." "$root/payload/"
    done
    cp "$script" "$root/script"
    cp "$here/../tap.sh" "$root/tap.sh"
    cp "$here/init" "$root/init"
    chmod 755 "$root/script" "$root/init"
    # The arguments and options, quoted for the lab's shell (it is no bash: plain single quotes only).
    {
        printf 'set --'
        for file; do
            printf " '%s'" "${file//\'/\'\\\'\'}"
        done
        printf "\nkvm_params='%s'\n" "${kvm_params//\'/\'\\\'\'}"
        local after=${TAP_AFTER-}
        printf "export TAP_AFTER='%s'\n" "${after//\'/\'\\\'\'}"
        printf "heartbeat='%s'\n" "$heartbeat"
        [ -z "$interactive" ] || stty size | sed 's/\(.*\) \(.*\)/rows=\1 columns=\2/'
    } >"$root/etc/lab.conf"
    (cd "$root" && find . | cpio -o -H newc --quiet) >"$output"
    rm -rf "$root"
}
