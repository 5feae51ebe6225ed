//! A volume on a unit from its creation to its end, at plain addresses: what is taken, what is refused, what is shown, who may have the file
//! behind a unit open.

use std::process::Command;

use super::lab::Lab;
use crate::fixture::{Cluster, can_mount, path, run, until};

/// Longer than a target waits for the locks of one that was killed.
const ALMOST_AT_ONCE: std::time::Duration = std::time::Duration::from_secs(3);

#[test]
fn a_volume_on_two_portals_of_a_lun_is_mounted_on_three_nodes_written_and_read_from_all() {
    let Some(mut lab) = Lab::plain(3) else { return };
    lab.begin("fast");
    for n in lab.all() {
        lab.write(n, n as u64 - 1, n as u8);
    }
    let whole = [[1; 4096], [2; 4096], [3; 4096]].concat();
    for n in lab.all() {
        assert!(lab.read(n) == whole, "node {n} reads something else");
    }
    lab.until_well();
    let (keys, held) = lab.array.reservations();
    assert!(keys.len() >= 6 && held == "exclusive access, all registrants (type 8)", "{keys:?} {held}");
    for n in lab.all() {
        assert!(lab.array.keys_of(n).len() >= 2 && lab.array.sessions(n) >= 2, "node {n}: {keys:?}");
    }
    // What it says of itself.
    lab.cluster.ask(2, &["volume", "info", "v"]).expect(0, &["iSCSI", "untested on hardware", &lab.array.urls()[1]]);
    lab.cluster.ask(2, &["status"]).expect(0, &["untested on hardware"]);
    let volume = lab.cluster.volume(2, "v").expect("it runs");
    assert_eq!(volume["disks"].as_array().map(Vec::len), Some(2), "{volume}");
    assert_eq!((&volume["disk_kind"], &volume["disk_note"]), (&"iscsi".into(), &"untested on hardware".into()));
    let path = &lab.own_word(2)["paths"][0];
    assert!(path["name"].as_str().is_some_and(|name| name.contains("127.")) && path["detail"] == "ready", "{path}");
    lab.ends_well();
}

#[test]
fn who_makes_a_volume_on_a_unit_with_a_volatile_cache_is_told_what_that_means() {
    let words =
        "volatile write cache (WCE): what programs write is safe from a loss of power only once fsync has returned";
    for (caches, said) in [(true, 1), (false, 0)] {
        let such = |array: super::array::Array| if caches { array.that_caches() } else { array };
        let Some(mut lab) = Lab::with_array(1, such) else { return };
        lab.cluster.start(1);
        let made = lab.create("fast");
        made.expect(0, &[]);
        assert_eq!((made.out + &made.err).matches(words).count(), said, "a cache: {caches}");
    }
}

/// Nodes hear of a port group's state by a unit attention, and use the other; nobody's route changes.
#[test]
fn a_portal_group_that_is_told_to_be_standby_is_left_by_every_node_and_used_again_when_it_is_active() {
    let Some(mut lab) = Lab::plain(2) else { return };
    lab.begin("fast");
    lab.until_well();
    let moved = lab.all().map(|n| lab.count(n, "route-changed")).collect::<Vec<_>>();
    for (round, (group, other)) in (1..).zip([("1", "2"), ("2", "1")]) {
        lab.array.set_group(group, "standby").expect(0, &["standby", "active-optimized"]);
        for n in lab.all() {
            until(&format!("node {n} uses one path"), || lab.paths(n) == (1, 2));
            let paths = lab.own_word(n)["paths"].clone();
            let lost = paths.as_array().and_then(|p| p.iter().find(|p| p["ok"] == false)).cloned().unwrap_or_default();
            assert!(lost["detail"].as_str().is_some_and(|d| d.contains("standby")), "node {n}: {paths}");
            lab.write(n, n as u64 - 1, round * 10 + n as u8);
        }
        let there = [[round * 10 + 1; 4096], [round * 10 + 2; 4096]].concat();
        lab.all().for_each(|n| assert!(lab.read(n) == there, "node {n} reads something else through group {other}"));
        lab.array.set_group(group, "active-optimized").expect(0, &[]);
        lab.until_well();
    }
    assert_eq!(lab.all().map(|n| lab.count(n, "route-changed")).collect::<Vec<_>>(), moved);
    lab.ends_well();
}

#[test]
fn unmounted_on_all_nodes_no_registration_is_left() {
    let Some(mut lab) = Lab::plain(3) else { return };
    lab.begin("fast");
    lab.write(2, 0, 7);
    for n in lab.all() {
        lab.cluster.ask(n, &["volume", "unmount", "v"]).expect(0, &[]);
        assert!(lab.array.keys_of(n).is_empty(), "node {n}: {:?}", lab.array.reservations());
    }
    assert_eq!(lab.array.reservations(), (Vec::new(), "none".to_owned()));
    // Nobody has it: a command checks it on the unit, alone, and leaves nothing either.
    let socket = lab.cluster.socket(1);
    let checked = Command::new(crate::fixture::PROGRAM)
        .args(["--socket", &socket, "volume", "check", "v"])
        .env("SHOREFAST_ISCSI_INITIATOR", super::array::initiator(1))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.contains("Nothing is wrong"), "{said}");
    assert_eq!(lab.array.reservations(), (Vec::new(), "none".to_owned()));
    lab.cluster.ask(3, &["volume", "mount", "v"]).expect(0, &[]);
    assert!(lab.read(3) == [7; 4096]);
    assert_eq!(lab.cluster.stop(3), 0);
    assert_eq!(lab.array.reservations(), (Vec::new(), "none".to_owned()), "a daemon that ends in order unmounts");
}

#[test]
fn a_daemon_that_is_killed_and_started_again_takes_part_anew_and_leaves_no_old_key() {
    let Some(mut lab) = Lab::plain(3) else { return };
    lab.begin("fast");
    lab.write(3, 0, 9);
    let old = lab.array.keys_of(3);
    lab.cluster.kill(3);
    lab.cluster.start(3);
    until("node 3 has mounted it again", || lab.cluster.is_mounted(3));
    lab.until_well();
    assert!(lab.read(3) == [9; 4096]);
    until("no key of its dead life is left", || {
        lab.array.keys_of(3).is_disjoint(&old) && lab.array.keys_of(3).len() >= 2
    });
    lab.ends_well();
}

#[test]
fn a_unit_with_registrations_of_others_is_refused_and_they_are_named() {
    let Some(mut lab) = Lab::plain(1) else { return };
    lab.cluster.start(1);
    lab.array.outsider("register", None);
    lab.create("fast").expect(4, &["registered", "0x000000000badcafe", "127."]);
    assert_eq!(lab.array.reservations().0, ["0x000000000badcafe"], "nothing was changed");
    lab.array.outsider("leave", None);
    lab.create("fast").expect(0, &[]);
    // The same unit for another volume: it carries one, and is mounted.
    let urls = lab.array.urls();
    lab.cluster.ask(1, &["volume", "create", "w", "--disk", &urls[0]]).expect(4, &[]);
    lab.cluster.ask(1, &["volume", "unmount", "v"]).expect(0, &[]);
    lab.cluster.ask(1, &["volume", "create", "w", "--disk", &urls[0]]).expect(4, &["--wipe"]);
}

#[test]
fn a_secret_on_the_command_line_works_warns_and_is_stored_as_a_reference_only() {
    const SECRET: &str = "not-to-be-seen-1";
    let Some(mut lab) = Lab::plain(2) else { return };
    lab.array.kill();
    lab.array.asks_for("user", SECRET);
    lab.array.start(2);
    let secrets = |n: usize| lab.cluster.node_dir(n).join("secrets");
    for n in lab.all() {
        let more = format!(
            "iscsi_initiator = \"{}\"\niscsi_secrets = \"{}\"\n",
            super::array::initiator(n),
            path(&secrets(n))
        );
        lab.cluster.configure(n, &more);
    }
    let file = secrets(2);
    lab.cluster.start_all();
    let with = |account: &str| lab.array.urls().iter().map(|url| url.replace("iscsi://", account)).collect::<Vec<_>>();
    let create = |urls: &[String]| {
        lab.cluster.ask(1, &["volume", "create", "v", "--timing", "fast", "--disk", &urls[0], "--disk", &urls[1]])
    };
    create(&with("iscsi://user@")).expect(2, &["no secret of user", "secrets"]);
    let made = create(&with(&format!("iscsi://user%{SECRET}@")));
    made.expect(0, &["Warning: the secret in --disk", "user%***@"]);
    assert!(lab.cluster.is_mounted(1));
    // The other node has to be given it.
    until("node 2 says what it lacks", || {
        lab.own_word(2)["reason"].as_str().is_some_and(|r| r.contains("no secret of user"))
    });
    std::fs::write(&file, format!("user {SECRET}\n")).expect("written");
    until("node 2 has mounted it", || lab.cluster.is_mounted(2));
    let bundle = lab.cluster.dir.join("bundle.tar.gz");
    let config = lab.cluster.config(1);
    run(&["support-bundle", "--config", &config, "--out", path(&bundle)]);
    let unpacked = Command::new("tar").args(["-xOzf", path(&bundle)]).output().expect("tar runs").stdout;
    let mut said = vec![made.out, made.err, String::from_utf8_lossy(&unpacked).into_owned()];
    for n in lab.all() {
        let records = lab.cluster.node_dir(n).join("state/volumes");
        let texts =
            std::fs::read_dir(records).expect("a folder").map(|e| std::fs::read_to_string(e.expect("an entry").path()));
        said.extend(texts.map(|text| text.expect("text")));
        said.push(lab.cluster.log(n));
        for args in [&["status"][..], &["--json", "status"], &["volume", "info", "v"], &["--json", "events"]] {
            said.push(lab.cluster.ask(n, args).out);
        }
    }
    assert!(said.iter().any(|text| text.contains("iscsi://user@")), "the records name the account");
    for text in said {
        assert!(!text.contains(SECRET), "{text}");
    }
    assert!(
        std::fs::read_to_string(lab.cluster.node_dir(1).join("state/iscsi-secrets")).expect("kept").contains(SECRET)
    );
}

#[test]
fn disks_that_are_no_one_unit_are_refused_before_anything_is_touched() {
    let Some(mut lab) = Lab::plain(1) else { return };
    lab.cluster.start(1);
    let (urls, file) = (lab.array.urls(), lab.cluster.disk("file.img", 2 << 30));
    let create = |disks: &[&str]| {
        let mut args = vec!["volume", "create", "v"];
        disks.iter().for_each(|disk| args.extend(["--disk", disk]));
        lab.cluster.ask(1, &args)
    };
    create(&[&urls[0], &urls[0]]).expect(2, &["named twice"]);
    create(&[&urls[0], path(&file)]).expect(2, &["files and iSCSI units"]);
    create(&[path(&file), "/other"]).expect(2, &["several files"]);
    create(&["iscsi://127.0.0.1:1/iqn.2026-01.test:none/0"]).expect(1, &["127.0.0.1:1"]);
    let none = urls[0].replace("/0", "/7");
    create(&[&none]).expect(1, &[]);
    assert_eq!(lab.array.reservations(), (Vec::new(), "none".to_owned()));
}

/// The nodes of a host go by the locks of the file, those behind a unit by its reservations: neither would keep the other out.
#[test]
fn a_file_is_opened_by_daemons_of_its_host_or_served_by_a_target_never_both() {
    if !can_mount() {
        return;
    }
    let Some(mut lab) = Lab::plain(1) else { return };
    // Served: no daemon of this host, and no command, opens the file.
    lab.begin("fast");
    lab.write(1, 0, 5);
    let disk = lab.array.disk();
    let mut beside = Cluster::new(1);
    beside.start(1);
    beside
        .ask(1, &["volume", "create", "w", "--disk", path(&disk)])
        .expect(4, &["an iSCSI target of this host", path(&disk)]);
    run(&["volume", "check", "--disk", path(&disk)]).expect(4, &["an iSCSI target of this host"]);
    lab.cluster.ask(1, &["volume", "unmount", "v"]).expect(0, &[]);
    assert_eq!(lab.array.stop(), Some(0));
    run(&["volume", "check", "--disk", path(&disk)]).expect(0, &["Nothing is wrong"]);
    // Opened: no target serves it, but read-only.
    let opened = beside.create_volume("w");
    let (state, control) = (beside.dir.join("state"), beside.dir.join("control"));
    let serve = |lun: &str| {
        let mut command = Command::new(crate::fixture::PROGRAM);
        command.args(["target", "serve", "--lun", lun, "--portal", "127.0.0.1:0", "--state", path(&state)]);
        command.args(["--control", path(&control)]);
        command
    };
    let refused = serve(path(&opened)).output().expect("it runs");
    let said = String::from_utf8(refused.stderr).expect("UTF-8");
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("the daemon of node-1 has") && said.contains("Unmount the volume"), "{said}");
    beside.ask(1, &["volume", "unmount", "w"]).expect(0, &[]);
    // Now it is served, and the daemon that wants it again waits.
    let mut serving = serve(path(&opened)).stdout(std::process::Stdio::null()).spawn().expect("it runs");
    until("it is served", || run(&["target", "sessions", "--control", path(&control)]).code == 0);
    beside.ask(1, &["volume", "mount", "w"]).expect(1, &["an iSCSI target of this host has", "w.img"]);
    serving.kill().expect("it is our child");
    serving.wait().expect("it has ended");
    until("the daemon has it", || beside.volume(1, "w").is_some_and(|v| v["mount"].is_string()));
}

/// Its dead predecessor's locks are free once its last request has ended, and that may take a moment.
#[test]
fn a_target_that_is_started_while_another_still_has_its_disk_waits_for_it() {
    let Some(mut lab) = Lab::plain(1) else { return };
    let mut second = super::array::Array::new(
        lab.cluster.dir.join("second"),
        None,
        crate::fixture::addresses(1),
        crate::fixture::addresses(1).remove(0),
    );
    std::fs::remove_file(second.disk()).expect("there");
    std::fs::hard_link(lab.array.disk(), second.disk()).expect("the same file");
    second.spawn(1);
    std::thread::sleep(ALMOST_AT_ONCE);
    assert!(!second.listens(), "two targets serve one file");
    lab.array.kill();
    until("the second one serves", || second.listens());
}
