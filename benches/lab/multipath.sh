#!/bin/bash
# Our target under the Linux kernel's own initiator: open-iscsi over two portals, the unit's two paths joined by dm-multipath, reservations by sg_persist
# and mpathpersist, and an ext4 with verified load on the map while portals go, port groups change, the unit is reset and grows, and the target is
# restarted and killed. None of the programs that judge here is ours.
#
#   multipath.sh LAB PROGRAM [STEP...]
#
# LAB is a folder with start-guests.sh, stop-guests.sh, a `g N COMMAND` that runs a command in guest N, and `share`, which is /share there. PROGRAM is
# `shorefast`. Guest 1 serves a file on its /dev/lab/data (1 GiB, whose content is lost) and is another host that wants the unit; guest 2 uses it. The
# guests need open-iscsi, sg3-utils, multipath-tools, fio, e2fsprogs and udev, and in the kernel iscsi_tcp, sd_mod, sg, dm_multipath, dm_service_time and
# scsi_dh_alua. Steps that are not named are run all, in order; `discover` is needed by all others.
set -uo pipefail
LAB=$(realpath "${1:?"usage: multipath.sh LAB PROGRAM [STEP...]"}")
PROGRAM=$(realpath "${2:?"usage: multipath.sh LAB PROGRAM [STEP...]"}")
shift 2
IQN=iqn.2026-01.test:unit
HOSTS="iqn.2026-01.test:host1 iqn.2026-01.test:host2"
WAIT=${WAIT:-120}
FAILED=0

say() { printf '\n== %s\n' "$*"; }
wrong() { echo "WRONG: $*"; FAILED=$((FAILED + 1)); }
one() { "$LAB/g" 1 "$@" </dev/null; }
two() { "$LAB/g" 2 "$@" </dev/null; }
# shows WORDS WHERE COMMAND: prints what the command in guest WHERE says, and wants the words (an extended expression) in it.
shows() {
    local words=$1 where=$2 out
    shift 2
    out=$($where "$* 2>&1")
    echo "$out" | sed "s/^/  /" | head -"${LINES_OF:-12}"
    grep -qiE -- "$words" <<<"$out" || wrong "no \`$words\` of \`$*\`"
}
# refused WHERE COMMAND: the command has to fail.
refused() {
    local where=$1 out
    shift
    if out=$($where "$* 2>&1"); then wrong "\`$*\` was let through: $out"; else echo "  refused: $(grep -iE 'illegal|invalid|conflict|failed|error' <<<"$out" | tail -1)"; fi
}
# until_is WHAT WHERE COMMAND: waits until the command in guest WHERE succeeds.
until_is() {
    local what=$1 where=$2 begun=$SECONDS
    shift 2
    until $where "$*" >/dev/null 2>&1; do
        if [ $((SECONDS - begun)) -ge "$WAIT" ]; then wrong "NOT within $WAIT s: $what"; return 1; fi
        sleep 0.5
    done
    echo "$what: after $((SECONDS - begun)) s"
}

AT_A=10.77.0.1 AT_B=10.78.0.1
nic='$(grep -l ^52:54:00:00:02 /sys/class/net/*/address | cut -d/ -f5)'
serve() {
    one "cd /srv/san; setsid /tmp/shorefast -v target serve --lun file:/srv/san/unit.img --portal $AT_A:3260,1 --portal $AT_B:3260,2 --name $IQN \
        $(printf -- '--initiator %s ' $HOSTS) --low-space 16m --state /srv/san/state --control /run/target.sock >>/srv/san/log 2>&1 </dev/null & echo \$! >/run/target.pid"
    until_is "the target answers" one /tmp/shorefast target sessions --control /run/target.sock
}
guests_up() {
    strip -g -o "$LAB/share/shorefast" "$PROGRAM" || exit 1
    (cd "$LAB" && ./start-guests.sh 2) || exit 1
    for n in one two; do
        $n "udevadm control --ping 2>/dev/null || { /lib/systemd/systemd-udevd --daemon; udevadm trigger; udevadm settle; }
            for m in iscsi_tcp sd_mod sg dm_mod dm_multipath dm_service_time dm_round_robin scsi_dh_alua; do modprobe \$m || true; done
            ip addr add 10.78.0.\$(hostname | tr -d n)/24 dev $nic 2>/dev/null
            mkdir -p /run/lock/iscsi /etc/iscsi
            echo InitiatorName=iqn.2026-01.test:host\$(hostname | tr -d n) >/etc/iscsi/initiatorname.iscsi
            sed -i -e 's/^node.session.timeo.replacement_timeout.*/node.session.timeo.replacement_timeout = 5/' \
                -e 's/^node.conn\[0\].timeo.noop_out_\(interval\|timeout\).*/node.conn[0].timeo.noop_out_\1 = 2/' /etc/iscsi/iscsid.conf
            pidof iscsid >/dev/null || iscsid; true"
    done
    one "[ -e /tmp/shorefast ] || cp /share/shorefast /tmp/; mkdir -p /srv/san; mountpoint -q /srv/san || { mkfs.ext4 -q -F /dev/lab/data; mount /dev/lab/data /srv/san; truncate -s 256M /srv/san/unit.img; }"
    # What is found out by itself stays unsaid: checker, priorities, the handler for port groups.
    two "printf 'defaults {\n find_multipaths yes\n polling_interval 1\n max_polling_interval 2\n no_path_retry queue\n reservation_key 0x2222\n}\n' >/etc/multipath.conf
        pidof multipathd >/dev/null || multipathd; sleep 1; pidof multipathd" >/dev/null || wrong "no multipathd"
    one "kill -0 \$(cat /run/target.pid) 2>/dev/null" || serve
}
# The disk of a portal in guest 2, and the other host's.
disk() { two "iscsiadm -m session -P 3 | awk -v at=$1 '/Current Portal:/ { p = index(\$3, at \":\") == 1 } /Attached scsi disk/ && p { print \"/dev/\" \$4 }'"; }
find_disks() {
    A=$(disk $AT_A) B=$(disk $AT_B) MAP=/dev/mapper/$(two "multipath -l -v1 | head -1")
    OTHER=$(one "lsscsi | awk '/SHORFAST/ { print \$NF }' | head -1")
}
well() { until_is "both paths are ready" two "[ \$(multipath -ll | grep -c 'active ready running') = 2 ]"; }
# A program that writes blocks of random numbers on the map's ext4 and verifies them, round after round until the file /tmp/stop is there.
load_up() {
    two "rm -f /tmp/stop; setsid sh -c 'i=0; while [ ! -e /tmp/stop ]; do i=\$((i+1))
        fio --name=l --directory=/mnt/unit --size=8M --bs=16k --rw=randwrite --direct=1 --ioengine=libaio --iodepth=8 --end_fsync=1 --verify=crc32c --verify_fatal=1 --do_verify=1 \
            >/tmp/fio.out 2>&1 && echo \$i >>/tmp/rounds || { echo round \$i >>/tmp/bad; cat /tmp/fio.out >>/tmp/bad; sleep 1; }
    done; touch /tmp/stopped' >/dev/null 2>&1 </dev/null &"
}
rounds() { two "wc -l </tmp/rounds" 2>/dev/null || echo 0; }
gets_on() { local b; b=$(rounds); until_is "the load gets on from round $b" two "[ \$(wc -l </tmp/rounds) -gt $((b + 1)) ]"; }
no_errors() { two "[ ! -s /tmp/bad ]" || { wrong "the load saw errors"; two "head -20 /tmp/bad"; }; }
kernel_said() { two "dmesg -c" >"$LAB/run/dmesg.new"; cat "$LAB/run/dmesg.new" >>"$LAB/run/dmesg.all"; grep -E "${1:-.}" "$LAB/run/dmesg.new" | sed 's/^/  kernel: /' | head -"${LINES_OF:-12}"; }

step_discover() {
    say "discovery at one portal tells both; logins over both"
    shows "$AT_B:3260,2 $IQN" two "iscsiadm -m discovery -t st -p $AT_A"
    two "dmesg -c" >/dev/null
    two "iscsiadm -m node -T $IQN --login" | sed 's/^/  /'
    one "iscsiadm -m discovery -t st -p $AT_A >/dev/null; iscsiadm -m node -T $IQN -p $AT_A --login" >/dev/null || wrong "the other host cannot log in"
    until_is "two disks" two "[ \$(lsscsi | grep -c SHORFAST) = 2 ]"
    two "udevadm settle"
    until_is "a map" two "multipath -l -v1 | grep -q ."
    well
    find_disks
    echo "guest 2: $A and $B, $MAP; the other host: $OTHER"
    kernel_said
    shows SHORFAST two "lsscsi"
    one "/tmp/shorefast target sessions --control /run/target.sock" | sed 's/^/  /'
}
step_identify() {
    say "one unit by page 83h, through two target ports; what the kernel and the tools make of it"
    lets two "sg_vpd -p di_lu $A >/tmp/lu-a; sg_vpd -p di_lu $B | cmp - /tmp/lu-a"
    shows UUID two "sg_vpd -p di $A"
    shows alua two "multipath -ll"
    shows "LU|naa" two "sg_inq $A"
    two "cd /sys/block/${A#/dev/}; grep -H . device/access_state device/dh_state device/queue_depth queue/write_cache queue/fua queue/discard_max_bytes queue/write_zeroes_max_bytes \
        queue/logical_block_size queue/physical_block_size queue/optimal_io_size queue/max_sectors_kb /sys/class/scsi_disk/*/provisioning_mode /sys/class/scsi_disk/*/thin_provisioning" | sed 's/^/  /'
    LINES_OF=60 shows "Asymmetric|group" two "sg_rtpg -d $A"
    for ask in "sg_turs -v" "sg_readcap -l" "sg_luns" "sg_requests" "sg_modes -a" "sg_opcodes -n" "sg_vpd -p bl" "sg_vpd -p bdc" "sg_vpd -p lbpv" "sg_vpd -p sv" "sg_vpd -p ei" \
        "sg_logs -a" "sg_verify --lba=0 --count=8" "sg_sync" "sg_get_lba_status --lba=0 --brief" "sg_get_config"; do
        out=$(two "$ask $A 2>&1"); code=$?
        echo "  $ask: exit $code, $(wc -l <<<"$out") lines: $(head -1 <<<"$out" | cut -c1-100)"
    done
}
# What a nexus has to be told it is told once, before anything else.
keys() { LINES_OF=6 shows "${1:-.}" one "for i in 1 2 3 4; do sg_turs $OTHER >/dev/null 2>&1 && break; done; sg_persist -n -k $OTHER; sg_persist -n -r $OTHER"; }
register() { local where=$1 sd=$2 key=$3; $where "sg_persist -n -o -I --param-sark=$key $sd" >/dev/null || wrong "$sd is not registered with $key"; }
writes() { echo "dd if=/dev/zero of=$1 bs=4096 count=1 seek=4096 oflag=direct"; }
reads() { echo "dd if=$1 of=/dev/null bs=4096 count=1 skip=4096 iflag=direct"; }
lets() { local where=$1; shift; $where "$* 2>&1" >/dev/null || wrong "\`$*\` was refused"; }
step_reserve() {
    say "reservations by sg_persist: two nexuses of guest 2, one of another host"
    LINES_OF=30 shows "PTPL_A|APTPL|Persist Through" one "sg_persist -n -c $OTHER"
    register two "$A" 0x2a; register two "$B" 0x2b; register one "$OTHER" 0x1
    lets one "sg_persist -n -o --reserve --param-rk=0x1 --prout-type=8 $OTHER"
    keys "Exclusive Access, all registrants"
    LINES_OF=30 shows "iqn.2026-01.test:host2" one "sg_persist -n -s $OTHER"
    for d in "$A" "$B"; do lets two "$(writes "$d")"; lets two "$(reads "$d")"; done
    echo "-- nexus B gives its registration back: it may do nothing more, A may"
    lets two "sg_persist -n -o --register --param-rk=0x2b --param-sark=0 $B"
    refused two "$(writes "$B")"; refused two "$(reads "$B")"
    lets two "$(writes "$A")"; lets two "sg_turs $B"
    echo "-- the other host takes A out with PREEMPT AND ABORT, while A writes"
    two "rm -f /tmp/pr; (fio --name=p --filename=$A --offset=32M --size=64M --bs=64k --rw=randwrite --direct=1 --ioengine=libaio --iodepth=16 --time_based --runtime=60 >/tmp/pr.out 2>&1; echo \$? >/tmp/pr) >/dev/null 2>&1 </dev/null &"
    sleep 3
    lets one "sg_persist -n -o --preempt-abort --param-rk=0x1 --param-sark=0x2a --prout-type=8 $OTHER"
    until_is "the victim's program has ended" two "[ -s /tmp/pr ]"
    shows "error|exchange" two "cat /tmp/pr.out | head -5"
    refused two "$(writes "$A")"; refused two "$(reads "$A")"
    keys "1 registered"
    kernel_said
    echo "-- write exclusive, registrants only (5): who is not registered may read"
    lets one "sg_persist -n -o --release --param-rk=0x1 --prout-type=8 $OTHER"
    lets one "sg_persist -n -o --reserve --param-rk=0x1 --prout-type=5 $OTHER"
    keys "Write Exclusive, registrants only"
    lets two "$(reads "$A")"; refused two "$(writes "$A")"
    register two "$A" 0x2a
    lets two "$(writes "$A")"
    refused two "sg_persist -n -o --reserve --param-rk=0x2a --prout-type=8 $A"
    echo "-- moved to another nexus, and cleared"
    local isid; isid=$(one "/tmp/shorefast target sessions --control /run/target.sock" | awk '$1 ~ /host2/ && $4 == 2 { print $2 }')
    lets one "sg_persist -n -o --register-move --param-rk=0x1 --param-sark=0x2c --relative-target-port=2 --transport-id=iqn.2026-01.test:host2,i,$isid $OTHER"
    keys .
    lets two "sg_persist -n -o --clear --param-rk=0x2a $A"
    # The other registrants are told by a unit attention, once.
    shows "reservations preempted" one "sg_persist -n -k $OTHER"
    keys "NO registered"
    lets two "sg_turs $B; $(writes "$B")"
    say "the same by mpathpersist over the map: one command for all paths"
    lets two "mpathpersist --out --register --param-sark=0x2222 $MAP"
    lets two "mpathpersist --out --reserve --param-rk=0x2222 --prout-type=5 $MAP"
    LINES_OF=8 shows "0x2222" two "mpathpersist --in -k $MAP; mpathpersist --in -r $MAP"
    lets two "$(writes "$MAP")"; refused one "$(writes "$OTHER")"
    lets two "mpathpersist --out --release --param-rk=0x2222 --prout-type=5 $MAP"
    lets two "mpathpersist --out --register --param-rk=0x2222 --param-sark=0 $MAP"
    keys "NO registered"
}
step_blocks() {
    say "COMPARE AND WRITE, UNMAP, WRITE SAME by sg3-utils"
    two "head -c 512 /dev/zero | tr '\0' A >/tmp/a; head -c 512 /dev/zero | tr '\0' B >/tmp/b; cat /tmp/a /tmp/b >/tmp/ab; cat /tmp/b /tmp/a >/tmp/ba; dd if=/tmp/a of=$A bs=512 seek=2048 oflag=direct 2>/dev/null"
    lets two "sg_compare_and_write --in=/tmp/ab --lba=2048 --num=1 --xferlen=1024 $A"
    lets two "dd if=$B bs=512 skip=2048 count=1 iflag=direct 2>/dev/null | cmp - /tmp/b"
    shows "miscompare" two "sg_compare_and_write --in=/tmp/ab --lba=2048 --num=1 --xferlen=1024 $B"
    lets two "dd if=$A bs=512 skip=2048 count=1 iflag=direct 2>/dev/null | cmp - /tmp/b"
    lets two "sg_write_same --in=/tmp/a --lba=4096 --num=64 --xferlen=512 $A"
    lets two "dd if=$B bs=512 skip=4159 count=1 iflag=direct 2>/dev/null | cmp - /tmp/a"
    local before; before=$(one "du -k /srv/san/unit.img | cut -f1")
    two "dd if=/dev/urandom of=$A bs=1M seek=64 count=32 oflag=direct 2>/dev/null"
    one "sync /srv/san/unit.img; echo \"  the file takes \$(du -k /srv/san/unit.img | cut -f1) KiB, before it were $before\""
    lets two "sg_unmap --force --lba=131072 --num=32768 $A"
    # Its bound is a page's: 8 MiB.
    lets two "sg_write_same --unmap --lba=163840 --num=16384 $B && sg_write_same --unmap --lba=180224 --num=16384 $B"
    refused two "sg_write_same --unmap --lba=163840 --num=16385 $B"
    lets two "dd if=$B bs=1M skip=64 count=32 iflag=direct 2>/dev/null | cmp -n $((32 << 20)) - /dev/zero"
    one "echo \"  after UNMAP and WRITE SAME with UNMAP \$(du -k /srv/san/unit.img | cut -f1)\""
    shows "deallocated|mapped" two "sg_get_lba_status --lba=131072 $A"
    two "dd if=/dev/urandom of=$MAP bs=1M seek=64 count=8 oflag=direct 2>/dev/null"
    lets two "blkdiscard -o $((64 << 20)) -l $((8 << 20)) $MAP"
    lets two "blkdiscard -z -o $((80 << 20)) -l $((8 << 20)) $MAP"
    lets two "dd if=$MAP bs=1M skip=64 count=8 iflag=direct 2>/dev/null | cmp -n $((8 << 20)) - /dev/zero"
    kernel_said
    say "what does not exist is refused with a reason"
    for ask in "sg_start --stop $A" "sg_format --format --early --quick $A" "sg_sanitize --block --quick $A" "sg_unmap --force --lba=0xfffffff0 --num=1 $A" "sg_compare_and_write --in=/tmp/ab --lba=2048 --num=8 --xferlen=1024 $A"; do
        refused two "$ask"
    done
}
step_load() {
    say "ext4 on the map, and a verified load"
    lets two "mkfs.ext4 -q -F $MAP && mkdir -p /mnt/unit && mount -o discard $MAP /mnt/unit && rm -f /tmp/rounds /tmp/bad && touch /tmp/rounds"
    load_up
    gets_on
}
step_portals() {
    for at in $AT_B $AT_A; do
        say "portal $at is gone, and comes back"
        one "ip addr del $at/24 dev $nic"
        until_is "a path has failed" two "multipath -ll | grep -q 'failed faulty'"
        gets_on
        one "ip addr add $at/24 dev $nic"
        well
        gets_on
    done
    say "both are gone for 15 s: the load waits, and sees no error"
    # The address by which this script reaches the guest is another one.
    one "ip addr del $AT_A/24 dev $nic; ip addr del $AT_B/24 dev $nic"
    until_is "both paths have failed" two "[ \$(multipath -ll | grep -c 'failed faulty') = 2 ]"
    sleep 15
    one "ip addr add $AT_A/24 dev $nic; ip addr add $AT_B/24 dev $nic"
    well
    gets_on
    no_errors
    kernel_said 'iscsi|connection|multipath|alua|sd |scsi'
}
group_is() { two "sg_rtpg -d $A 2>/dev/null | grep -A1 'group id : 0x$1' | grep -q '$2'"; }
step_alua() {
    say "port groups change under load, by SET TARGET PORT GROUPS; multipath follows"
    for state in s u an ao; do
        lets two "sg_stpg --tp=2 --state=$state $A"
        echo "-- group 2: $state"
        shows . two "sleep 4; cat /sys/block/${B#/dev/}/device/access_state; multipath -ll | sed -n '3,\$p'"
        gets_on
    done
    well
    no_errors
    kernel_said
}
step_reset() {
    say "the unit is reset under load, and the target by a reset of its session"
    lets two "sg_reset -d $A"
    kernel_said
    gets_on
    lets two "sg_reset -t $A"
    gets_on
    no_errors
    kernel_said
}
step_size() {
    say "the unit grows under load"
    one "truncate -s 320M /srv/san/unit.img"
    until_is "the kernel was told" two "dmesg | grep -qi 'capacity data has changed'"
    kernel_said
    # open-iscsi's rescan makes the kernel read the size again; udev could do that by itself.
    two "iscsiadm -m session --rescan" >/dev/null
    until_is "both disks have the new size" two "[ \$(blockdev --getsize64 $A) = $((320 << 20)) ] && [ \$(blockdev --getsize64 $B) = $((320 << 20)) ]"
    lets two "multipathd resize map ${MAP#/dev/mapper/}"
    shows "$((320 << 20))" two "blockdev --getsize64 $MAP"
    lets two "resize2fs $MAP"
    gets_on
    no_errors
    kernel_said
}
step_space() {
    say "the file system below has less than 16 MiB left: the kernel is told once, the load goes on"
    one "fallocate -l \$((\$(stat -f -c '%a*%S' /srv/san)-12*1048576)) /srv/san/filler"
    until_is "the kernel was told" two "dmesg | grep -qi 'thin provisioning'"
    kernel_said
    one "rm /srv/san/filler"
    gets_on
    no_errors
}
step_restart() {
    register two "$A" 0x2a
    lets two "sg_persist -n -o -I --param-sark=0x2d --param-aptpl $B"
    say "the target is stopped in order (it asks for logouts first) and started again, under load; registrations survive"
    keys "2 registered"
    one "kill \$(cat /run/target.pid)"
    until_is "it has ended" one "! kill -0 \$(cat /run/target.pid) 2>/dev/null"
    serve
    well
    gets_on
    keys "2 registered"
    kernel_said 'iscsi|connection|multipath|alua|sd |scsi'
    say "it is killed and started again, under load"
    one "kill -9 \$(cat /run/target.pid)"
    sleep 2
    serve
    well
    gets_on
    keys "2 registered"
    no_errors
    lets two "sg_persist -n -o --clear --param-rk=0x2a $A"
    kernel_said 'iscsi|connection|multipath|alua|sd |scsi'
}
step_proof() {
    say "mutual CHAP with each hash, and both digests, at a target of its own"
    for hash in MD5 SHA1 SHA256 SHA3-256; do
        one "truncate -s 64M /srv/san/chap.img; SHOREFAST_ISCSI_SECRET=insecret12345 SHOREFAST_ISCSI_TARGET_SECRET=outsecret1234 setsid /tmp/shorefast target serve --lun file:/srv/san/chap.img \
            --portal $AT_A:3261 --name $IQN-chap --user inuser --target-user outuser --state /srv/san/state2 --control /run/target2.sock >>/srv/san/log2 2>&1 </dev/null & echo \$! >/run/target2.pid"
        until_is "it answers" one /tmp/shorefast target sessions --control /run/target2.sock
        two "N='iscsiadm -m node -T $IQN-chap -p $AT_A:3261'; \$N --op new >/dev/null
            put() { \$N --op update -n \$1 -v \$2; }
            put node.session.auth.authmethod CHAP; put node.session.auth.chap_algs $hash
            put node.session.auth.username inuser; put node.session.auth.password insecret12345
            put node.session.auth.username_in outuser; put node.session.auth.password_in outsecret1234
            put 'node.conn[0].iscsi.HeaderDigest' CRC32C; put 'node.conn[0].iscsi.DataDigest' CRC32C
            \$N --login 2>&1; sleep 2; D=/dev/\$(iscsiadm -m session -P 3 | awk '/$IQN-chap/ { p = 1 } /Attached scsi disk/ && p { print \$4; exit }')
            head -c 8M /dev/urandom >/tmp/r; dd if=/tmp/r of=\$D bs=1M oflag=direct 2>/dev/null; dd if=\$D bs=1M count=8 iflag=direct 2>/dev/null | cmp - /tmp/r && echo \"$hash: 8 MiB on \$D are there\"
            iscsiadm -m session -P 2 | sed -n '/$IQN-chap/,\$p' | grep -E 'Digest' | sort | uniq
            \$N --logout >/dev/null; put node.session.auth.password wrongsecret12; \$N --login >/dev/null 2>&1 && echo LET IN || echo 'with a wrong secret: refused'
            \$N --op delete" >"$LAB/run/proof" 2>&1
        sed 's/^/  /' "$LAB/run/proof" | grep -v 'Log'
        grep -q "$hash: 8 MiB" "$LAB/run/proof" && grep -q 'wrong secret: refused' "$LAB/run/proof" || wrong "$hash"
        one "kill \$(cat /run/target2.pid)"
        until_is "it has ended" one "! kill -0 \$(cat /run/target2.pid) 2>/dev/null"
    done
    kernel_said
}
step_end() {
    say "the load ends, the file system is in order, and nothing is left"
    two "touch /tmp/stop"
    until_is "the load has ended" two "[ -e /tmp/stopped ]"
    echo "$(rounds) rounds"
    no_errors
    lets two "umount /mnt/unit"
    shows "clean|files" two "e2fsck -fn $MAP"
    lets two "multipath -f ${MAP#/dev/mapper/}"
    lets two "iscsiadm -m node -T $IQN --logout"
    lets one "iscsiadm -m node -T $IQN --logout"
    one "/tmp/shorefast target sessions --control /run/target.sock" | sed 's/^/  /'
    one "kill \$(cat /run/target.pid)"
    until_is "the target has ended" one "! kill -0 \$(cat /run/target.pid) 2>/dev/null"
    echo "-- what it logged"
    one "grep -vi ready: /srv/san/log | sed 's/^[^ ]* *//; s/from=[^ ]* //' | sort | uniq -c | sort -rn | head -12" | cut -c1-200
    one "! grep -q panicked /srv/san/log" || wrong "it panicked"
    echo "-- what the kernel complained of"
    kernel_said xxx
    grep -iE 'invalid|unsupported|malformed|unexpected|sense key|protocol|error' "$LAB/run/dmesg.all" | sed 's/^\[[^]]*\] //; s/[0-9]\+/N/g' | sort | uniq -c | sort -rn | head -20
}
end() {
    [ -n "${KEEP_GUESTS:-}" ] || "$LAB/stop-guests.sh"
}
trap end EXIT
guests_up
one "dmesg -c" >/dev/null
: >"$LAB/run/dmesg.all"
find_disks 2>/dev/null
echo "$(two uname -sr), $(two "iscsid --version"), $(two "multipath -h 2>&1 | head -1"), $(two "sg_persist -V 2>&1")"
for step in ${*:-discover identify reserve blocks load portals alua reset size space restart proof end}; do step_$step; done
[ $FAILED -eq 0 ] && echo "ALL AS IT SHOULD BE" || { echo "$FAILED THINGS WRONG"; exit 1; }
