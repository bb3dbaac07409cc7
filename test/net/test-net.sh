#!/bin/bash
# Network cards with Linux guests, bridges and namespaces: in the lab, whose network is its own.
set -euo pipefail
build=${BUILD:-build}
test/need iperf3 iproute2 passt socat
make -s all images
payload=$(mktemp -d)
trap 'rm -rf "$payload"' EXIT
cp "$build/volt-vmm" "$build/guest/vmlinuz" "$build/guest/initrd.cpio" test/net/cases.sh "$payload/"
if ours=$("$build/volt-kernel" path volt 2>/dev/null); then
    cp "$ours" "$payload/vmlinux"
fi

adds=(--add "test/net/inside:/usr/bin/inside-net" --add "test/net/dhcp-script:/usr/bin/dhcp-script")
tools=()
for tool in iperf3 socat; do
    tools+=("$(command -v "$tool")")
    adds+=(--add "${tools[-1]}:/usr/bin/$tool")
done
while read -r library; do
    adds+=(--add "$library:$library")
done < <(ldd "${tools[@]}" | grep -o ' */[^ :]* (' | tr -d ' (' | sort -u)
kernel=${VOLT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/volt}/debian-cloud
for module in failover net_failover virtio_net; do
    file=$(find "$kernel/modules" -name "$module.ko*" | head -n 1)
    [ -z "$file" ] || adds+=(--add "$file:/lib/modules/net/${file##*/}")
done
guest/image/make-image.sh --init "$build/guest/volt-init" "${adds[@]}" --size 96M "$payload/rootfs.ext4"
test/lab/lab-tap -t 900 -c 1 -d "$payload" -p "ip iperf3 passt socat" "$payload/cases.sh" ${TAP_ONLY:+"only=$TAP_ONLY"}
