#!/bin/bash
# Volumes on SCSI disks of the kernel (`/dev/sdX`), on LIO, the target of the Linux kernel, reached by open-iscsi: three daemons on one host, each over
# a session of its own, under an initiator's name of its own. What the unit has registered is shown by sg_persist, which is not ours.
#
#   sg.sh target/debug/shorefast DEVICE [STEP...]
#
# As root, in a virtual machine: it loads kernel modules, makes a target over DEVICE (at least 2 GiB, whose content is lost), starts iscsid, and
# takes everything away again at the end. It needs open-iscsi, sg3-utils, dmsetup and fuse3, and in the kernel target_core_iblock,
# iscsi_target_mod, iscsi_tcp, sd_mod, dm_mod and fuse. Steps that are not named are run all, in order.
set -uo pipefail
PROGRAM=$(realpath "${1:?"usage: sg.sh PROGRAM DEVICE [STEP...]"}")
DEVICE=${2:?"usage: sg.sh PROGRAM DEVICE [STEP...]"}
shift 2
T=/sys/kernel/config/target
IQN=iqn.2026-01.test:sg
BACK=sg-lab
DIR=$(mktemp -d /tmp/sg-lab.XXXXXX)
WAIT=${WAIT:-120}
declare -A PID SD
FAILED=0

say() { printf '\n== %s\n' "$*"; }
wrong() { echo "WRONG: $*"; FAILED=$((FAILED + 1)); }
# until WHAT COMMAND...: waits until the command succeeds.
until_is() {
    local what=$1 begun=$SECONDS
    shift
    until "$@" >/dev/null 2>&1; do
        if [ $((SECONDS - begun)) -ge "$WAIT" ]; then wrong "NOT within $WAIT s: $what"; return 1; fi
        sleep 0.3
    done
    echo "$what: after $((SECONDS - begun)) s"
}
ask() { local n=$1; shift; "$PROGRAM" --socket "$DIR/$n/sock" "$@"; }
keys() { sg_persist -n -k "/dev/${SD[1]}"; sg_persist -n -r "/dev/${SD[1]}"; }
# The keys of a node: the fifth to seventh digit of a key are its number.
keys_of() { sg_persist -n -k "/dev/${SD[$2]}" | grep -oE '0x[0-9a-f]{16}|0x[0-9a-f]+' | while read -r key; do printf '%016x\n' "$key"; done | grep -E "^.{4}$(printf '%03x' "$1")"; }
none_of() { ! keys_of "$1" "$2" | grep -q .; }

target_up() {
    for module in configfs target_core_mod target_core_iblock iscsi_target_mod iscsi_tcp sd_mod sg dm_mod fuse; do modprobe "$module" || true; done
    mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
    mkdir -p /var/target/pr /var/target/alua /etc/target/pr /etc/target/alua
    # Over a map, so that it can be made to hold requests up.
    dmsetup create $BACK --table "0 $(blockdev --getsz "$DEVICE") linear $DEVICE 0"
    dmsetup mknodes $BACK
    dd if=/dev/zero of=/dev/mapper/$BACK bs=1M count=4 conv=fsync 2>/dev/null
    mkdir -p $T/core/iblock_0/$BACK
    echo "udev_path=$(realpath /dev/mapper/$BACK)" >$T/core/iblock_0/$BACK/control
    echo 5f0eca57000000000000000000000002 >$T/core/iblock_0/$BACK/wwn/vpd_unit_serial
    echo 1 >$T/core/iblock_0/$BACK/enable
    for n in 1 2 3; do
        ip addr add 10.9.0.$n/32 dev lo
        local tpg=$T/iscsi/$IQN/tpgt_$n
        mkdir -p "$tpg/lun/lun_0" "$tpg/np/10.9.0.$n:3260" "$tpg/acls/$IQN-node$n/lun_0"
        ln -s $T/core/iblock_0/$BACK "$tpg/lun/lun_0/unit"
        ln -s "$tpg/lun/lun_0" "$tpg/acls/$IQN-node$n/lun_0/unit"
        echo 0 >"$tpg/attrib/authentication"
        echo 1 >"$tpg/enable"
    done
}

sessions_up() {
    mkdir -p /run/lock/iscsi /etc/iscsi
    [ -s /etc/iscsi/initiatorname.iscsi ] || echo "InitiatorName=$IQN-host" >/etc/iscsi/initiatorname.iscsi
    pidof iscsid >/dev/null || iscsid
    sleep 1
    for n in 1 2 3; do
        iscsiadm -m iface -I sg$n --op new >/dev/null
        iscsiadm -m iface -I sg$n --op update -n iface.initiatorname -v $IQN-node$n >/dev/null
        iscsiadm -m node -T $IQN -p 10.9.0.$n:3260,$n -I sg$n --op new >/dev/null
        # How long the kernel keeps what it has of a lost session: as short as where paths are many.
        iscsiadm -m node -T $IQN -p 10.9.0.$n:3260 -I sg$n --op update -n node.session.timeo.replacement_timeout -v 5 >/dev/null
        iscsiadm -m node -T $IQN -p 10.9.0.$n:3260 -I sg$n --op update -n 'node.conn[0].timeo.noop_out_interval' -v 2 >/dev/null
        iscsiadm -m node -T $IQN -p 10.9.0.$n:3260 -I sg$n --op update -n 'node.conn[0].timeo.noop_out_timeout' -v 2 >/dev/null
        iscsiadm -m node -T $IQN -p 10.9.0.$n:3260 -I sg$n --login >/dev/null || wrong "no login of node $n"
        for _ in $(seq 50); do
            SD[$n]=$(iscsiadm -m session -P 3 2>/dev/null | awk -v me="sg$n" '/Iface Name:/ { i = $3 } /Attached scsi disk/ && i == me { print $4 }')
            [ -n "${SD[$n]}" ] && [ -b "/dev/${SD[$n]}" ] && break
            sleep 0.2
        done
        echo "node $n goes by /dev/${SD[$n]}"
    done
}

start_node() {
    setsid "$PROGRAM" daemon --config "$DIR/$1/conf" >>"$DIR/$1/log" 2>&1 &
    PID[$1]=$!
}
nodes_up() {
    "$PROGRAM" init --cluster sg-lab --node 1=127.0.0.1:7461 --node 2=127.0.0.1:7462 --node 3=127.0.0.1:7463 --out "$DIR/made" >/dev/null || exit 1
    for n in 1 2 3; do
        mkdir -p "$DIR/$n/state" "$DIR/$n/mnt"
        printf 'bundle = "%s"\nsocket = "%s"\nstate_dir = "%s"\nmount_root = "%s"\nscsi_disks = ["/dev/%s"]\nworkers = 1\ndebug = true\n' \
            "$DIR/made/node-$n.bundle" "$DIR/$n/sock" "$DIR/$n/state" "$DIR/$n/mnt" "${SD[$n]}" >"$DIR/$n/conf"
        start_node $n
    done
    for n in 1 2 3; do until_is "node $n answers" ask $n status; done
}
mounted() { mountpoint -q "$DIR/$1/mnt/v"; }
well() { for n in 1 2 3; do ask $n status --check || return 1; done; }
# A program of a node that writes and reads back (never into the bare folder of a mount that is gone), until the file `stop` is there; each round appends a line to its count.
load() {
    local n=$1 i=0
    while [ ! -e "$DIR/stop" ]; do
        i=$((i + 1))
        head -c 65536 /dev/urandom >"$DIR/of-$n" && dd if="$DIR/of-$n" of="$DIR/$n/mnt/v/of-$n" bs=64k conv=notrunc,nocreat,fsync 2>>"$DIR/err-$n" &&
            cmp -s "$DIR/of-$n" "$DIR/$n/mnt/v/of-$n" && echo $i >>"$DIR/rounds-$n" || { echo "round $i" >>"$DIR/err-$n.bad"; sleep 0.2; }
    done
}
rounds() { wc -l <"$DIR/rounds-$1" 2>/dev/null || echo 0; }
gets_on() { [ "$(rounds "$1")" -gt "$2" ]; }
all_get_on() { for n in "$@"; do local b; b=$(rounds $n); until_is "the program of node $n gets on from $b" gets_on $n "$((b + 2))"; done; }

clean() {
    touch "$DIR/stop"
    for n in 1 2 3; do [ -n "${PID[$n]:-}" ] && kill -CONT "${PID[$n]}" 2>/dev/null && kill "${PID[$n]}" 2>/dev/null; done
    sleep 3
    for n in 1 2 3; do [ -n "${PID[$n]:-}" ] && kill -9 "${PID[$n]}" 2>/dev/null; umount -l "$DIR/$n/mnt/v" 2>/dev/null; done
    dmsetup resume $BACK 2>/dev/null
    iscsiadm -m node -T $IQN --logout >/dev/null 2>&1
    iscsiadm -m node -T $IQN --op delete >/dev/null 2>&1
    for n in 1 2 3; do
        iscsiadm -m iface -I sg$n --op delete >/dev/null 2>&1
        local tpg=$T/iscsi/$IQN/tpgt_$n
        echo 0 >"$tpg/enable" 2>/dev/null
        rm -f "$tpg/acls/$IQN-node$n/lun_0/unit" "$tpg/lun/lun_0/unit"
        rmdir "$tpg/acls/$IQN-node$n/lun_0" "$tpg/acls/$IQN-node$n" "$tpg/lun/lun_0" "$tpg/np/10.9.0.$n:3260" "$tpg" 2>/dev/null
        ip addr del 10.9.0.$n/32 dev lo 2>/dev/null
    done
    rmdir $T/iscsi/$IQN $T/core/iblock_0/$BACK 2>/dev/null
    dmsetup remove $BACK 2>/dev/null
}
trap clean EXIT

step_inquiry() {
    say "what the disk is, beside nobody"
    "$PROGRAM" scsi inquiry "/dev/${SD[1]}"; "$PROGRAM" scsi capacity "/dev/${SD[1]}"; "$PROGRAM" scsi reservations "/dev/${SD[1]}"
}
step_create() {
    say "a volume on it, made through node 1"
    ask 1 volume create v --disk "/dev/${SD[1]}" --timing "${TIMING:-default}" || { wrong "not made"; exit 1; }
    for n in 1 2 3; do until_is "node $n has it mounted" mounted $n; done
    ask 1 volume info v
    keys
    for n in 1 2 3; do keys_of $n 1 | grep -q . || wrong "node $n has no key"; done
    for n in 1 2 3; do touch "$DIR/$n/mnt/v/of-$n" "$DIR/rounds-$n"; load $n & done
    all_get_on 1 2 3
}
step_alone() {
    say "another owner of the disk on this host is refused, and a map over it"
    if dmsetup create sg-other --table "0 2048 linear /dev/${SD[2]} 0" 2>/dev/null; then wrong "a map could be made over node 2's disk"; dmsetup remove sg-other; fi
    "$PROGRAM" scsi reservations "/dev/${SD[2]}" || wrong "nobody may look"
}
step_stopped() {
    say "SIGSTOP to node 2 while it writes: the others go on, the unit shuts it out, it comes back by itself"
    keys_of 2 1
    kill -STOP "${PID[2]}"
    (stat "$DIR/1/mnt/v/of-2" >/dev/null; head -c 4096 "$DIR/1/mnt/v/of-2" >/dev/null; echo wanted >"$DIR/got") &
    until_is "the keys of node 2 are gone" none_of 2 1
    keys
    if dd if=/dev/zero of="/dev/${SD[2]}" bs=4096 count=1 seek=8192 oflag=direct 2>"$DIR/dd"; then wrong "node 2's nexus could write"; else tail -1 "$DIR/dd"; fi
    if dd if="/dev/${SD[2]}" of=/dev/null bs=4096 count=1 skip=8192 iflag=direct 2>"$DIR/dd"; then wrong "node 2's nexus could read"; else head -1 "$DIR/dd"; fi
    until_is "the file that it held is had by node 1" test -e "$DIR/got"
    all_get_on 1 3
    kill -CONT "${PID[2]}"
    until_is "all is well" well
    all_get_on 1 2 3
    keys_of 2 1
    ask 2 events 2>/dev/null | tail -6
}
step_killed() {
    say "SIGKILL to node 3, with its writes held up in the array: the next daemon gets the disk only once the last of them has ended"
    dmsetup suspend --nolockfs $BACK
    sleep 2
    echo "in the kernel on /dev/${SD[3]}: $(cat /sys/block/${SD[3]}/inflight)"
    kill -9 "${PID[3]}"
    sleep 1
    echo "a second after: $(cat /sys/block/${SD[3]}/inflight); the process: $(cat /proc/${PID[3]}/stat 2>/dev/null | cut -d' ' -f3 || echo gone)"
    if python3 -c "import os,sys; os.open('/dev/${SD[3]}', os.O_RDWR|os.O_EXCL)" 2>"$DIR/py"; then wrong "the disk was to be had with writes in the kernel"; else tail -1 "$DIR/py"; fi
    dmsetup resume $BACK
    until_is "the disk is to be had" python3 -c "import os; os.open('/dev/${SD[3]}', os.O_RDWR|os.O_EXCL)"
    echo "then: $(cat /sys/block/${SD[3]}/inflight)"
    all_get_on 1 2
    keys_of 3 1
    umount -l "$DIR/3/mnt/v" 2>/dev/null
    start_node 3
    until_is "node 3 has it mounted" mounted 3
    until_is "all is well" well
    echo "its keys now, none of its dead life:"; keys_of 3 1
    all_get_on 1 2 3
}
step_path() {
    say "node 2's way to the array is gone, and comes back"
    ip addr del 10.9.0.2/32 dev lo
    until_is "node 2 is redirected" sh -c "'$PROGRAM' --socket '$DIR/2/sock' status | grep -q 'node-2.*redirected'"
    ask 2 status | grep -E 'node-|path' | head -8
    all_get_on 1 2 3
    ip addr add 10.9.0.2/32 dev lo
    until_is "all is well" well
    all_get_on 1 2 3
}
step_reset() {
    say "the unit is reset under load"
    "$PROGRAM" scsi reset "/dev/${SD[1]}" && wrong "without --yes"
    "$PROGRAM" scsi reset "/dev/${SD[1]}" --yes || wrong "not reset"
    all_get_on 1 2 3
    until_is "all is well" well
}
step_end() {
    say "unmounted on all nodes: no registration is left, and the volume is in order"
    touch "$DIR/stop"
    sleep 2
    for n in 1 2 3; do ask $n volume unmount v --force || wrong "node $n does not unmount"; done
    keys
    if ! sg_persist -n -k "/dev/${SD[1]}" | grep -qi 'no registered'; then wrong "registrations are left"; fi
    ask 1 volume check v || wrong "the check"
}

echo "$(uname -sr), $(iscsid --version 2>/dev/null), LIO $(cat $T/version 2>/dev/null)"
target_up
sessions_up
nodes_up
for step in ${*:-inquiry create alone stopped killed path reset end}; do step_$step; done
for n in 1 2 3; do
    echo "node $n: $(rounds $n) rounds; errors of its program: $(sort "$DIR/err-$n" 2>/dev/null | grep -ci 'error' || true)"
    grep -c panicked "$DIR/$n/log" | sed 's/^/panics: /'
    grep -E 'WARN|ERROR' "$DIR/$n/log" | tail -"${LINES_OF_LOG:-4}"
done
[ $FAILED -eq 0 ] && echo "ALL AS IT SHOULD BE" || { echo "$FAILED THINGS WRONG"; exit 1; }
