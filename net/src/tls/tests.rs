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

/// A client of the cluster and a server, in memory; what the two agreed upon, or why they did not.
fn shakes_hands(server: Arc<ServerConfig>, ca: &Authority, versions: &[&'static SupportedProtocolVersion]) -> Agreed {
    let mut roots = RootCertStore::empty();
    certificates("test", ca.ca_pem().as_bytes()).unwrap().into_iter().for_each(|der| roots.add(der).unwrap());
    let (cert, key) = ca.certificate(&["node-2.c7f3.shorefast.internal"], |_| {});
    let (chain, key) = (certificates("test", cert.as_bytes()).unwrap(), PrivateKeyDer::from_pem_slice(key.as_bytes()));
    let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key.unwrap())
        .unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), ServerName::try_from(NODE_1).unwrap()).unwrap();
    let mut server = rustls::ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok((client.protocol_version(), server.peer_certificates().is_some()))
}

type Agreed = Result<(Option<rustls::ProtocolVersion>, bool), rustls::Error>;

#[test]
fn between_nodes_tls_1_2_is_refused() {
    let ca = Authority::new();
    let ours = ca.node(NODE_1);
    let newer = rustls::ProtocolVersion::TLSv1_3;
    let older = rustls::ProtocolVersion::TLSv1_2;
    // Without our name in ALPN the two agree on a version, and the node looks at the name afterwards.
    assert_eq!(shakes_hands(Arc::clone(&ours.server), &ca, &[&TLS13]), Ok((Some(newer), true)));
    let refused = shakes_hands(Arc::clone(&ours.server), &ca, &[&TLS12]);
    assert!(matches!(refused, Err(rustls::Error::PeerIncompatible(_))), "{refused:?}");
    for (versions, agreed) in [(&[&TLS12][..], older), (&[&TLS12, &TLS13], newer)] {
        assert_eq!(shakes_hands(ours.foreign_server(), &ca, versions), Ok((Some(agreed), true)));
    }
}
