//! The support bundle: of a node that is well, of one whose daemon stands still, and of a host without a daemon.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::fixture::{Cluster, Ended, can_mount, path, run};

/// Every file of a bundle, by name.
fn unpacked(archive: &Path) -> BTreeMap<String, String> {
    let dir = archive.with_extension("unpacked");
    fs::create_dir(&dir).expect("a folder");
    let tar = Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(&dir).status().expect("tar runs");
    assert!(tar.success());
    let inner = fs::read_dir(&dir).expect("unpacked").next().expect("one folder").expect("readable").path();
    let entry = |e: fs::DirEntry| {
        let text = String::from_utf8_lossy(&fs::read(e.path()).expect("readable")).into_owned();
        (e.file_name().to_string_lossy().into_owned(), text)
    };
    fs::read_dir(inner).expect("a folder").map(|e| entry(e.expect("readable"))).collect()
}

/// What each part lacks, by name.
fn lacks(ended: &Ended) -> BTreeMap<String, Option<String>> {
    let parts = ended.json()["support_bundle"]["parts"].as_array().expect("parts").clone();
    let lacks = |p: &Value| p["lacks"].as_str().map(str::to_owned);
    parts.iter().map(|p| (p["name"].as_str().unwrap_or_default().to_owned(), lacks(p))).collect()
}

/// Lines of a PEM private key, which must be nowhere.
fn key_lines(bundle: &Path) -> Vec<String> {
    let text = fs::read_to_string(bundle).expect("a bundle");
    let key = text.split("PRIVATE KEY-----").nth(1).expect("it holds a key");
    let lines = key.split(['\n', '\\']).map(|l| l.trim_start_matches('n').to_owned());
    let lines: Vec<String> = lines.filter(|l| l.len() > 20).collect();
    assert!(!lines.is_empty(), "{text}");
    lines
}

#[test]
fn a_bundle_of_a_node_that_is_well_has_everything_and_no_secret() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(2);
    let (out, log) = (cluster.dir.join("b.tar.gz"), cluster.node_dir(1).join("log"));
    let config = cluster.config(1);
    let args = ["--json", "support-bundle", "--check", "--config", &config, "--out", path(&out), "--log", path(&log)];
    let ended = run(&args);
    let lacks = lacks(&ended);
    for (name, lack) in &lacks {
        // What the system does not let anybody have is not ours to have.
        assert!(lack.is_none() || ["kernel.log", "journal.log"].contains(&name.as_str()), "{name}: {lack:?}");
    }
    let files = unpacked(&out);
    let status: Value = serde_json::from_str(&files["status.json"]).expect("JSON");
    assert_eq!(status["volumes"][0]["name"], "v");
    assert!(files["events.jsonl"].contains("volume-mounted") && files["daemon.log"].contains("daemon-started"));
    let disk = &files["disk-v.txt"];
    for told in ["superblock at 0: generation", "lease block: epoch 1, node 1", "slot of node 1: ", "slot of node 2: "]
    {
        assert!(disk.contains(told), "{told}: {disk}");
    }
    assert!(files["check-v.json"].contains("\"clean\":true"), "{}", files["check-v.json"]);
    assert!(files["daemon.txt"].contains(&format!("is process {}", cluster.pid(1))), "{}", files["daemon.txt"]);
    assert!(files["CONTENTS.txt"].contains("disk-v.txt") && files["config.toml"].contains("fault_device = true"));
    assert!(files["bundle.toml"].contains("BEGIN CERTIFICATE"), "{}", files["bundle.toml"]);
    for line in key_lines(&cluster.bundle(1)) {
        for (name, text) in &files {
            assert!(!text.contains(&line), "{name} has a line of the private key");
        }
    }
    // Nothing is overwritten, and nothing is put where it may hang.
    cluster.ask(1, &["support-bundle", "--config", &config, "--out", path(&out)]).expect(4, &["cannot be written"]);
    let inside = cluster.mount(1, "v").join("b.tar.gz");
    cluster.ask(1, &["support-bundle", "--config", &config, "--out", path(&inside)]).expect(4, &["lies on a volume"]);
}

/// Everything that a bundle looks at may be what does not answer: the daemon is stopped, its mount with it, and a disk that
/// cannot even be opened without waiting for ever (a pipe without a writer stands for it).
#[test]
fn a_bundle_is_made_while_daemon_mount_and_disk_stand_still_and_says_what_is_missing() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with_volume(1);
    let pipe = cluster.dir.join("stuck-disk");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let record = format!(
        "id = \"0f\"\nname = \"stuck\"\ndisks = [\"{}\"]\nwanted = true\nversion = 1\ndeleted = false\n",
        pipe.display()
    );
    fs::write(cluster.node_dir(1).join("state/volumes/0f.toml"), record).expect("writes");
    let out = cluster.dir.join("b.tar.gz");
    cluster.signal(1, "STOP");
    let ended = run(&["--json", "support-bundle", "--config", &cluster.config(1), "--out", path(&out)]);
    cluster.signal(1, "CONT");
    assert_eq!(ended.code, 5, "{ended:?}");
    let lacks = lacks(&ended);
    for silent in ["status.json", "status.txt", "nodes.json", "events.jsonl", "disk-stuck.txt"] {
        let lack = lacks[silent].as_deref().unwrap_or_else(|| panic!("{silent} is there"));
        assert!(lack.contains("not done within"), "{silent}: {lack}");
    }
    let files = unpacked(&out);
    assert!(files["CONTENTS.txt"].contains("left out: it was not done within"), "{}", files["CONTENTS.txt"]);
    // What needs none of them is there.
    assert!(files["disk-v.txt"].contains("lease block: epoch 1"), "{}", files["disk-v.txt"]);
    let daemon = &files["daemon.txt"];
    assert!(daemon.contains("State:\tT (stopped)") && daemon.contains("/wchan"), "{daemon}");
    cluster.checks_clean(1);
}

#[test]
fn a_bundle_without_a_daemon_says_so_and_has_what_lies_on_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("shorefast.toml");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let text =
        format!("socket = \"{}\"\nstate_dir = \"{}\"\nbundle = \"{}\"\n", at("sock"), at("state"), at("node.bundle"));
    fs::write(&config, text).expect("writes");
    let out = dir.path().join("b.tar.gz");
    let ended = run(&["support-bundle", "--config", path(&config), "--out", path(&out)]);
    ended.expect(5, &["left out: it ended with 3: shorefast: No daemon runs here", "Wrote ", "system.txt"]);
    assert!(unpacked(&out)["system.txt"].contains("== /proc/version"));
}
