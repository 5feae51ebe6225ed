#!/bin/bash
# Real DRBD beside the replicator, in the same two guests and the same boot, with the same kind of disk below: random and large writes, and a synchronisation
# after a peer was away. The kernel's nbd-client is in front of ours.
#
#   drbd.sh LAB PROGRAM up                 boots the guests and makes everything; every block of every device is written once
#   drbd.sh LAB PROGRAM rounds N           N interleaved rounds (one takes about three minutes)
#   drbd.sh LAB PROGRAM resync N           N times: a peer away for 256 MiB of writes, first DRBD's, then ours
#   drbd.sh LAB PROGRAM table              medians of all rounds so far
#   drbd.sh LAB PROGRAM down               the guests are gone; what was measured stays in LAB/run/drbd.*
#
# LAB is a folder with start-guests.sh, stop-guests.sh, `g N COMMAND`, `share`, share/drbd-up.sh (DRBD on /dev/lab/data) and ab.py, which runs jobs of fio in turn and
# tells how much of the host others used meanwhile. PROGRAM is `shorefast`, built with --release. The guests' kernel needs drbd and nbd.
#
# Which disk is whose: DRBD has /dev/lab/data, ours at C and A a half each of /dev/lab/raw, and `raw` and `nbd` (our NBD server without replication) /dev/lab/shared.
# All are virtio disks on files in memory. Ratios count, not figures: where a processor is emulated work of the processor, wake-ups and packets are dear, disks nearly free.
set -uo pipefail
LAB=$(realpath "${1:?"usage: drbd.sh LAB PROGRAM STEP [N]"}")
PROGRAM=$(realpath "${2:?"usage: drbd.sh LAB PROGRAM STEP [N]"}")
STEP=${3:?"usage: drbd.sh LAB PROGRAM STEP [N]"}
N=${4:-1}
SIZE=${SIZE:-448}
AWAY=${AWAY:-256}
OUT=$LAB/run/drbd
one() { "$LAB/g" 1 "$@" </dev/null; }
two() { "$LAB/g" 2 "$@" </dev/null; }
both() { one "$@"; two "$@"; }
# until_is WHAT COMMAND: waits until the command succeeds in guest 1.
until_is() {
    local begun=$SECONDS
    until one "$2" >/dev/null 2>&1; do
        if [ $((SECONDS - begun)) -ge 180 ]; then echo "NOT within 180 s: $1"; exit 1; fi
        sleep 0.5
    done
    echo "$1: after $((SECONDS - begun)) s"
}
DRBD_EQUAL='grep -q "cs:Connected.*UpToDate/UpToDate" /proc/drbd'
ours_equal() { echo "/tmp/shorefast replica status $1 --dir /srv/r --json | tr -d '\n ' | grep -q '\"peers\":\[{.*\"connection\":\"Established\".*\"disk\":\"UpToDate\"'"; }

up() {
    set -e
    strip -g -o "$LAB/share/shorefast" "$PROGRAM"
    rm -rf "$LAB/share/drbd-keys" "$OUT".*
    "$PROGRAM" init --cluster drbd-lab --node 1=10.77.0.1:7800 --node 2=10.77.0.2:7800 --out "$LAB/share/drbd-keys" >/dev/null
    # Of guests that ran before: both systems look at what a disk carries.
    [ -z "${DISKDIR:-}" ] && rm -f /dev/shm/lab/n*.raw
    (cd "$LAB" && DISK_MB=$((SIZE * 2 + 64)) SHARED_MB=$((SIZE + 16)) ./start-guests.sh 2)
    echo "-- DRBD"
    both "/share/drbd-up.sh C yes"
    sleep 2
    one "drbdadm -- --clear-bitmap new-current-uuid r0; drbdadm primary r0"
    until_is "DRBD's replicas are equal" "$DRBD_EQUAL"
    echo "-- ours"
    # Two partitions: a sector with a table is enough, and there is no program for it.
    both "python3 -c '
import struct
n = $SIZE * 2048 + 32768
t = b\"\".join(struct.pack(\"<B3sB3sII\", 0, b\"\", 0x83, b\"\", 2048 + i * n, n) for i in range(2))
open(\"/dev/lab/raw\", \"r+b\").write(bytes(446) + t + bytes(32) + b\"\\x55\\xaa\")
'; blockdev --rereadpt \$(readlink -f /dev/lab/raw)
        modprobe nbd; cp /share/shorefast /tmp/; mkdir -p /srv/r"
    for at in "C 7801 1 0" "A 7802 2 1"; do
        read -r name port part nbd <<<"$at"
        for n in 1 2; do
            "$LAB/g" $n "/tmp/shorefast replica create $name --dir /srv/r --local \$(readlink -f /dev/lab/raw)$part --peer $((3 - n))=10.77.0.$((3 - n)):$port --listen 10.77.0.$n:$port \
                --bundle /share/drbd-keys/node-$n.bundle --protocol $name && sed -i '1i metrics = \"off\"' /srv/r/$name.toml
                setsid /tmp/shorefast replica up $name --dir /srv/r >/srv/r/$name.log 2>&1 </dev/null &" </dev/null
        done
        until_is "replica $name answers" "/tmp/shorefast replica status $name --dir /srv/r"
        one "/tmp/shorefast replica primary $name --dir /srv/r --force"
        until_is "its replicas are equal" "$(ours_equal "$name")"
        one "nbd-client -unix /srv/r/$name.nbd /dev/nbd$nbd -N $name"
    done
    echo "-- our NBD server alone"
    one "setsid /tmp/shorefast nbd serve --disk \$(readlink -f /dev/lab/shared) --export plain --unix /srv/r/plain.nbd >/srv/r/plain.log 2>&1 </dev/null &"
    until_is "it serves" "[ -S /srv/r/plain.nbd ]"
    one "nbd-client -unix /srv/r/plain.nbd /dev/nbd2 -N plain"
    for device in drbd0 nbd0 nbd1 nbd2; do
        one "fio --name=f --filename=/dev/$device --size=${SIZE}M --bs=1M --rw=write --direct=1 --ioengine=libaio --iodepth=4 --output-format=terse --terse-version=3" | cut -d';' -f48 | sed "s/^/$device written once, KiB\/s: /"
    done
    one "cat /proc/drbd | tail -2; for d in drbd0 nbd0 nbd1 nbd2; do echo \$d: \$(blockdev --getsize64 /dev/\$d) bytes, cache \$(cat /sys/block/\$d/queue/write_cache), requests up to \$(cat /sys/block/\$d/queue/max_sectors_kb) KiB; done"
}

rounds() {
    local protocol='drbdadm net-options --protocol=%s r0; sleep 1'
    cat >"$OUT.json" <<J
{"wait_idle":0.3,"max_wait":15,"runtime":${RUNTIME:-3},"retries":2,"retry_other":0.3,"jobs":["randwrite:4k:1","randwrite:4k:16","write:128k:8"],
 "arms":[{"label":"raw","node":1,"target":"/dev/lab/shared","size":"${SIZE}M"},
 {"label":"nbd","node":1,"target":"/dev/nbd2","size":"${SIZE}M"},
 {"label":"drbdC","node":1,"target":"/dev/drbd0","size":"${SIZE}M","pre":"$(printf "$protocol" C)"},
 {"label":"oursC","node":1,"target":"/dev/nbd0","size":"${SIZE}M"},
 {"label":"drbdA","node":1,"target":"/dev/drbd0","size":"${SIZE}M","pre":"$(printf "$protocol" A)"},
 {"label":"oursA","node":1,"target":"/dev/nbd1","size":"${SIZE}M"}]}
J
    "$LAB/ab.py" "$OUT.csv" "$N" "$OUT.json"
}

# Seconds in guest 1 from the moment at which both may connect until both are equal, in $OUT.resync.
write_away="fio --name=w --direct=1 --ioengine=libaio --rw=write --bs=1M --iodepth=4 --size=${AWAY}M --output-format=terse --terse-version=3"
watch() { echo "t0=\$(cut -d' ' -f1 /proc/uptime); s=0; for i in \$(seq 1800); do x=\$($1); [ \$s = 0 ] && case \$x in *SyncSource*) s=\$(cut -d' ' -f1 /proc/uptime);; esac; [ \$s != 0 ] && $2 && break; sleep 0.1; done; echo \$t0 \$s \$(cut -d' ' -f1 /proc/uptime)"; }
resync() {
    for _ in $(seq "$N"); do
        two "drbdadm disconnect r0"; sleep 1
        one "$write_away --filename=/dev/drbd0 >/dev/null; drbdadm disconnect r0; drbdadm connect r0" 2>/dev/null
        two "drbdadm connect r0"
        one "$(watch 'cat /proc/drbd' '[[ $x == *Connected*UpToDate/UpToDate* ]]')" | sed "s/^/drbd $AWAY /" | tee -a "$OUT.resync"
        two "/tmp/shorefast replica disconnect C --dir /srv/r"; sleep 1
        one "$write_away --filename=/dev/nbd0 >/dev/null; /tmp/shorefast replica disconnect C --dir /srv/r; /tmp/shorefast replica connect C --dir /srv/r
            setsid /tmp/shorefast replica events C --dir /srv/r --follow >/tmp/events 2>&1 </dev/null & echo \$! >/tmp/events.pid"
        two "/tmp/shorefast replica connect C --dir /srv/r"
        # The last line of the peer counts.
        one "$(watch 'grep peer /tmp/events | tail -1; grep -o SyncSource /tmp/events | head -1' '[[ $x == *\"Established\"*\"UpToDate\"* || $x == *\"disk\":\"UpToDate\"*\"Established\"* ]]'); kill \$(cat /tmp/events.pid)" | sed "s/^/ours $AWAY /" | tee -a "$OUT.resync"
        one "$(ours_equal C)" || echo "NOT equal after it"
    done
}

table() {
    python3 - "$OUT" <<'P'
import collections, csv, os, statistics as st, sys
rows = collections.defaultdict(list)
for r in csv.reader(open(sys.argv[1] + '.csv')):
    if float(r[8]) < .3: rows[r[2], r[1]].append((float(r[3]), float(r[4]), float(r[6]), float(r[7])))
jobs = sorted({j for j, _ in rows}, key=['randwrite:4k:1', 'randwrite:4k:16', 'write:128k:8'].index)
for j in jobs:
    m = {a: [st.median(x[i] for x in rows[j, a]) for i in range(4)] for (k, a) in rows if k == j}
    for a in m:
        v = [x[0] for x in rows[j, a]]
        peer = {'oursC': 'drbdC', 'oursA': 'drbdA'}.get(a)
        beside = f"  {m[a][0] / m[peer][0]:.2f} of {peer}" if peer in m else ''
        print(f"{j:16} {a:6} n={len(v)} {m[a][0]:7.0f}/s ({min(v):.0f}-{max(v):.0f}) {m[a][1]:6.1f} MiB/s p50 {m[a][2]:6.0f} us p99 {m[a][3]:6.0f} us{beside}")
if os.path.exists(sys.argv[1] + '.resync'):
    speeds = collections.defaultdict(list)
    for line in open(sys.argv[1] + '.resync'):
        who, mib, begun, first, end = line.split()
        speeds[who].append((float(mib) / (float(end) - float(begun)), float(mib) / (float(end) - float(first))))
    for who, v in speeds.items():
        print(f"resync {who} n={len(v)} MiB/s from the connect {st.median(x[0] for x in v):.0f} ({min(x[0] for x in v):.0f}-{max(x[0] for x in v):.0f}), from the first word of it {st.median(x[1] for x in v):.0f}")
P
}

down() {
    rm -rf "$LAB/share/drbd-keys"
    "$LAB/stop-guests.sh"
}

case $STEP in
up | rounds | resync | table | down) $STEP ;;
*) echo "usage: drbd.sh LAB PROGRAM up|rounds|resync|table|down [N]"; exit 2 ;;
esac
