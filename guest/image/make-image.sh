#!/bin/sh
# Makes a root file system image (ext4) without being root and without mounting anything. The same input gives the
# same bytes.
set -eu
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<'U'
usage: make-image.sh --init VOLT-INIT [OPTION]... OUT.ext4
  --init FILE         the volt-init that becomes /sbin/init
  --size SIZE         of the image, with K, M or G (default: what it needs, at least 32M)
  --run FILE          becomes /etc/volt/run, the main command
  --add FILE:PATH     puts a file, or a folder with all that is in it, at PATH (repeat)
  --modules DIR KVER  puts the modules of this kernel under /lib/modules (DIR has a folder KVER)
  --hostname NAME     (default: volt)
  --busybox FILE      a static busybox (default: the one of the package busybox-static)
  --tree DIR          only makes the tree, in DIR, and no image of it
The clock that the files show is SOURCE_DATE_EPOCH, 0 without one.
U
}
die() {
    echo "make-image.sh: $*" >&2
    exit 1
}
need_value() {
    [ "$1" -ge 2 ] || die "$2: a value is missing (see --help)"
}

init='' size='' run='' adds='' modules='' kver='' hostname=volt busybox=$(command -v busybox || true) tree='' out=''
while [ $# -gt 0 ]; do
    case $1 in
    --help) usage; exit 0 ;;
    --init) need_value $# "$1"; init=$2; shift 2 ;;
    --size) need_value $# "$1"; size=$2; shift 2 ;;
    --run) need_value $# "$1"; run=$2; shift 2 ;;
    --add)
        need_value $# "$1"
        case $2 in
        *:*:* | *'
'*) die "--add $2: a colon or a line feed in a name" ;;
        *:*/../* | *:*/..) die "--add $2: leads out of the image" ;;
        ?*:/?*) ;;
        *) die "--add $2: not FILE:/PATH" ;;
        esac
        adds="$adds$2
"; shift 2 ;;
    --modules) [ $# -ge 3 ] || die "--modules: DIR and KVER are missing"; modules=$2 kver=$3; shift 3 ;;
    --hostname) need_value $# "$1"; hostname=$2; shift 2 ;;
    --busybox) need_value $# "$1"; busybox=$2; shift 2 ;;
    --tree) need_value $# "$1"; tree=$2; shift 2 ;;
    -*) die "$1: no such option (see --help)" ;;
    *) [ -z "$out" ] || die "$1: one image at a time"; out=$1; shift ;;
    esac
done

case $out$tree in '') usage >&2; exit 1 ;; esac
[ -f "$init" ] || die "${init:---init}: no such file (build it with: make)"
[ -z "$run" ] || [ -f "$run" ] || die "$run: no such file"
case $hostname in '' | -* | *[!A-Za-z0-9.-]*) die "--hostname $hostname: only letters, digits, dots and dashes" ;; esac
case $size in '' | [1-9]*[0-9KMG] | [1-9]) ;; *) die "--size $size: not a size (say 64M)" ;; esac
case ${size%[KMG]} in *[!0-9]*) die "--size $size: not a size (say 64M)" ;; esac
[ -x "$busybox" ] || die "${busybox:-busybox}: no such program (apt-get install busybox-static)"
if ldd "$busybox" >/dev/null 2>&1; then
    die "$busybox: not static (apt-get install busybox-static)"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
root=${tree:-$work/root}
mkdir -p "$root"
[ -z "$(ls -A "$root")" ] || die "$root: not empty"
umask 022

# The tree: what is in the folder root/ beside this script, the init, and busybox under all its names.
for folder in bin sbin usr/bin usr/sbin dev proc sys run tmp root mnt etc/volt lib/modules var/log; do
    mkdir -p "$root/$folder"
done
chmod 0700 "$root/root"
chmod 1777 "$root/tmp"
cp -R "$here/root/." "$root/"
echo "$hostname" >"$root/etc/hostname"
: >"$root/etc/resolv.conf" # on a read-only root volt-init mounts another over it
printf '127.0.0.1\tlocalhost %s\n' "$hostname" >"$root/etc/hosts"
install -m 0755 "$init" "$root/sbin/init"
for name in poweroff reboot halt; do ln -s init "$root/sbin/$name"; done
install -m 0755 "$busybox" "$root/bin/busybox"
"$busybox" --list-full | while read -r applet; do
    [ -e "$root/$applet" ] || [ -h "$root/$applet" ] || ln -s /bin/busybox "$root/$applet"
done
rm -f "$root/linuxrc"
[ -z "$run" ] || install -m 0755 "$run" "$root/etc/volt/run"
if [ -n "$modules" ]; then
    [ -d "$modules/$kver" ] || die "$modules/$kver: no such folder"
    cp -R "$modules/$kver" "$root/lib/modules/"
fi
printf '%s' "$adds" | while IFS=: read -r from to; do
    if [ -d "$from" ]; then
        mkdir -p "$root/$to"
        from=$from/.
    else
        mkdir -p "$root/$(dirname "$to")"
    fi
    # What stood there is removed, not written through: it may be a link to this machine's own busybox.
    cp -RL --remove-destination "$from" "$root/$to" || die "$from: cannot be copied"
done
[ -z "$tree" ] || exit 0

"$here/make-ext4.sh" ${size:+--size "$size"} --owner-root "$root" "$out"
