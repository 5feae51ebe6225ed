#!/bin/bash
# Runs public programs and suites against a mounted file system, by hand and as root: docs/posix.md has what came out.
#
#   tests/suites/posix.sh DIR [OTHER] [PROGRAM...]
#
# DIR is a folder that may be filled, on the volume or, to compare, on an ext4; OTHER the same folder through another
# node, or `-`. Without PROGRAM all are run. What Debian has is installed. Suites that it does not have are run where
# their built sources are: PJDFSTEST, XFSTESTS, CTHON, LTP name the folders; what is not named is said to be left out.
# Logs lie in $LOGS, or a folder that is told. Ends with 5 if anything failed.
set -u
dir=${1:?a folder on the file system}
other=${2:--}
shift $(($# < 2 ? $# : 2))
LOGS=${LOGS:-$(mktemp -d /tmp/posix.XXXXXX)}
failed=0

packages() {
  local missing
  missing=$(dpkg-query -W -f='${Status} ${Package}\n' fio stress-ng dbench sqlite3 qemu-utils fsmark bonnie++ acl attr \
    rsync git perl 2>&1 | grep -v '^install ok installed' | grep -o '[^ ]*$')
  [ -z "$missing" ] || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq fio stress-ng dbench sqlite3 qemu-utils \
    fsmark bonnie++ acl attr rsync git perl >"$LOGS/apt.log" 2>&1
}

# tell NAME COMMAND...: runs it in a new folder, with its log, and says whether it ended with 0.
tell() {
  local name=$1 begin=$SECONDS
  shift
  mkdir -p "$dir/$name" && cd "$dir/$name" || exit 1
  if timeout "${LIMIT:-900}" "$@" >"$LOGS/$name.log" 2>&1 </dev/null; then
    echo "$name: passed ($((SECONDS - begin)) s)"
    cd "$dir" && rm -rf "${dir:?}/$name"
  else
    echo "$name: FAILED with $? ($((SECONDS - begin)) s), see $LOGS/$name.log"
    failed=5
    cd "$dir" || exit 1
  fi
}

pjdfstest() { [ -n "${PJDFSTEST:-}" ] || { echo 'pjdfstest: left out'; return; }
  tell pjdfstest prove -r "$PJDFSTEST/tests"; }

fsx() { [ -n "${XFSTESTS:-}" ] || { echo 'fsx, fsstress: left out'; return; }
  local fsx="$XFSTESTS/ltp/fsx" n=${OPERATIONS:-2000}
  # -W and -R: shared mappings are refused (ENODEV).
  tell fsx-plain "$fsx" -R -W -q -N "$n" -S 0 f
  tell fsx-large "$fsx" -R -W -q -N "$n" -S 0 -l 10000000 -o 300000 f
  tell fsx-pieces "$fsx" -R -W -q -N "$n" -S 0 -l 10000000 -o 20000 f
  tell fsx-direct "$fsx" -R -W -Z -r 512 -w 512 -t 512 -q -N "$n" -S 0 f
  tell fsx-reopen "$fsx" -R -W -c 20 -q -N "$n" -S 0 f
  tell fsx-aio "$fsx" -R -W -A -q -N "$n" -S 0 f
  tell fsx-io_uring "$fsx" -R -W -U -q -N "$n" -S 0 f
  tell fsx-io_uring-direct "$fsx" -R -W -U -Z -r 512 -w 512 -t 512 -q -N "$n" -S 0 f
  tell fsstress "$XFSTESTS/ltp/fsstress" -d . -n 500 -p 4 -s "${SEED:-1}" -v; }

cthon() { [ -n "${CTHON:-}" ] || { echo 'cthon04: left out'; return; }
  local part
  for part in b g s l; do
    tell "cthon-$part" sh -c "cd '$CTHON' && NFSTESTDIR='$dir/cthon-$part/t' ./runtests -$part -f '$dir/cthon-$part/t'"
  done; }

# The built tests of system calls that need no device of their own, and of runtest/fs what can be given a folder.
ltp_list() {
  local test source
  find "$LTP/testcases/kernel/syscalls" -type f -perm -u+x -size +20k | sort | while read -r test; do
    source=$test.c
    case $test in *_64 | *_16 | *child* | */mmap/* | */io_submit/* | */fanotify/* | */ioctl/* | */chroot/*) continue ;; esac
    [ -f "$source" ] && ! grep -qE 'mount_device|all_filesystems|needs_device|format_device|needs_rofs|needs_hugetlbfs|needs_devfs' "$source" &&
      echo "$test"
  done
  local fs="$LTP/testcases/kernel/fs"
  cat <<TESTS
$fs/doio/growfiles -W gf01 -b -e 1 -u -i 0 -L 10 -w -C 1 -l -I r -T 10 -f glseek20 -S 2 -d .
$fs/doio/growfiles -W gf05 -b -e 1 -g 5000 -i 500 -t 49900 -T10 -c9 -I p -u -f gf07_ -d .
$fs/doio/growfiles -W gf09 -b -e 1 -u -r 1-5000 -R 0--1 -i 0 -L 10 -C 1 -I p -f g_rand12 -S 2 -d .
$fs/doio/growfiles -W gf11 -b -e 1 -u -r 1-5000 -i 0 -L 10 -C 1 -I L -f g_lio15 -S 2 -d .
$fs/doio/growfiles -W gf16 -b -e 1 -i 0 -L 20 -u -g 4090 -T 101 -t 408990 -l -C 10 -c 1000 -S 10 -f Lgf02_ -d .
$fs/doio/growfiles -W gf22 -D 0 -b -i 0 -L 10 -u -B 1000b -e 1 -g 20480 -T 10 -t 20480 -f gf-bldf -d .
$fs/doio/growfiles -W gf25 -D 0 -b -i 0 -L 10 -u -B 1000b -e 1 -r 1024000-2048000:2048 -R 4095-2048000 -T 1 -f gf-large -d .
$fs/doio/growfiles -W gf29 -b -D 0 -r 1-4096 -R 0-33554432 -i 0 -L 10 -C 1 -u -f gfsparse-3 -d .
$fs/doio/growfiles -W gf30 -D 0 -b -i 0 -L 10 -u -B 1000b -e 1 -o O_RDWR,O_CREAT,O_SYNC -g 20480 -T 10 -t 20480 -f gf-sync -d .
$fs/fs_inod/fs_inod . 5 5 2
$fs/openfile/openfile -f10 -t10
$fs/inode/inode01
$fs/lftest/lftest -n 20
$fs/stream/stream01
$fs/stream/stream02
$fs/stream/stream03
$fs/stream/stream04
$fs/stream/stream05
$fs/ftest/ftest01
$fs/ftest/ftest02
$fs/ftest/ftest03
$fs/ftest/ftest04
$fs/ftest/ftest05
$fs/ftest/ftest06
$fs/ftest/ftest07
$fs/ftest/ftest08
$fs/acl/acl_user_obj01
$fs/acl/acl_mask01
$fs/acl/acl_other01
$fs/acl/acl_inherit01
$fs/acl/acl_file_ops01
$fs/acl/acl_link01
TESTS
}

ltp() { [ -n "${LTP:-}" ] || { echo 'ltp: left out'; return; }
  local command name n=0
  export TMPDIR="$dir/ltp-tmp" LTPROOT="$LTP" LTP_COLORIZE_OUTPUT=n PATH="$PATH:$LTP/testcases/lib"
  mkdir -p "$TMPDIR" && chmod 1777 "$TMPDIR" && cd "$TMPDIR" || exit 1
  ltp_list | grep -E "${LTP_ONLY:-.}" >"$LOGS/ltp.list"
  while read -r command; do
    n=$((n + 1))
    name=$(basename "${command%% *}")
    # shellcheck disable=SC2086 # a command with its arguments
    (ulimit -n 1024; PATH="$PATH:$(dirname "${command%% *}")" timeout 180 $command >"$LOGS/ltp-$n-$name.log" 2>&1 </dev/null)
    echo "ltp $n-$name: $?"
  done <"$LOGS/ltp.list" >"$LOGS/ltp.txt"
  # 32 says that a test does not apply here.
  grep -vE ': (0|32)$' "$LOGS/ltp.txt" && failed=5
  echo "ltp: $(grep -c ': 0$' "$LOGS/ltp.txt") passed, $(grep -c ': 32$' "$LOGS/ltp.txt") do not apply," \
    "$(grep -cvE ': (0|32)$' "$LOGS/ltp.txt") failed"
  cd "$dir" && rm -rf "$TMPDIR"; }

programs() {
  tell fio-verify fio --name=v --size=64m --rw=randwrite --bs=512-128k --direct=1 --ioengine=io_uring --iodepth=8 \
    --verify=crc32c --verify_fatal=1 --do_verify=1 --bs_unaligned=0 --blockalign=512 --serialize_overlap=1
  tell fio-buffered fio --name=b --size=32m --rw=randrw --bsrange=1k-64k --ioengine=psync --verify=sha1 --verify_fatal=1 \
    --numjobs=2 --fsync=32
  tell dbench dbench -t 15 -c /usr/share/dbench/client.txt 2
  tell fs_mark fs_mark -d . -n 100 -s 10000 -t 2 -S 1
  tell bonnie bonnie++ -f -d . -u root -s 64 -r 32 -n 1 -q
  tell git-clone sh -ec 'git init -q -b main a; cd a; git config user.email a@b; git config user.name a
    cp -r /usr/share/perl/5.[0-9]*[0-9].[0-9]*/. .; git add -A; git commit -qm one; git gc -q; cd ..; git clone -q --no-hardlinks a b
    git clone -q --local a c; cd b; git fsck --strict; git status --porcelain | wc -l | grep -qx 0; cd ../c; git fsck'
  tell sqlite sh -ec 'for mode in delete truncate persist; do rm -f d.db*
    sqlite3 d.db "pragma journal_mode=$mode; create table t(a integer primary key, b);" >/dev/null
    (for i in 1 2 3 4 5 6 7 8 9 10; do sqlite3 -cmd ".timeout 60000" d.db "insert into t(b) values(hex(randomblob(3000)));"; done) &
    for i in 1 2 3 4 5 6 7 8 9 10; do sqlite3 -cmd ".timeout 60000" d.db "insert into t(b) values(hex(randomblob(3000)));"; done; wait
    test "$(sqlite3 d.db "select count(*) from t; pragma integrity_check")" = "20
ok"; done'
  tell sqlite-wal sh -ec 'sqlite3 d.db "pragma locking_mode=exclusive; pragma journal_mode=wal; create table t(a);
    insert into t values(1); select count(*) from t;"; test "$(sqlite3 d.db "pragma locking_mode=exclusive; select count(*) from t" | tail -1)" = 1'
  tell copies sh -ec 'mkdir a; cd a; echo x >f; ln f g; ln -s f h; mkfifo p; mknod n c 1 3; truncate -s 8M s; printf z | dd of=s seek=5 bs=1M conv=notrunc status=none
    setfattr -n user.k -v v f; setfacl -m u:1000:rw f; setfacl -d -m g:1000:rx .; chown 1000:1000 s; touch -d "2001-02-03 04:05:06.789" f; cd ..
    rsync -aHAX --numeric-ids --sparse a/ b/; test -z "$(rsync -aHAXn --numeric-ids -i --checksum a/ b/)"
    tar --acls --xattrs --selinux --sparse -cf t.tar a; mkdir c; tar --acls --xattrs -C c -xpf t.tar; test -z "$(rsync -aHAXn --numeric-ids -i --checksum a/ c/a/)"
    cp -a --sparse=always --reflink=auto a d; test -z "$(rsync -aHAXn --numeric-ids -i --checksum a/ d/)"; test $(stat -c %b b/s) -lt 8000'
  tell qemu-img sh -ec 'qemu-img create -q -f qcow2 a.qcow2 64M; qemu-io -c "write -P 7 1M 3M" -c "write -P 9 100k 7k" -c flush a.qcow2
    qemu-io -c "read -P 7 1M 3M" a.qcow2; qemu-img check a.qcow2; qemu-img convert -O raw a.qcow2 a.raw; qemu-img compare a.qcow2 a.raw
    qemu-img convert -t none -T none -O qcow2 -c a.raw b.qcow2; qemu-img check b.qcow2; qemu-img compare a.qcow2 b.qcow2'
}

stress() {
  local one
  for one in access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dup fallocate fcntl fiemap file-ioctl \
    filename flock fpunch fstat getdent hdd io iomix lease link locka lockf lockofd mknod open rename seek sendfile \
    splice symlink sync-file touch utime verity xattr; do
    tell "stress-ng-$one" stress-ng --"$one" 2 --timeout "${STRESS:-4}" --verify --temp-path . --metrics-brief
  done
}

# The same folder through two nodes at once.
both() {
  [ "$other" != - ] || { echo 'two nodes: left out'; return; }
  [ -z "${XFSTESTS:-}" ] || tell two-fsstress sh -c \
    "mkdir 1 2; '$XFSTESTS/ltp/fsstress' -d 1 -n 300 -p 2 -s 1 & '$XFSTESTS/ltp/fsstress' -d '$other/two-fsstress/2' -n 300 -p 2 -s 2; r=\$?; wait \$! && exit \$r"
  [ -z "${XFSTESTS:-}" ] || tell two-locktest sh -c \
    "'$XFSTESTS/src/locktest' f 2>&1 >server & for i in 1 2 3 4 5 6 7 8 9; do sleep 1; port=\$(awk '/server port/ { print \$3 }' server); [ -z \"\$port\" ] || break; done
     '$XFSTESTS/src/locktest' -p \$port -h localhost '$other/two-locktest/f' && wait \$! && cat server"
}

packages
mkdir -p "$LOGS"
[ $# -gt 0 ] || set -- pjdfstest fsx cthon ltp programs stress both
for group in "$@"; do "$group"; done
echo "logs: $LOGS"
exit "$failed"
