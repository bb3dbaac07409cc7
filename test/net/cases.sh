#!/bin/sh
# shellcheck disable=SC2317,SC2154 # the cases are called by tap_run, and guest() sets NAME_pid
# Guests with network cards, on real bridges, in the lab (busybox sh). Says TAP lines.
#
# cases.sh [only=PATTERN]   in a folder with volt-vmm, vmlinuz, initrd.cpio, rootfs.ext4, and the optional vmlinux
set -eu
# shellcheck source=test/tap.sh
. "${TAP:-/tap.sh}"
case ${1:-} in only=*) TAP_ONLY=${1#only=} ;; esac
payload=$PWD
work=$(mktemp -d)
cd "$work"
ip=$(command -v /usr/sbin/ip || command -v /usr/bin/ip || command -v /bin/ip) # iproute2's, not this shell's own
if [ -e "$payload/vmlinux" ]; then
    boot="--kernel $payload/vmlinux"
else
    boot="--kernel $payload/vmlinuz --initrd $payload/initrd.cpio"
fi

make_bridge()
{
    "$ip" link add volt0 type bridge
    "$ip" addr add 10.9.0.1/24 dev volt0
    "$ip" addr add fd09::1/64 dev volt0 nodad
    "$ip" link set volt0 mtu "${1:-1500}" up
}

# guest NAME CASE OPTION...: runs in the background; its console in NAME.console, its log in NAME.log.
guest()
{
    name=$1
    case=$2
    shift 2
    cp "$payload/rootfs.ext4" "$name.root"
    # shellcheck disable=SC2086 # words
    timeout "${limit:-400}" "$payload/volt-vmm" $boot --rootfs "$name.root" --serial "file=$name.console" --memory 192M \
        --append "${root_mode-rw} volt.run=\"inside-net $case\" ${append:-}" --id "$name" "$@" >"$name.log" 2>&1 </dev/null &
    eval "${name}_pid=$!"
}

finish() # NAME
{
    eval "wait \$${1}_pid" || { echo "status $?" && cat "$1.log" && tail -n 20 "$1.console" && return 1; }
    tr -d '\r' <"$1.console" >"$1.text"
    cat "$1.text"
}

await() # NAME TEXT
{
    tries=0
    until grep -q "$2" "$1.console" 2>/dev/null; do
        tries=$((tries + 1))
        eval "kill -0 \$${1}_pid" && [ "$tries" -lt 900 ] || { cat "$1.log" "$1.console" && echo "no '$2'" && return 1; }
        sleep 0.2
    done
}

expect() # NAME FACT...
{
    file=$1.text
    shift
    for fact; do
        grep -q "^$fact\$" "$file" || grep -q " $fact\$\|^$fact \| $fact " "$file" || { echo "no $fact" && return 1; }
    done
}

no_link_left()
{
    # A killed process's files are closed a moment after it.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        "$ip" -o link | grep -q "volt[1-9]\|master volt0" || return 0
        sleep 0.2
    done
    "$ip" link
    return 1
}

# --- the cases ---

everything_through_a_bridge() # FILE SETTINGS FACT [OPTION]...
{
    settings=$2 facts=$3
    sum=$(sha256sum <"/tmp/$1" | cut -c 1-64)
    append="${append:-} volt.data=$1"
    shift 3
    socat -u -b 65536 TCP-LISTEN:9001,reuseaddr OPEN:up,creat,trunc &
    receiver=$!
    guest one all --net "bridge=volt0,$settings" "$@"
    finish one
    # shellcheck disable=SC2086 # words
    expect one ping=ok ping6=ok "down=$sum" tcp_out=ok tcp_in=ok udp_out=ok udp_in=ok done=all $facts
    wait "$receiver"
    [ "$(sha256sum <up | cut -c 1-64)" = "$sum" ] || { echo "what was sent up is not what arrived" && return 1; }
    no_link_left
}

guest_to_guest()
{
    guest two serve --net bridge=volt0
    await two ready=1
    append=volt.address=3 guest three peer --net bridge=volt0
    finish three
    expect three ping=ok
    kill "$two_pid"
    wait "$two_pid" || true
    ! grep -h '^mac' two.console three.console | sort | uniq -d | grep . || { echo "two cards of one address" && return 1; }
    no_link_left
}

carrier_follows()
{
    guest four carrier --net bridge=volt0
    await four ready=1
    "$ip" link set volt0 down
    await four carrier=0
    "$ip" link set volt0 up
    await four 'carrier=1.*$'
    "$ip" link del volt0
    sleep 1
    make_bridge
    sleep 1
    port=$("$ip" -o link | sed -n 's/.*\(volt[0-9]\).*master volt0.*/\1/p')
    [ -n "$port" ] || { echo "the port is not in the new bridge" && "$ip" link && return 1; }
    "$ip" link set "$port" name renamed 2>/dev/null || { "$ip" link set "$port" down && "$ip" link set "$port" name renamed &&
        "$ip" link set renamed up; }
    sleep 1
    "$ip" link del renamed
    sleep 1
    kill -0 "$four_pid" || { echo "it has ended" && cat four.log && return 1; }
    kill -9 "$(pidof volt-vmm)"
    wait "$four_pid" || true
    tr -d '\r' <four.console | grep carrier= | tr '\n' ' ' | grep -q 'carrier=1 carrier=0 carrier=1 carrier=0 carrier=1 .*carrier=0 $' ||
        { grep carrier four.console && return 1; }
    no_link_left
}

a_tap_that_comes_back()
{
    "$ip" tuntap add mode tap name tap7
    "$ip" link set tap7 master volt0 up
    guest five carrier --net tap=tap7
    await five ready=1
    "$ip" link del tap7
    await five carrier=0
    "$ip" tuntap add mode tap name tap7
    "$ip" link set tap7 up
    await five carrier=1.*
    sleep 1
    kill "$five_pid"
    wait "$five_pid" || true
    tr -d '\r' <five.console | grep carrier= | tr '\n' ' ' | grep -q 'carrier=1 carrier=0 carrier=1 $' || { cat five.console && return 1; }
    "$ip" link del tap7
}

killed()
{
    guest six carrier --net bridge=volt0 --net bridge=volt0
    await six ready=1
    [ "$("$ip" -o link | grep -c 'master volt0')" = 2 ] || { "$ip" link && return 1; }
    kill -9 "$(pidof volt-vmm)"
    wait "$six_pid" || true
    no_link_left
}

dhcp()
{
    cat >udhcpd.conf <<C
start 10.9.0.50
end 10.9.0.60
interface volt0
lease_file $work/leases
C
    touch leases
    udhcpd -f udhcpd.conf >/dev/null 2>&1 &
    server=$!
    guest seven dhcp --net bridge=volt0
    finish seven
    kill "$server"
    expect seven ping=ok
    grep -q 'address=10.9.0.5' seven.text
}

# line NAME TEXT: the console has this line.
line()
{
    grep -qxF "$2" "$1.text" || { echo "no line '$2'" && return 1; }
}

set_up_by_the_command_line()
{
    append="ip=10.9.0.2:::24:vm.lan:eth0:off:10.9.0.53 ip=[fd09::2]::[fd09::1]:64::eth0:off nameserver=[fd09::53] \
rd.route=192.168.77.0/24:10.9.0.9 volt.serve=1" guest words configured --net bridge=volt0
    await words ready=1
    ping -c 2 -W 2 10.9.0.2
    ping -6 -c 2 -W 2 fd09::2
    echo | socat -u - TCP:10.9.0.2:9002
    finish words
    expect words ping=ok ping6=ok done=configured
    line words "eth0=10.9.0.2/24 "
    line words "eth0_6=fd09::2/64 "
    line words "hostname=vm"
    line words "resolver=nameserver 10.9.0.53 nameserver fd09::53 "
    line words "routes=192.168.77.0/24 via 10.9.0.9 dev eth0,"
    line words "routes6=default via fd09::1"
}

several_by_the_command_line()
{
    append="ip=10.9.0.3::10.9.0.1:24::eth1:off ip=dhpc ip=10.9.0.2::10.9.0.1:255.255.255.0 ip=10.9.0.9:::24::eth9:off \
ip=10.9.0.2:::24::eth1 nameserver=none rd.route=1.2.3.0/24:9.9.9.9:eth7" root_mode='' \
        guest both configured --net bridge=volt0 --net bridge=volt0
    finish both
    expect both ping=ok done=configured
    line both "eth0=10.9.0.2/24 "
    line both "hostname=volt"
    grep -q "^eth1=10.9.0.3/24" both.text
    line both "volt-init: ip=: 'dhpc' is not a way to an address (dhcp, on, any, auto6, off, none)"
    line both "volt-init: ip=: there is no network card eth9"
    line both "volt-init: nameserver=none: no address"
    line both "volt-init: rd.route=1.2.3.0/24:9.9.9.9:eth7: No such device"
    line both "routes=default via 10.9.0.1 dev eth0,default via 10.9.0.1 dev eth1  metric 1025,"
}

# On a root that cannot be written to.
dhcp_by_the_command_line()
{
    cat >udhcpd.conf <<C
start 10.9.0.50
end 10.9.0.60
interface volt0
lease_file $work/leases
opt subnet 255.255.255.0
opt router 10.9.0.1
opt dns 10.9.0.53 10.9.0.54
opt domain lan.example
C
    : >leases
    udhcpd -f udhcpd.conf >/dev/null 2>&1 &
    server=$!
    append="ip=dhcp nameserver=9.9.9.9" root_mode=ro guest lease configured --net bridge=volt0
    finish lease
    kill "$server"
    expect lease ping=ok clients=1 done=configured
    grep -q "^eth0=10.9.0.5[0-9]/24 " lease.text
    line lease "resolver=search lan.example nameserver 9.9.9.9 nameserver 10.9.0.53 nameserver 10.9.0.54 "
    line lease "routes=default via 10.9.0.1 dev eth0,"
    append="ip=dhcp" guest silence configured --net bridge=volt0
    finish silence
    line silence "volt-init: eth0: no answer by DHCP"
    expect silence clients=0 done=configured
}

# --- passt, as a user without any right ---

# Behind the uplink of this machine there is a world.
make_world()
{
    "$ip" netns add world
    "$ip" link add uplink type veth peer name world0 netns world
    "$ip" addr add 192.0.2.2/24 dev uplink
    "$ip" addr add 2001:db8::2/64 dev uplink nodad
    "$ip" link set uplink up
    for address in 192.0.2.1/24 192.0.2.9/24; do "$ip" netns exec world "$ip" addr add $address dev world0; done
    for address in 2001:db8::1/64 2001:db8::9/64; do "$ip" netns exec world "$ip" addr add $address dev world0 nodad; done
    "$ip" netns exec world "$ip" link set world0 up
    "$ip" route add default via 192.0.2.1
    "$ip" route add default via 2001:db8::1
    echo 1 >/tmp/small
    (cd /tmp && "$ip" netns exec world httpd -p 8081)
    echo "nameserver 192.0.2.53" >/etc/resolv.conf
    echo "root:x:0:0::/root:/bin/sh
nobody:x:65534:65534::/:/bin/sh
vm:x:1000:1000::/tmp:/bin/sh" >/etc/passwd
    chmod 666 /dev/kvm
    chmod 755 "$work" "$payload"
}

# user COMMAND: as the user vm. The root of this machine is an initramfs, which passt cannot change its root from.
user()
{
    # shellcheck disable=SC2016 # for the other shell
    unshare -m sh -c 'mkdir -p /newroot && mount -o rbind / /newroot && cd /newroot && mount -o move . / &&
        exec chroot . su vm -c "$0"' "cd $work && $1"
}

# user_guest NAME CASE OPTION...: as guest, but it is the user's.
user_guest()
{
    name=$1 case=$2
    shift 2
    cp "$payload/rootfs.ext4" "$name.root"
    touch "$name.console"
    chown vm "$name.root" "$name.console"
    user "exec timeout ${limit:-400} $payload/volt-vmm $boot --rootfs $name.root --serial file=$name.console --memory 192M \
        --append 'rw volt.run=\"inside-net $case\" ${append:-}' --id $name $*" >"$name.log" 2>&1 </dev/null &
    eval "${name}_pid=$!"
}

no_passt_left()
{
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        pidof passt passt.avx2 || return 0
        sleep 0.2
    done
    return 1
}

through_passt() # NAME FILE FACTS OPTION...
{
    name=$1 data=$2 facts=$3
    sum=$(sha256sum <"/tmp/$2" | cut -c 1-64)
    shift 3
    "$ip" netns exec world socat -u -b 65536 TCP-LISTEN:9001,reuseaddr OPEN:"$name.up",creat,trunc &
    receiver=$!
    append="${append:-} volt.data=$data" user_guest "$name" passt "$@"
    await "$name" down=
    wait "$receiver"
    [ "$(sha256sum <"$name.up" | cut -c 1-64)" = "$sum" ] || { echo "what was sent up is not what arrived" && return 1; }
    # passt listens already, and the guest soon.
    tries=0
    until grep -q "^in=$sum" "$name.console"; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { cat "$name.console" && echo "nothing came in" && return 1; }
        socat -u -b 65536 "OPEN:/tmp/$data" TCP:127.0.0.1:2222 || true
        sleep 1
    done
    finish "$name"
    # shellcheck disable=SC2086 # words
    expect "$name" "down=$sum" "in=$sum" done=passt $facts
    no_passt_left
}

passt_auto()
{
    append="ip=eth0:dhcp ip=eth0:auto6 volt.address6=1" \
        through_passt ten 10MB "address=192.0.2.2/24 mtu=65520 six=ok loopback=failed" --net passt=auto,tcp=2222:9002
    line ten "resolver=nameserver 192.0.2.53 "
}

# One that runs; and a card with small frames.
passt_socket()
{
    user "passt --quiet --one-off --mtu 1500 --tcp-ports 2222:9002 --socket $work/../passt.sock"
    append="ip=dhcp" through_passt eleven 1MB "address=192.0.2.2/24 mtu=1500 loopback=ok" --net "passt=$work/../passt.sock,mtu=1500"
}

passt_killed()
{
    append="ip=dhcp volt.data=small" user_guest twelve passt --net passt=auto
    await twelve ready=1
    pidof passt passt.avx2
    [ ! -e /sys/class/net/volt1 ]
    kill -9 "$(pidof volt-vmm)"
    wait "$twelve_pid" || true
    no_passt_left
}

# A peer that speaks nonsense loses the card its carrier, and the guest nothing else.
passt_liar()
{
    socat "UNIX-LISTEN:$work/liar,mode=777" SYSTEM:"sleep 15; head -c 100000 /dev/urandom; sleep 100" &
    liar=$!
    sleep 1
    user_guest thirteen carrier --net "passt=$work/liar"
    await thirteen carrier=1
    await thirteen carrier=0
    kill -0 "$thirteen_pid"
    grep -q 'a length that no frame has' thirteen.log
    kill "$(pidof volt-vmm)"
    kill "$liar" || true
    wait "$thirteen_pid" || true
}

passt_refused()
{
    user_guest fourteen configured --net "passt=$work/nobody"
    wait "$fourteen_pid" && return 1
    grep -q 'nobody listens there' fourteen.log || { cat fourteen.log && return 1; }
    user_guest fifteen configured --net passt=auto,tcp=nonsense
    wait "$fifteen_pid" && return 1
    grep -q 'passt did not start (status 1' fifteen.log || { cat fifteen.log && return 1; }
}

several()
{
    guest eight many --net bridge=volt0,mac=02:00:00:00:00:01 --net bridge=volt0,mac=02:00:00:00:00:02,queues=4 --net bridge=volt0
    finish eight
    expect eight eth0=02:00:00:00:00:01 eth1=02:00:00:00:00:02 done=many
    grep -q '^eth2=.[26ae]:' eight.text || { echo "the third is not locally administered" && return 1; }
}

refusals()
{
    guest nine all --net bridge=nobridge
    wait "$nine_pid" && return 1
    grep -q 'there is no bridge nobridge (make it: ip link add nobridge type bridge' nine.log || { cat nine.log && return 1; }
    no_link_left
}

modprobe bridge
head -c 104857600 /dev/urandom >/tmp/100MB
head -c 10485760 /tmp/100MB >/tmp/10MB
(cd /tmp && httpd -p 8080)
iperf3 -s -D >/dev/null
make_bridge 9000
"$ip" link set volt0 mtu 9000
tap_run "net: ping, IPv6, MTU 9000, 100 MB both ways, TCP and UDP" everything_through_a_bridge 100MB mtu=9000 "mtu=9000 large=ok queues=1"
# Four vCPUs on the one core of this machine: each MB costs ten times as much.
tap_run "net: the same with four queues, an MTU of 1500 and 10 MB" everything_through_a_bridge 10MB mtu=1500,queues=4 "mtu=1500 queues=4" --cpus 4
tap_run "net: guest to guest" guest_to_guest
tap_run "net: several cards" several
tap_run "net: DHCP" dhcp
tap_run "net: volt-init sets up ip=, IPv4 and IPv6" set_up_by_the_command_line
tap_run "net: volt-init sets up several cards, and says what is wrong" several_by_the_command_line
tap_run "net: volt-init asks by DHCP" dhcp_by_the_command_line
tap_run "net: killed, it leaves nothing" killed
tap_run "net: no such bridge" refusals
tap_run "net: the carrier follows TAP and bridge" carrier_follows
tap_run "net: a TAP that was removed comes back" a_tap_that_comes_back
make_world
head -c 1048576 /tmp/100MB >/tmp/1MB
tap_run "net: passt=auto, a user's: DHCP, IPv6, 10 MB out, up and in by a port" passt_auto
tap_run "net: passt=SOCKET, a user's: an MTU of 1500" passt_socket
tap_run "net: passt ends with a killed VM" passt_killed
tap_run "net: passt that lies" passt_liar
tap_run "net: passt that is not there, or does not start" passt_refused
rm -rf "$work"
tap_done
