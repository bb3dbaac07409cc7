#!/bin/bash
# Builds the guest kernel from Debian's linux-source, the patches in patches/ and the configuration in config.
#
#   build.sh [--import-with VOLT_KERNEL] [--config-only]
#
# --import-with imports the result as `volt` and makes it the default; --config-only stops when the configuration
# has been made and checked. Works in $VOLT_CACHE/kernel (VOLT_CACHE is ${XDG_CACHE_HOME:-~/.cache}/volt if not set),
# where the kernel with its symbols stays.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_package=linux-source-6.12
cache=${VOLT_CACHE:-${XDG_CACHE_HOME:-${HOME:?neither VOLT_CACHE nor HOME is set}/.cache}/volt}/kernel
import_with=''
config_only=''

say() { echo "build.sh: $*" >&2; }
die() { say "$*"; exit 1; }

while [ $# -gt 0 ]; do
    case $1 in
    --import-with) import_with=${2:?--import-with needs a program}; shift 2 ;;
    --config-only) config_only=1; shift ;;
    *) die "$1: not an option (see the head of this script)" ;;
    esac
done

# Tools and the Debian package each is in; a header stands for its development package.
need_tools() {
    local missing=() pair
    for pair in make:make gcc:gcc flex:flex bison:bison bc:bc perl:perl xz:xz-utils patch:patch strip:binutils; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [ -e /usr/include/libelf.h ] || missing+=(libelf-dev)
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" -eq 0 ] || die "missing packages: ${missing[*]} (apt-get install ${missing[*]})"
    say "installing ${missing[*]}"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Sets `tarball` and `version`. Only root can install a package, but everybody can download and unpack one.
get_source() {
    version=$(apt-cache policy "$source_package" | awk '/Candidate:/ {print $2}')
    if [ -z "$version" ] || [ "$version" = "(none)" ]; then
        [ "$(id -u)" -ne 0 ] || apt-get update -qq
        version=$(apt-cache policy "$source_package" | awk '/Candidate:/ {print $2}')
    fi
    [ -n "$version" ] && [ "$version" != "(none)" ] ||
        die "$source_package: no such package (it is in bookworm-security; apt-get update)"
    tarball=$cache/$source_package-$version.tar.xz
    [ -e "$tarball" ] && return
    say "fetching $source_package $version (150 MB)"
    local fetched
    fetched=$(mktemp -d "$cache/fetch.XXXXXX")
    (cd "$fetched" && apt-get -qq -o APT::Sandbox::User=root download "$source_package=$version" &&
        dpkg-deb -x ./*.deb unpacked)
    mv "$fetched/unpacked/usr/src/$source_package.tar.xz" "$tarball"
    rm -rf "$fetched"
}

# Sets `tree`: the source with the patches applied; complete if it is there at all.
unpack_source() {
    local patches fresh
    patches=$(cat "$here"/patches/*.patch | sha256sum | cut -c1-12)
    tree=$cache/$source_package-$version-$patches
    [ -d "$tree" ] && return
    say "unpacking and patching"
    rm -rf "$cache"/tree.*
    fresh=$(mktemp -d "$cache/tree.XXXXXX")
    tar -xf "$tarball" -C "$fresh" --strip-components=1
    for file in "$here"/patches/*.patch; do
        patch -d "$fresh" -p1 -s --no-backup-if-mismatch <"$file" || die "$file: does not apply to $version"
    done
    mv "$fresh" "$tree"
}

# The fragment without its reasons: "CONFIG_X=value".
wanted() { sed -e '/^#/d' -e 's/[[:space:]]*#.*//' -e '/^[[:space:]]*$/d' "$here/config"; }

# Everything off but what the fragment names (and what Kconfig selects for it); then the outcome must be what was asked
# for. Not `tinyconfig` and a merge: options that become visible by the merge would take their defaults, many of them yes.
configure() {
    local line name failed=()
    wanted >"$out/wanted"
    make -s -C "$tree" O="$out" KCONFIG_ALLCONFIG="$out/wanted" allnoconfig >/dev/null
    while IFS= read -r line; do
        name=${line%%=*}
        if [ "${line#*=}" = n ]; then
            ! grep -q "^$name=" "$out/.config" || failed+=("$name is $(sed -n "s/^$name=//p" "$out/.config"), not n")
        else
            grep -qxF -- "$line" "$out/.config" || failed+=("$line did not take effect")
        fi
    done <"$out/wanted"
    [ ${#failed[@]} -eq 0 ] && return
    for line in "${failed[@]}"; do say "$line"; done
    die "${#failed[@]} options of $here/config contradict the kernel's dependencies"
}

build() {
    local begun=$SECONDS
    say "building with $(nproc) jobs; this may take ten minutes"
    # Fixed words and a fixed date in the banner, so that it does not give equal inputs different hashes.
    make -s -C "$tree" O="$out" -j"$(nproc)" KBUILD_BUILD_USER=volt KBUILD_BUILD_HOST=volt \
        KBUILD_BUILD_VERSION=1 KBUILD_BUILD_TIMESTAMP="$(date -u -r "$tree/Makefile" '+%F %T UTC')" vmlinux
    strip -o "$out/vmlinux.stripped" "$out/vmlinux"
    say "built in $((SECONDS - begun)) s: $out/vmlinux.stripped," \
        "$(stat -c %s "$out/vmlinux.stripped") bytes; with symbols: $out/vmlinux"
}

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
need_tools
get_source
unpack_source
out=$cache/build-${tree##*/}
mkdir -p "$out"
configure
[ -z "$config_only" ] || exit 0
build
if [ -n "$import_with" ]; then
    "$import_with" import "$out/vmlinux.stripped" volt
    "$import_with" default volt
fi
