#!/bin/bash
# Runs libiscsi's public suite for targets (Debian's libiscsi-bin) against `shorefast target serve` and against tgt in one run, by
# hand and as root; what is known of it is in docs/semantics/target.md.
#
#   tests/suites/iscsi.sh [TEST]
#
# TEST is a family, suite or test of iscsi-test-cu, such as SCSI.CompareAndWrite; ALL without. The program is SHOREFAST, or the one
# of the last build. Everything is on 127.0.0.1 and in a folder of its own, and gone at the end; logs lie in $LOGS, or a folder that
# is told. Ends with 5 if ours fails what tgt passes, but for what the standard makes wrong.
set -u
which=${1:-ALL}
root=$(cd "$(dirname "$0")/../.." && pwd)
program=${SHOREFAST:-${CARGO_TARGET_DIR:-$root/target}/debug/shorefast}
LOGS=${LOGS:-$(mktemp -d /tmp/iscsi.XXXXXX)}
wrong='GetLBAStatus.UnmapSingle WriteSame10.UnmapUntilEnd'
work=$(mktemp -d)
ours='' theirs=''
port=$((20000 + $$ % 5000)) control=$((20000 + $$ % 5000))

clean() {
  [ -z "$ours" ] || kill "$ours" 2>/dev/null
  # tgtd ignores SIGTERM while it has targets.
  [ -z "$theirs" ] || kill -KILL "$theirs" 2>/dev/null
  wait 2>/dev/null
  rm -rf "$work"
}
trap clean EXIT

for tool in iscsi-test-cu tgtd tgtadm; do
  command -v "$tool" >/dev/null || [ -x "/usr/sbin/$tool" ] || { echo "There is no $tool: ./setup --for test installs it."; exit 1; }
done
[ -x "$program" ] || { echo "There is no $program: build it first."; exit 1; }
PATH=$PATH:/usr/sbin

truncate -s 256M "$work/ours.img" "$work/tgt.img"
"$program" target serve --lun "file:$work/ours.img" --name iqn.2026-01.test:ours --state "$work/state" \
  --control "$work/control" --portal "127.0.0.1:$port" --portal "127.0.0.1:$((port + 1)),2" >"$work/ready" 2>"$LOGS/ours.err" &
ours=$!
for _ in $(seq 100); do grep -q ready "$work/ready" && break; sleep 0.1; done

mkdir -p /var/run/tgtd
tgtd -f -C "$control" --iscsi "portal=127.0.0.1:$((port + 2))" >"$LOGS/tgt.err" 2>&1 &
theirs=$!
admin() { tgtadm --lld iscsi -C "$control" --mode "$1" --op "$2" --tid 1 "${@:3}"; }
for _ in $(seq 100); do admin target new --targetname iqn.2026-01.test:tgt 2>/dev/null && break; sleep 0.1; done
admin logicalunit new --lun 1 --backing-store "$work/tgt.img"
admin logicalunit update --lun 1 --params thin_provisioning=1
admin target bind --initiator-address ALL

# SUITE.TEST and its verdict, a line each.
verdicts() {
  awk '/^Suite: /{suite=$2} /Test: /{sub(/.*Test: /,""); name=$1} /^passed|\.\.\.passed$/{print suite"."name, "passed"; name=""}
       /^FAILED|\.\.\.FAILED$/{print suite"."name, "FAILED"; name=""}' "$1" | sort -u
}

iscsi-test-cu --dataloss -v -t "$which" "iscsi://127.0.0.1:$port/iqn.2026-01.test:ours/0" \
  "iscsi://127.0.0.1:$((port + 1))/iqn.2026-01.test:ours/0" >"$LOGS/ours.log" 2>&1
iscsi-test-cu --dataloss -v -t "$which" "iscsi://127.0.0.1:$((port + 2))/iqn.2026-01.test:tgt/1" >"$LOGS/tgt.log" 2>&1
verdicts "$LOGS/ours.log" >"$work/ours"
verdicts "$LOGS/tgt.log" >"$work/tgt"
echo "ours: $(grep -c passed "$work/ours") passed, failed: $(awk '/FAILED/{printf "%s ", $1}' "$work/ours")"
echo "tgt:  $(grep -c passed "$work/tgt") passed, failed: $(awk '/FAILED/{printf "%s ", $1}' "$work/tgt")"
echo "logs: $LOGS"
behind=$(join "$work/ours" "$work/tgt" | awk '$2 == "FAILED" && $3 == "passed" {print $1}' | grep -vxF "${wrong// /$'\n'}")
[ -s "$work/ours" ] || { echo "The suite did not run against ours."; exit 5; }
[ -z "$behind" ] || { echo "Behind tgt: $behind"; exit 5; }
