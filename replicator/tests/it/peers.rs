//! libnbd's and QEMU's tools as clients.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Stdio};

use super::rig::{Served, exported, installed, memory, must, pattern, run, until};
use replicator::nbd::Export;

const SIZE: u64 = 64 << 20;
const MIB: u64 = 1 << 20;

#[test]
fn nbdinfo_shows_exports_flags_and_contexts() {
    if !installed(&["nbdinfo"]) {
        return;
    }
    let device = memory(SIZE);
    let served = Served::new([exported(&device), Export::new("second", device.clone()).read_only(true)]);
    let shown = must("nbdinfo", &["--json", &served.uri("disk")]);
    for word in [
        "\"protocol\": \"newstyle-fixed\"",
        "\"structured\": true",
        "\"export-size\": 67108864",
        "\"base:allocation\"",
        "\"block_size_minimum\": 512",
        "\"block_size_preferred\": 4096",
        "\"block_size_maximum\": 33554432",
        "\"can_multi_conn\": true",
        "\"can_flush\": true",
        "\"can_fua\": true",
        "\"can_trim\": true",
        "\"can_zero\": true",
        "\"can_fast_zero\": true",
        "\"can_df\": true",
        "\"can_cache\": true",
        "\"is_read_only\": false",
    ] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    let listed = must("nbdinfo", &["--list", &served.uri("")]);
    assert!(listed.contains("export=\"disk\"") && listed.contains("export=\"second\""), "{listed}");
    assert!(run("nbdinfo", &["--is", "readonly", &served.uri("second")]).ok);
    assert!(!run("nbdinfo", &["--is", "readonly", &served.uri("disk")]).ok);
    let none = run("nbdinfo", &[&served.uri("nobody")]);
    assert!(!none.ok && none.err.contains("No such file or directory for export: nobody"), "{none:?}");
}

/// A sparse file with some data, the rest of it holes.
fn sparse(path: &std::path::Path) -> Vec<u8> {
    let file = fs::File::create(path).expect("a file");
    file.set_len(SIZE).expect("sized");
    let mut whole = vec![0; SIZE as usize];
    for (n, at) in [0, 5 * MIB, 40 * MIB, SIZE - MIB].into_iter().enumerate() {
        let data = pattern(MIB as usize - n * 4096, n as u64);
        file.write_all_at(&data, at).expect("written");
        whole[at as usize..at as usize + data.len()].copy_from_slice(&data);
    }
    whole
}

/// MiB that a file takes on its disk.
fn allocated(path: &std::path::Path) -> u64 {
    fs::metadata(path).expect("it is there").blocks() * 512 / MIB
}

#[test]
fn nbdcopy_copies_in_and_out_over_many_connections_and_holes_stay_holes() {
    if !installed(&["nbdcopy", "nbdinfo"]) {
        return;
    }
    let (served, _device) = Served::file(SIZE);
    let (source, back, disk) =
        (served.folder().join("source"), served.folder().join("back"), served.folder().join("disk.img"));
    let whole = sparse(&source);
    let uri = served.uri("disk");
    must("nbdcopy", &["--connections=4", "--flush", &source.display().to_string(), &uri]);
    assert!(fs::read(&disk).expect("the image") == whole);
    if allocated(&source) > 8 {
        println!("skipped: the file system below {} has no holes", served.folder().display());
        return;
    }
    assert!(allocated(&disk) <= 8, "{} MiB are allocated", allocated(&disk));
    must("nbdcopy", &["--connections=4", &uri, &back.display().to_string()]);
    assert!(fs::read(&back).expect("the copy") == whole);
    assert!(allocated(&back) <= 8, "{} MiB are allocated", allocated(&back));
    let totals = must("nbdinfo", &["--map", "--totals", &uri]);
    assert!(totals.contains("hole,zero") && totals.contains("data"), "{totals}");
}

#[test]
fn qemu_img_converts_compares_and_maps() {
    if !installed(&["qemu-img"]) {
        return;
    }
    let (served, _device) = Served::file(SIZE);
    let (source, disk) = (served.folder().join("source"), served.folder().join("disk.img"));
    let whole = sparse(&source);
    let (source, uri) = (source.display().to_string(), served.uri("disk"));
    // What stood there before must not shine through: convert zeroes what it does not write.
    fs::File::options().write(true).open(&disk).and_then(|f| f.write_all_at(&[0xaa; 8192], 20 * MIB)).expect("dirt");
    must("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &source, &uri]);
    assert!(fs::read(&disk).expect("the image") == whole);
    must("qemu-img", &["compare", "-f", "raw", "-F", "raw", &source, &uri]);
    let map = must("qemu-img", &["map", "-f", "raw", "--output=json", &uri]);
    let of_source = must("qemu-img", &["map", "-f", "raw", "--output=json", &source]);
    let stretches = |map: &str| map.matches("\"data\": true").count();
    if stretches(&of_source) > 1 {
        assert_eq!(stretches(&map), stretches(&of_source), "{map} beside {of_source}");
        assert!(allocated(&disk) <= 8, "{} MiB are allocated", allocated(&disk));
    }
    let back = served.folder().join("back.qcow2").display().to_string();
    must("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, &back]);
    must("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", &back, &source]);
}

#[test]
fn qemu_io_writes_zeroes_discards_and_flushes() {
    if !installed(&["qemu-io"]) {
        return;
    }
    let (served, _device) = Served::file(SIZE);
    let uri = served.uri("disk");
    let io = |commands: &[&str]| {
        let mut args = vec!["-f", "raw", "-t", "none"];
        commands.iter().for_each(|c| args.extend(["-c", c]));
        args.push(&uri);
        let out = must("qemu-io", &args);
        assert!(!out.contains("failed") && !out.contains("error"), "{out}");
    };
    io(&[
        "write -P 0x5a 0 1M",
        "write -f -P 0xa5 1M 64k",
        "aio_write -P 0x11 2M 4k",
        "aio_write -P 0x22 3M 512",
        "aio_flush",
        "flush",
        "read -P 0x5a 0 1M",
        "read -P 0xa5 1M 64k",
        "read -P 0x11 2M 4k",
        "read -P 0x22 3M 512",
    ]);
    io(&["write -z 0 64k", "write -z -u 64k 64k", "discard 128k 64k", "write -z -u -f 4M 16M"]);
    io(&["read -P 0 0 128k", "read -P 0x5a 192k 64k", "read -P 0 4M 16M"]);
    let ran = run("qemu-io", &["-f", "raw", "-c", "write 0 512", "-c", "write 63M 2M", &uri]);
    assert!(ran.out.contains("failed") || ran.err.contains("failed") || !ran.ok, "beyond the end: {ran:?}");
}

#[test]
fn read_only_export_is_not_written() {
    if !installed(&["qemu-io", "nbdcopy"]) {
        return;
    }
    let served = Served::new([Export::new("disk", memory(SIZE)).read_only(true)]);
    let uri = served.uri("disk");
    let refused = run("qemu-io", &["-f", "raw", "-c", "write 0 4k", &uri]);
    assert!(!refused.ok && refused.err.contains("Permission denied"), "{refused:?}");
    let file = served.folder().join("f");
    fs::write(&file, [1; 4096]).expect("a file");
    assert!(!run("nbdcopy", &[&file.display().to_string(), &uri]).ok);
    must("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0 0 1M", &uri]);
}

#[test]
fn size_that_has_changed_is_told_to_the_next_client() {
    if !installed(&["nbdinfo", "qemu-io"]) {
        return;
    }
    let (served, _device) = Served::file(SIZE);
    let (uri, disk) = (served.uri("disk"), served.folder().join("disk.img"));
    let size = || must("nbdinfo", &["--size", &uri]).trim().parse::<u64>().expect("a number");
    assert_eq!(size(), SIZE);
    let grow = |to| fs::File::options().write(true).open(&disk).and_then(|f| f.set_len(to)).expect("resized");
    grow(2 * SIZE);
    assert_eq!(size(), 2 * SIZE);
    must("qemu-io", &["-f", "raw", "-c", "write -P 7 127M 1M", "-c", "read -P 7 127M 1M", &uri]);
    grow(SIZE / 2);
    assert_eq!(size(), SIZE / 2);
}

/// What its user may do with libnbd from Python: the finer things that no tool asks for.
#[test]
fn libnbd_finds_every_command_as_its_manual_says() {
    if !installed(&["nbdsh"]) {
        return;
    }
    let (served, _device) = Served::file(SIZE);
    let script = r#"
import errno
other = nbd.NBD()
other.connect_uri(uri)
h.add_meta_context("base:allocation")
h.connect_uri(uri)
assert h.can_meta_context("base:allocation") and h.can_df() and h.get_block_size(nbd.SIZE_MINIMUM) in (512, 4096)
data = bytes(range(256)) * 256
h.pwrite(data, 0)
other.flush()
assert other.pread(65536, 0) == data
h.pwrite(data, 65536, nbd.CMD_FLAG_FUA)
chunks = []
h.pread_structured(131072, 0, lambda buf, off, status, err: chunks.append((off, len(buf), status)), nbd.CMD_FLAG_DF)
assert chunks == [(0, 131072, nbd.READ_DATA)], chunks
extents = []
h.block_status(1 << 20, 0, lambda name, off, entries, err: extents.extend(entries))
assert sum(extents[0::2]) >= 131072, extents
extents.clear()
h.block_status(1 << 20, 0, lambda name, off, entries, err: extents.extend(entries), nbd.CMD_FLAG_REQ_ONE)
assert len(extents) == 2 and extents[0] <= 1 << 20, extents
h.zero(65536, 0, nbd.CMD_FLAG_NO_HOLE)
h.zero(65536, 65536, nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(131072, 0) == bytes(131072)
h.trim(1 << 20, 0, nbd.CMD_FLAG_FUA)
h.cache(1 << 20, 0)
h.set_strict_mode(0)
for call, number in [
    (lambda: h.pread(4096, 1 << 30), errno.EINVAL),
    (lambda: h.pwrite(bytes(4096), 1 << 30), errno.ENOSPC),
    (lambda: h.pread(100, 0), errno.EINVAL),
    (lambda: h.trim(1 << 20, 1 << 30), errno.EINVAL),
    (lambda: h.flush(1 << 14), errno.EINVAL),
]:
    try:
        call()
        assert False, "not refused"
    except nbd.Error as e:
        assert e.errnum == number, e
assert h.pread(4096, 0) == bytes(4096)
cookies = [h.aio_pread(nbd.Buffer(4096), n * 4096) for n in range(100)]
while cookies:
    h.poll(-1)
    cookies = [c for c in cookies if not h.aio_command_completed(c)]
h.shutdown()
other.shutdown()
"#;
    let uri = format!("uri = '{}'", served.uri("disk"));
    must("nbdsh", &["-c", &uri, "-c", script]);
}

#[test]
fn client_that_is_killed_in_the_middle_hurts_nobody() {
    if !installed(&["nbdcopy"]) {
        return;
    }
    let (served, device) = Served::file(1 << 30);
    let source = served.folder().join("source");
    fs::File::create(&source).and_then(|f| f.write_all_at(&pattern(24 << 20, 1), 0)).expect("a file");
    let mut command = Command::new("nbdcopy");
    command.args(["--destination-is-zero", &source.display().to_string(), &served.uri("disk")]);
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("nbdcopy starts");
    let disk = served.folder().join("disk.img");
    until("it has begun", || fs::metadata(&disk).is_ok_and(|m| m.blocks() > 0));
    child.kill().expect("killed");
    child.wait().expect("ended");
    drop(device);
    let mut served = served;
    must("nbdcopy", &[&source.display().to_string(), &served.uri("disk")]);
    served.stop().wait().expect("it stops");
    let mut begin = vec![0; 24 << 20];
    fs::File::open(&disk).and_then(|f| f.read_exact_at(&mut begin, 0)).expect("read");
    assert!(begin == pattern(24 << 20, 1));
}

#[test]
fn many_clients_copy_at_once() {
    if !installed(&["nbdcopy"]) {
        return;
    }
    let disks: Vec<_> = (0..8).map(|_| memory(4 << 20)).collect();
    let served = Served::new(disks.iter().enumerate().map(|(n, d)| Export::new(format!("d{n}"), d.clone())));
    std::thread::scope(|scope| {
        for n in 0..disks.len() {
            let served = &served;
            scope.spawn(move || {
                let (from, to) = (served.folder().join(format!("f{n}")), served.folder().join(format!("t{n}")));
                fs::write(&from, pattern(4 << 20, n as u64)).expect("a file");
                let (from, uri) = (from.display().to_string(), served.uri(&format!("d{n}")));
                must("nbdcopy", &[&from, &uri]);
                must("nbdcopy", &[&uri, &to.display().to_string()]);
                assert!(fs::read(&to).expect("copied") == pattern(4 << 20, n as u64), "disk {n}");
            });
        }
    });
}
