#!/bin/bash
# The tests of a machine short of memory that need CAP_SYS_RESOURCE, which root of many containers lacks: dirty pages that only the daemon can take, in one
# small cgroup with it. Run are the project's own test program and daemon, in a guest whose root has every capability.
#
#   pressure.sh LAB TEST PROGRAM
#
# LAB is a folder with start-guests.sh, stop-guests.sh, a `g N COMMAND` that runs a command in guest N, and `share`, which is /share there. TEST is the
# program that `cargo test -p shorefast --test it --no-run` names, PROGRAM the `shorefast` that was built with it. The guest needs a disk /dev/lab/data of
# 3 GiB, fuse3, util-linux, and fuse and loop in the kernel.
#
# What is to be shown: the tests pass (the first does so not always, see docs/semantics/operators.md); and the same test with the same daemon, which only lacks the capability, stands still. So it is the capability, or rather
# what the daemon does with it (PR_SET_IO_FLUSHER), that keeps it going.
set -uo pipefail
LAB=$(realpath "${1:?"usage: pressure.sh LAB TEST PROGRAM"}")
TEST=$(realpath "${2:?"usage: pressure.sh LAB TEST PROGRAM"}")
PROGRAM=$(realpath "${3:?"usage: pressure.sh LAB TEST PROGRAM"}")
FAILED=0
DIRTY=pressure::dirty_pages_of_a_loop_device_on_the_mount_are_written_while_memory_is_nearly_full
CACHE=pressure::a_volume_is_written_while_the_page_cache_has_taken_what_memory_there_is

say() { printf '\n== %s\n' "$*"; }
wrong() { echo "WRONG: $*"; FAILED=$((FAILED + 1)); }
guest() { "$LAB/g" 1 "$@"; }

strip -g -o "$LAB/share/pressure-test" "$TEST" && strip -g -o "$LAB/share/pressure-shorefast" "$PROGRAM" || exit 1
(cd "$LAB" && DISK_MB=${DISK_MB:-4096} ./start-guests.sh 1) || exit 1
trap '[ -n "${KEEP_GUESTS:-}" ] || "$LAB/stop-guests.sh"' EXIT

# The test program starts the daemon by the path that it was built with.
guest "set -e
modprobe fuse || true; modprobe loop
[ -d /sys/fs/fuse/connections ] && mountpoint -q /sys/fs/fuse/connections || mount -t fusectl fusectl /sys/fs/fuse/connections
mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup; echo '+memory +io' >/sys/fs/cgroup/cgroup.subtree_control
mkfs.ext4 -q -F /dev/lab/data; mkdir -p /srv/test; mount /dev/lab/data /srv/test; mkdir -p /srv/test/tmp
cp /share/pressure-test /srv/test/it; cp /share/pressure-shorefast /srv/test/shorefast
printf '#!/bin/sh\nexec setpriv --bounding-set -sys_resource /srv/test/shorefast \"\$@\"\n' >/srv/test/without; chmod 755 /srv/test/without
mkdir -p $(dirname "$PROGRAM")" || exit 1
daemon_is() { guest "ln -sf /srv/test/$1 $PROGRAM"; }
test_of() { guest "cd /srv/test && TMPDIR=/srv/test/tmp timeout ${LIMIT:-560} ./it --exact --nocapture --include-ignored --test-threads=1 $* 2>&1 | cut -c1-400"; }

echo "$(guest uname -sr), cgroups of version 2, $(guest "sed -n 's/MemTotal: *//p' /proc/meminfo") of memory; capabilities of root: $(guest "sed -n 's/^CapEff:\t//p' /proc/self/status")"

for step in ${STEPS:-with without}; do
    case $step in
    with)
        daemon_is shorefast
        say "what such a daemon asks of the kernel at its start"
        out=$(test_of pressure::memory_that_a_privileged_daemon_asks_for_is_never_freed_by_writing_to_itself pressure::a_privileged_daemon_holds_its_memory)
        echo "$out" | grep -E '^test|skipped'
        grep -q 'test result: ok. 2 passed' <<<"$out" && ! grep -q skipped <<<"$out" || { wrong "not passed"; grep -aE -A1 'panicked' <<<"$out"; guest "dmesg | grep -E 'oom-kill|memory: usage' | cut -c1-200"; }
        say "300 MiB with little memory: through a loop device on the mount, and beside a page cache that has taken what there is"
        out=$(test_of $DIRTY $CACHE)
        echo "$out" | grep -E '^test|skipped'
        grep -q 'test result: ok. 2 passed' <<<"$out" && ! grep -q skipped <<<"$out" || { wrong "not passed"; grep -aE -A1 'panicked' <<<"$out"; guest "dmesg | grep -E 'oom-kill|memory: usage' | cut -c1-200"; }
        ;;
    without)
        daemon_is without
        say "the first of these with a daemon that lacks only CAP_SYS_RESOURCE: it has to stand still (found after 5 minutes)"
        out=$(test_of $DIRTY)
        echo "$out" | grep -E '^test|skipped|the writer hangs|without CAP_SYS_RESOURCE' | cut -c1-240
        grep -q 'the writer hangs' <<<"$out" && grep -q 'without CAP_SYS_RESOURCE' <<<"$out" || { wrong "it goes on"; echo "$out" | tail -20; }
        ;;
    esac
done
[ $FAILED -eq 0 ] && echo "ALL AS IT SHOULD BE" || { echo "$FAILED THINGS WRONG"; exit 1; }
