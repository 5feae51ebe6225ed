#!/bin/bash
# The initiator on LIO, the target of the Linux kernel: reservations, COMPARE AND WRITE, port groups, CHAP with every hash.
# tgt and istgt, on which the tests run, have no PREEMPT AND ABORT, no port groups that change, and CHAP with MD5 only.
#
#   lio.sh target/debug/lab-lio
#
# As root, in a virtual machine: it loads kernel modules and makes targets on 127.0.0.1, ports 3260 to 3262, which it takes away
# again at the end. The kernel needs target_core_mod, target_core_file and iscsi_target_mod.
set -euo pipefail
PROGRAM=${1:?"usage: lio.sh PROGRAM"}
T=/sys/kernel/config/target
IQN=iqn.2026-01.test:lio
HOSTS="iqn.2026-01.test:host1 iqn.2026-01.test:host2"
UNIT=$T/core/fileio_0/shorefast
IMAGE=/dev/shm/shorefast-lio.img

for module in configfs target_core_mod target_core_file iscsi_target_mod; do modprobe "$module"; done
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
# Registrations that survive a loss of power are kept there.
mkdir -p /var/target/pr /var/target/alua /etc/target/pr /etc/target/alua

# Everything below what was made, deepest first: configfs has no other way.
clean() {
    local tpg acl
    for tpg in "$T"/iscsi/$IQN*/tpgt_*; do
        [ -d "$tpg" ] || continue
        echo 0 >"$tpg/enable" || true
        for acl in "$tpg"/acls/*; do
            [ -d "$acl" ] || continue
            rm -f "$acl/lun_0/unit"
            rmdir "$acl/lun_0" "$acl" || true
        done
        rm -f "$tpg/lun/lun_0/unit"
        rmdir "$tpg"/lun/lun_0 "$tpg"/np/* "$tpg" || true
    done
    rmdir "$T"/iscsi/$IQN* 2>/dev/null || true
    rmdir "$UNIT"/alua/g1 "$UNIT"/alua/g2 2>/dev/null || true
    rmdir "$UNIT" "$T/core/fileio_0" 2>/dev/null || true
    rm -f "$IMAGE"
}
trap clean EXIT

truncate -s 128M "$IMAGE"
mkdir -p "$UNIT"
echo "fd_dev_name=$IMAGE,fd_dev_size=$((128 << 20)),fd_buffered_io=1" >"$UNIT/control"
echo 5f0eca57000000000000000000000001 >"$UNIT/wwn/vpd_unit_serial"
echo 1 >"$UNIT/enable"
echo 1 >"$UNIT/attrib/emulate_write_cache"
echo 1 >"$UNIT/attrib/emulate_tpu" || echo "no UNMAP: this kernel's file backstore refuses it"

# A port group each, implicit and explicit.
for group in 1 2; do
    mkdir "$UNIT/alua/g$group"
    echo "$group" >"$UNIT/alua/g$group/tg_pt_gp_id"
    echo 3 >"$UNIT/alua/g$group/alua_access_type"
done

# portal_group TARGET TAG PORT AUTHENTICATION
portal_group() {
    local tpg=$T/iscsi/$1/tpgt_$2 host
    mkdir -p "$tpg/lun/lun_0" "$tpg/np/127.0.0.1:$3"
    ln -s "$UNIT" "$tpg/lun/lun_0/unit"
    echo "$4" >"$tpg/attrib/authentication"
    for host in $HOSTS; do
        mkdir -p "$tpg/acls/$host/lun_0"
        ln -s "$tpg/lun/lun_0" "$tpg/acls/$host/lun_0/unit"
        if [ "$4" = 1 ]; then
            # Without a line end: it would be part of the name.
            printf inuser >"$tpg/acls/$host/auth/userid"
            printf insecret12345 >"$tpg/acls/$host/auth/password"
            printf outuser >"$tpg/acls/$host/auth/userid_mutual"
            printf outsecret1234 >"$tpg/acls/$host/auth/password_mutual"
        fi
    done
    echo 1 >"$tpg/enable"
}
portal_group "$IQN" 1 3260 0
portal_group "$IQN" 2 3261 0
portal_group "$IQN-chap" 1 3262 1
echo g1 >"$T/iscsi/$IQN/tpgt_1/lun/lun_0/alua_tg_pt_gp"
echo g2 >"$T/iscsi/$IQN/tpgt_2/lun/lun_0/alua_tg_pt_gp"

echo "$(uname -sr), LIO $(cat "$T/version" 2>/dev/null || true)"
"$PROGRAM"
