#!/bin/bash
# shellcheck disable=SC2317 # the tests are called by tap_run
# What stellarium import takes: layers in every combination, names of any bytes, in any locale, disks in other formats; and what
# it refuses, and leaves behind when it is killed.
set -euo pipefail
. test/tap.sh

top=$PWD
stellarium=$top/${BUILD:-build}/stellarium
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export STELLARIUM_STORE=$work/store TMPDIR=$work/tmp LC_ALL=C
mkdir "$TMPDIR"
cd "$work"

image() # KIND
{
    rm -rf "$1"
    python3 "$top/test/store/images.py" "$1" "$1"
}

# The paths in an image, one a line, as debugfs quotes them.
paths() # NAME FOLDER
{
    "$stellarium" export "$1" fs.raw >/dev/null
    e2fsck -fn fs.raw >fsck 2>&1 || { cat fsck && return 1; }
    debugfs -R "ls -p \"$2\"" fs.raw 2>/dev/null | cut -d / -f 6 | grep -vxE '\.|\.\.|' | sort
}

kind_of() # PATH in fs.raw
{
    debugfs -R "stat $1" fs.raw 2>/dev/null | sed -n 's/.*Type: \([a-z]*\).*/\1/p' | grep . || echo nothing
}

odd_names()
{
    image names
    "$stellarium" import names names
    [ "$(paths names /u | wc -l)" -eq 2 ] || { paths names /u && return 1; } # o\x2d and the name of 255
    [ "$(paths names /kept | wc -l)" -eq 8 ]
    [ "$(paths names '/u/o\x2d')" = new ]
    tar -C names -cf names.tar .
    "$stellarium" import names.tar archive
    "$stellarium" diff names archive
}

# What was there, what comes, and what is there then: as a folder's entries and the kind of x.
combinations()
{
    local was comes entries expected
    image combinations
    "$stellarium" import combinations combinations
    "$stellarium" export combinations fs.raw >/dev/null
    e2fsck -fn fs.raw
    for was in nothing file folder link; do
        for comes in file folder below link hard whiteout; do
            expected=$comes
            case $comes in
            file | hard) expected=regular ;;
            below) expected=directory ;;
            link) expected=symlink ;;
            folder) expected=directory ;;
            whiteout) expected=nothing ;;
            esac
            if [ "$was $comes" = "link below" ]; then expected=symlink; fi # written through it
            [ "$(kind_of "/$was-$comes/x")" = "$expected" ] || { echo "$was-$comes: $(kind_of "/$was-$comes/x"), not $expected" && return 1; }
        done
    done
    entries=$(debugfs -R "ls -p /folder-below/x" fs.raw 2>/dev/null | cut -d / -f 6 | tr '\n' ' ')
    case $entries in *old*new* | *new*old*) ;; *) echo "folder-below: $entries" && return 1 ;; esac
    [ "$(debugfs -R 'cat /link-below/y/new' fs.raw 2>/dev/null)" = new ]
    [ "$(debugfs -R 'cat /folder-folder/x/old' fs.raw 2>/dev/null)" = old ]
}

same_twice()
{
    local kind
    for kind in combinations names; do
        "$stellarium" import "$kind" first
        sleep 1.1
        "$stellarium" import --reread "$kind" second
        "$stellarium" diff first second
    done
    mkdir -p nofolders/usr/share/doc && echo 1 >nofolders/usr/share/doc/a
    tar -C nofolders -cf nofolders.tar usr/share/doc/a
    "$stellarium" import nofolders.tar first
    sleep 1.1
    "$stellarium" import --reread nofolders.tar second
    "$stellarium" diff first second
}

refused() # WORDS ARGUMENT...
{
    local words=$1 status=0
    shift
    timeout 20 "$stellarium" "$@" >log 2>&1 || status=$?
    [ "$status" -eq 3 ] || { cat log && echo "status $status" && return 1; }
    grep -qF -- "$words" log || { cat log && echo "no '$words'" && return 1; }
}

which_image()
{
    image several
    image foreign
    refused 'there are several: one, two (choose one with --image)' import several it
    refused 'none has the name three; there are: one, two' import --image three several it
    "$stellarium" import --image two several two
    paths two / | grep -x two
    "$stellarium" import --image one several one
    paths one / | grep -x one
    "$stellarium" import --platform linux/arm64 several arm
    paths arm / | grep -x arm
    refused 'none is for linux/amd64; there are: linux/arm64' import foreign it
}

docker_saved()
{
    image docker
    tar -C docker -cf docker.tar .
    "$stellarium" import docker folder
    "$stellarium" import docker.tar archive
    "$stellarium" import --image it:1 docker named
    paths archive / | grep -x from-docker
    "$stellarium" diff folder archive
    refused 'none has the name it:2; there are: it:1' import --image it:2 docker it
}

no_images()
{
    mkdir -p web web2
    echo '{"name":"My app","icons":[]}' >web/manifest.json && echo hi >web/index.html
    echo '[1]' >web2/index.json && mkfifo web2/manifest.json
    for folder in web web2; do
        timeout 20 "$stellarium" import "$folder" "$folder"
        tar -C "$folder" -cf "$folder.tar" .
        timeout 20 "$stellarium" import "$folder.tar" "$folder"
    done
    paths web / | grep -x index.html
}

within_the_image()
{
    image escapes
    rm -f /tmp/from-the-image
    "$stellarium" import escapes escapes
    [ ! -e /tmp/from-the-image ]
    paths escapes /tmp | grep -x from-the-image
}

many_files()
{
    mkdir many
    (cd many && for d in $(seq 200); do mkdir "$d" && (cd "$d" && seq 100 | xargs touch); done)
    "$stellarium" import many many
    [ "$(paths many / | wc -l)" -eq 201 ] # and lost+found
}

the_top_folder()
{
    mkdir -p top/a && chown 7:8 top && chmod 1750 top
    tar -C top -cf top.tar .
    for source in top top.tar; do
        "$stellarium" import "$source" top
        "$stellarium" export top fs.raw
        debugfs -R 'stat <2>' fs.raw 2>/dev/null >top.stat
        grep -q 'Mode:  01750' top.stat && grep -q 'User:     7   Group:     8' top.stat || { cat top.stat && return 1; }
    done
}

other_formats()
{
    head -c 1M /dev/urandom >disk.raw
    truncate -s 8M disk.raw
    gzip -k disk.raw && xz -k disk.raw && zstd -q -k disk.raw
    for format in qcow2 vmdk vdi; do qemu-img convert -O "$format" disk.raw "disk.$format"; done
    for file in disk.raw.gz disk.raw.xz disk.raw.zst disk.qcow2 disk.vmdk disk.vdi; do
        "$stellarium" import "$file" disk
        "$stellarium" export disk out.raw
        cmp disk.raw out.raw || { echo "$file" && return 1; }
    done
    python3 -m zipfile -c disk.zip disk.raw.gz
    refused 'disk.zip: a zip archive' import disk.zip disk
    tar --format=v7 -cf v7.tar web/index.html
    "$stellarium" import v7.tar v7 && paths v7 /web | grep -x index.html
}

nothing_left()
{
    local signal=$1 pid status=0
    head -c 60M /dev/urandom >large/blob
    tar -cf large.tar large
    env --default-signal=INT "$stellarium" import large.tar large >/dev/null 2>&1 & # "&" has it ignored
    pid=$!
    until [ -n "$(ls "$TMPDIR")" ]; do sleep 0.005; done
    kill "-$signal" "$pid"
    wait "$pid" || status=$?
    echo "status $status"
    if [ "$signal" = KILL ]; then
        touch -d '1 hour ago' "$TMPDIR"/stellarium.*
        "$stellarium" import web web
    else
        [ "$status" -gt 128 ]
    fi
    [ -z "$(ls "$TMPDIR")" ] || { ls -R "$TMPDIR" && return 1; }
}

"$stellarium" init >/dev/null
mkdir large
if [ "$(id -u)" -eq 0 ]; then
    tap_run "imports: names of any bytes, and whiteouts of them, in the C locale" odd_names
    tap_run "imports: what was there and what comes, in every combination" combinations
    tap_run "imports: the same twice" same_twice
    tap_run "imports: which image of several" which_image
    tap_run "imports: what docker save wrote" docker_saved
    tap_run "imports: a manifest.json makes no image" no_images
    tap_run "imports: links stay within the image" within_the_image
    tap_run "imports: 20,000 small files" many_files
    tap_run "imports: the top folder's owner and mode" the_top_folder
    tap_run "imports: disks that are compressed or qcow2, vmdk, vdi" other_formats
    for signal in INT TERM KILL; do
        tap_run "imports: ended by $signal, it leaves nothing" nothing_left "$signal"
    done
else
    tap_skip "imports" "archives' owners need root"
fi
tap_done
