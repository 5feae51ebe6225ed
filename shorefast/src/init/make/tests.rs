use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::init::install;

fn nodes(list: &[&str]) -> Vec<NodeAddress> {
    list.iter().map(|s| s.parse().expect("a node")).collect()
}

#[test]
fn each_node_gets_one_bundle_with_all_nodes_and_the_key_is_its_owners_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("certs");
    let made = make("lab", &nodes(&["1=127.0.0.1:7440", "2=host-b:7440"]), &out).expect("makes");
    for path in made.bundles.iter().map(|(_, p)| p).chain([&made.ca_key]) {
        assert_eq!(fs::metadata(path).expect("is there").permissions().mode() & 0o777, 0o600);
    }
    let second = Bundle::load(&made.bundles[1].1).expect("a bundle");
    assert_eq!((second.node.number(), second.own_address()), (2, Some("host-b:7440")));
    assert_eq!(second.nodes.len(), 2);
    assert!(second.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(!format!("{second:?}").contains("PRIVATE"));
}

#[test]
fn a_second_init_into_the_same_folder_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let list = nodes(&["1=127.0.0.1:1"]);
    let made = make("lab", &list, dir.path()).expect("makes");
    let before = fs::read(&made.ca_key).expect("reads");
    assert_eq!(make("lab", &list, dir.path()).expect_err("refused").kind, Exit::Refused);
    assert_eq!(fs::read(&made.ca_key).expect("reads"), before);
}

#[test]
fn wrong_nodes_and_names_are_refused() {
    for wrong in ["1", "1=host", "1=:7440", "1=host:0", "0=h:1", "65=h:1", "1=h:99999", "1=a b:1"] {
        assert!(wrong.parse::<NodeAddress>().is_err(), "{wrong} was taken");
    }
    let dir = tempfile::tempdir().expect("a folder");
    for (cluster, list) in
        [("", vec!["1=h:1"]), ("a/b", vec!["1=h:1"]), ("ok", vec!["1=h:1", "1=h:2"]), ("ok", vec!["1=h:1", "2=h:1"])]
    {
        let refused = make(cluster, &nodes(&list), &dir.path().join("x")).expect_err("refused");
        assert_eq!(refused.kind, Exit::Usage);
    }
}

#[test]
fn a_bundle_is_installed_once_with_a_configuration_beside_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = make("lab", &nodes(&["1=127.0.0.1:1", "2=127.0.0.1:2"]), &dir.path().join("out")).expect("makes");
    let etc = dir.path().join("etc");
    let (bundle, written) = install(&made.bundles[0].1, &etc).expect("installs");
    assert_eq!(bundle.node.number(), 1);
    assert_eq!(written.len(), 2);
    let config = crate::config::Config::load(&etc.join("shorefast.toml")).expect("valid");
    assert_eq!(config.bundle, etc.join("node.bundle"));
    install(&made.bundles[0].1, &etc).expect("the same one again changes nothing");
    assert_eq!(install(&made.bundles[1].1, &etc).expect_err("another node's").kind, Exit::Refused);
}

#[test]
fn a_bundle_of_another_version_or_with_unknown_keys_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = make("lab", &nodes(&["1=127.0.0.1:1"]), dir.path()).expect("makes");
    let text = fs::read_to_string(&made.bundles[0].1).expect("reads");
    assert!(Bundle::parse(&text.replace("schema = 1", "schema = 9")).expect_err("refused").contains('9'));
    assert!(
        Bundle::parse(&text.replace("schema = 1", "schema = 1\ncolour = 2")).expect_err("refused").contains("colour")
    );
    assert!(Bundle::parse(&text.replace("\nnode = 1", "\nnode = 2")).expect_err("refused").contains("node-2"));
}
