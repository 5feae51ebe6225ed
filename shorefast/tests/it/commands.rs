//! Commands without a daemon: codes, sentences, JSON.

use std::fs;

use crate::fixture::{Cluster, path, run};

#[test]
fn a_command_without_a_daemon_says_how_to_start_one_and_exits_3() {
    let ended = run(&["--socket", "/nonexistent/api.sock", "status"]);
    ended.expect(3, &["No daemon runs here", "/nonexistent/api.sock", "shorefast daemon"]);
    assert!(ended.out.is_empty(), "{ended:?}");
}

#[test]
fn what_is_no_socket_is_not_taken_for_a_dead_daemons() {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, left) = (dir.path().join("file"), dir.path().join("left"));
    fs::write(&file, "").expect("writes");
    drop(std::os::unix::net::UnixListener::bind(&left).expect("a socket"));
    run(&["--socket", path(&file), "status"]).expect(2, &["is no socket"]);
    run(&["--socket", path(&left), "status"]).expect(3, &["is dead; only its socket is left"]);
}

#[test]
fn a_failure_is_json_when_json_is_asked_for() {
    let ended = run(&["--json", "--socket", "/nonexistent/api.sock", "volume", "list"]);
    let said: serde_json::Value = serde_json::from_str(&ended.err).expect("one object");
    assert_eq!((ended.code, &said["schema"], &said["error"]["kind"]), (3, &1.into(), &"not-found".into()));
    assert!(said["error"]["next"].as_str().is_some_and(|next| !next.is_empty()));
}

#[test]
fn what_is_no_command_exits_2_and_help_exits_0() {
    run(&["frobnicate"]).expect(2, &["frobnicate"]);
    run(&["volume", "create", "v"]).expect(2, &["--disk"]);
    run(&["volume", "move", "v", "--to", "node-99"]).expect(2, &["1 to 64"]);
    run(&["--help"]).expect(0, &["demo", "volume", "status"]);
    run(&["--version"]).expect(0, &[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn a_wrong_command_line_is_json_when_json_is_asked_for() {
    for args in [&["frobnicate", "--json"][..], &["--json", "volume", "create", "v"], &["--json", "init"]] {
        let ended = run(args);
        let said: serde_json::Value = serde_json::from_str(&ended.err).expect("one object");
        assert_eq!((ended.code, &said["schema"], &said["error"]["kind"]), (2, &1.into(), &"usage".into()), "{ended:?}");
        let text = |name: &str| said["error"][name].as_str().unwrap_or_default().to_owned();
        assert!(!text("message").contains("error: ") && !text("next").is_empty(), "{ended:?}");
    }
    run(&["--json", "--help"]).expect(0, &["demo", "volume", "status"]);
}

#[test]
fn a_bare_init_says_both_ways_to_go_on() {
    run(&["init"]).expect(2, &["--cluster NAME", "--node ID=HOST:PORT", "--out DIR", "--bundle FILE"]);
}

#[test]
fn a_value_of_the_wrong_type_exits_2_and_says_in_plain_words_what_is_expected() {
    let cluster = Cluster::new(1);
    cluster.configure(1, "allow_other = 3\n");
    run(&["daemon", "--config", &cluster.config(1)]).expect(2, &["`allow_other`: expected true or false, found `3`"]);
}

#[test]
fn children_of_the_demo_are_not_in_the_help() {
    assert!(!run(&["--help"]).out.contains("demo-"));
}

#[test]
fn a_configuration_with_an_unknown_key_exits_2_with_file_line_and_key() {
    let cluster = Cluster::new(1);
    cluster.configure(1, "colour = \"blue\"\n");
    let config = cluster.config(1);
    run(&["daemon", "--config", &config]).expect(2, &[&format!("{config}, line 8"), "`colour`"]);
}

#[test]
fn a_fault_device_without_debug_exits_2() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("c.toml");
    fs::write(&config, "fault_device = true\n").expect("writes");
    run(&["daemon", "--config", path(&config)]).expect(2, &["line 1", "debug = true"]);
}

#[test]
fn a_daemon_without_its_bundle_or_configuration_exits_3() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("c.toml");
    run(&["daemon", "--config", path(&config)]).expect(3, &["init --bundle"]);
    fs::write(&config, format!("bundle = \"{}/none\"\n", dir.path().display())).expect("writes");
    run(&["daemon", "--config", path(&config)]).expect(3, &["bundle", "init --cluster"]);
}

#[test]
fn a_bundle_is_installed_and_never_overwritten_by_another() {
    let cluster = Cluster::new(2);
    let etc = cluster.dir.join("etc");
    let install = |n: usize| run(&["init", "--bundle", path(&cluster.bundle(n)), "--etc", path(&etc)]);
    install(1).expect(0, &["node-1 of cluster test", "shorefast daemon --config"]);
    install(2).expect(4, &["holds another bundle"]);
}

#[test]
fn a_bundle_that_is_installed_into_a_relative_folder_is_found_from_everywhere() {
    let cluster = Cluster::new(1);
    let bundle = cluster.bundle(1);
    let mut command = std::process::Command::new(crate::fixture::PROGRAM);
    command.current_dir(&cluster.dir).args(["init", "--bundle", path(&bundle), "--etc", "etc"]);
    let done = command.output().expect("the program runs");
    assert!(done.status.success(), "{done:?}");
    let text = fs::read_to_string(cluster.dir.join("etc/shorefast.toml")).expect("it was written");
    let here = fs::canonicalize(&cluster.dir).expect("a folder");
    assert!(text.contains(&format!("\nbundle = \"{}/etc/node.bundle\"", here.display())), "{text}");
}

#[test]
fn a_demo_that_is_not_there_cannot_be_stopped_and_exits_3() {
    let dir = tempfile::tempdir().expect("a folder");
    run(&["demo", "--stop", path(dir.path())]).expect(3, &["no demo"]);
    assert!(dir.path().exists());
}
