# shellcheck shell=sh
# Helpers for scripts on a lab host: `. /lab/lib.sh`.

# die MESSAGE: say why and stop the script.
die() {
    echo "$*" >&2
    exit 1
}

# make_tap NAME [BRIDGE]: a tap for a guest, up, attached to the bridge if one is named.
make_tap() {
    tunctl -t "$1" > /dev/null 2>&1 || ip tuntap add "$1" mode tap || return 1
    [ -z "$2" ] || ip link set "$1" master "$2" || return 1
    ip link set "$1" up
}

# make_bridge NAME [ADDRESS/BITS] [PORT]: a bridge, e.g. make_bridge br0 10.78.0.1/24 eth0.
make_bridge() {
    ip link add "$1" type bridge || return 1
    [ -z "$3" ] || ip link set "$3" master "$1" || return 1
    [ -z "$2" ] || ip address add "$2" dev "$1" || return 1
    ip link set "$1" up
}

# reserve_hugepages COUNT: 2 MiB pages; fails if the host could not find that many.
reserve_hugepages() {
    echo "$1" > /proc/sys/vm/nr_hugepages
    [ "$(cat /proc/sys/vm/nr_hugepages)" -ge "$1" ]
}

# scratch_ext4 MOUNTPOINT [DISK]: an ext4 file system on the scratch disk (default /dev/scratch).
scratch_ext4() {
    mke2fs -q -F -t ext4 -E lazy_itable_init=1 "${2:-/dev/scratch}" || return 1
    modprobe ext4 2> /dev/null
    mkdir -p "$1"
    mount -t ext4 "${2:-/dev/scratch}" "$1"
}

# guest_initramfs OUT SCRIPT [FILE...]: the guest's initramfs plus a script to run with
# lab=run:/work/SCRIPT and files beside it.
guest_initramfs() {
    target=$1
    shift
    overlay=$(mktemp -d)
    mkdir "$overlay/work"
    cp "$@" "$overlay/work/" || return 1
    cp /lab/guest/initramfs.cpio "$target"
    (cd "$overlay" && find work | cpio -o -H newc 2> /dev/null) >> "$target"
    rm -r "$overlay"
}

# Kernel command line that gets a stock guest to user space soonest on an emulated host.
# shellcheck disable=SC2034  # for the sourcing script
GUEST_FAST="mitigations=off nokaslr tsc=reliable no_timer_check cryptomgr.notests random.trust_cpu=on \
audit=0 apparmor=0 rcupdate.rcu_expedited=1 8250.nr_uarts=1 init_on_alloc=0 ipv6.disable=1 quiet"
# The same for a machine without RTC and keyboard controller, whose probing takes about six seconds.
# shellcheck disable=SC2034
GUEST_BARE="$GUEST_FAST initcall_blacklist=cmos_init,i8042_init"

# lab_barrier NAME: wait until the peer host has reached the barrier of the same name.
lab_barrier() {
    exec 8<> /dev/lab.sync
    echo "barrier $1" >&8
    read -r _ <&8
    exec 8>&-
}
