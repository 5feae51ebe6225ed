use super::*;

// The same maker of certificates as the integration tests use.
#[path = "../../tests/it/certs.rs"]
mod certs;
use certs::Authority;

const NODE_1: &str = "node-1.c7f3.shorefast.internal";

#[test]
fn a_nodes_name_is_its_certificates_only_dns_name() {
    assert_eq!(Authority::new().node(NODE_1).subject(), NODE_1);
}

fn refused(ca: &Authority, names: &[&str]) -> String {
    let (cert, key) = ca.certificate(names, |_| {});
    TlsMaterial::from_pem(ca.ca_pem(), cert, key).unwrap_err().to_string()
}

#[test]
fn a_certificate_without_exactly_one_name_with_a_cluster_is_refused() {
    let ca = Authority::new();
    assert!(refused(&ca, &[]).contains("exactly one DNS name expected, 0 found"));
    assert!(refused(&ca, &[NODE_1, "node-2.c7f3.shorefast.internal"]).contains("2 found"));
    assert!(refused(&ca, &["node-1"]).contains("names no cluster"));
}

#[test]
fn a_certificate_of_another_authority_is_found_at_start() {
    let (cert, key) = Authority::new().certificate(&[NODE_1], |_| {});
    let why = TlsMaterial::from_pem(Authority::new().ca_pem(), cert, key).unwrap_err().to_string();
    assert!(why.contains("not signed by this cluster's authority"), "{why}");
}

#[test]
fn an_expired_certificate_is_found_at_start() {
    let ca = Authority::new();
    let (cert, key) = ca.certificate(&[NODE_1], |p| p.not_after = rcgen::date_time_ymd(2001, 1, 1));
    let why = TlsMaterial::from_pem(ca.ca_pem(), cert, key).unwrap_err().to_string();
    assert!(why.contains("expired"), "{why}");
}

#[test]
fn a_certificate_for_servers_only_is_found_at_start() {
    let ca = Authority::new();
    let only = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let (cert, key) = ca.certificate(&[NODE_1], |p| p.extended_key_usages = only);
    assert!(matches!(TlsMaterial::from_pem(ca.ca_pem(), cert, key), Err(TlsError::Unusable(_))));
}

#[test]
fn a_key_of_another_certificate_is_found_at_start() {
    let ca = Authority::new();
    let (cert, _) = ca.certificate(&[NODE_1], |_| {});
    let (_, key) = ca.certificate(&[NODE_1], |_| {});
    assert!(matches!(TlsMaterial::from_pem(ca.ca_pem(), cert, key), Err(TlsError::Unusable(_))));
}

#[test]
fn text_that_is_no_pem_names_which_of_the_three_it_was() {
    let ca = Authority::new();
    let (cert, key) = ca.certificate(&[NODE_1], |_| {});
    let what = |ca: &str, cert: &str, key: &str| match TlsMaterial::from_pem(ca, cert, key) {
        Err(TlsError::Pem { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(what("nonsense", &cert, &key), "CA certificate");
    assert_eq!(what(&ca.ca_pem(), "", &key), "node certificate");
    assert_eq!(what(&ca.ca_pem(), &cert, ""), "node key");
}

#[test]
fn a_node_of_another_cluster_is_not_identified_even_under_the_same_authority() {
    let ca = Authority::new();
    let ours = ca.node(NODE_1);
    let (other, _) = ca.certificate(&["node-2.0000.shorefast.internal"], |_| {});
    let chain = certificates("test", other.as_bytes()).unwrap();
    let why = ours.identify(Some(&chain)).unwrap_err();
    assert_eq!(why, "node-2.0000.shorefast.internal is not of this cluster (c7f3.shorefast.internal)");
    assert!(ours.identify(None).is_err());
}
