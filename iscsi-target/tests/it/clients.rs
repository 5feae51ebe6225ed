//! Initiators that others have written, on a target of ours: libiscsi's tools, and QEMU's through libiscsi.

use iscsi_target::{Lun, Portal, Target};

use crate::rig::{Rig, TARGET, run};

#[test]
fn libiscsis_tools_find_the_target_and_its_units() {
    let at = |group| Portal { address: "127.0.0.1:0".parse().expect("an address"), group };
    let rig = Rig::with(|rig| {
        let luns = (0..3).map(|n| Lun::new(n, rig.device(&format!("disk-{n}.img"), 8 << 20))).collect();
        Target { portals: vec![at(1), at(2)], ..rig.target(luns) }
    });
    let addresses = rig.server().addresses();
    let Some((good, text)) = run("iscsi-ls", 60, &["-s", &format!("iscsi://{}", addresses[0])]) else { return };
    assert!(good, "{text}");
    for portal in addresses.iter().zip(1..).map(|(a, group)| format!("Target:{TARGET} Portal:{a},{group}")) {
        assert!(text.contains(&portal), "{portal} in {text}");
    }
    for lun in 0..3 {
        assert!(text.contains(&format!("Lun:{lun}")), "{text}");
    }
    let (good, text) = run("iscsi-inq", 60, &[&rig.url(2)]).expect("comes with iscsi-ls");
    assert!(good && text.contains("Vendor:SHORFAST") && text.contains("DIRECT_ACCESS"), "{text}");
    let (good, text) = run("iscsi-readcapacity16", 60, &[&rig.url(1)]).expect("comes with iscsi-ls");
    assert!(good && text.contains("Total size:8388608"), "{text}");
    let (_, text) = run("iscsi-swp", 60, &["--swp=on", &rig.url(1)]).expect("comes with iscsi-ls");
    assert!(text.contains("SWP:0") && text.contains("Turning SWP ON"), "{text}");
    let (_, text) = run("iscsi-swp", 60, &[&rig.url(1)]).expect("comes with iscsi-ls");
    assert!(text.contains("SWP:1"), "{text}");
}

#[test]
fn qemu_writes_reads_discards_and_copies() {
    let rig = Rig::file(64 << 20);
    let url = rig.url(0);
    let Some((good, text)) = run("qemu-img", 60, &["info", "-f", "raw", &url]) else { return };
    if text.contains("Unknown protocol") {
        println!("skipped: qemu-img does not know iSCSI (./setup --for test installs qemu-block-extra)");
        return;
    }
    assert!(good && text.contains("64 MiB"), "{text}");
    let io = |commands: &[&str]| {
        let commands = commands.iter().flat_map(|c| ["-c", c]);
        let args: Vec<&str> = ["-f", "raw", "-d", "unmap"].into_iter().chain(commands).chain([url.as_str()]).collect();
        let (good, text) = run("qemu-io", 60, &args).expect("comes with qemu-img");
        assert!(good && !text.contains("failed") && !text.contains("rror"), "{text}");
    };
    io(&["write -P 0x41 0 4M", "write -P 0x42 17M 12k", "write -z 1M 64k", "flush"]);
    io(&["read -P 0x41 0 1M", "read -P 0 1M 64k", "read -P 0x42 17M 12k", "read -P 0 20M 1M"]);
    io(&["discard 0 4M", "read -P 0 0 4M"]);
    let dir = tempfile::tempdir().expect("a folder");
    let image = dir.path().join("copy.img").display().to_string();
    let (good, text) = run("qemu-img", 60, &["convert", "-f", "raw", "-O", "raw", &url, &image]).expect("there");
    assert!(good, "{text}");
    let (good, text) = run("qemu-img", 60, &["compare", "-f", "raw", "-F", "raw", &url, &image]).expect("there");
    assert!(good && text.contains("identical"), "{text}");
    // What was discarded takes no space.
    let blocks =
        std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(rig.dir.path().join("disk.img")).expect("the image"));
    assert!(blocks * 512 < 1 << 20, "{} bytes are allocated", blocks * 512);
}
