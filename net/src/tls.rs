//! Mutual TLS by a cluster's own authority: 1.3 between nodes; clients of another protocol may speak 1.2.
//!
//! Each node has one certificate, signed by the cluster's CA, with exactly one DNS name as subject alternative
//! name: `node-2.CLUSTERID.shorefast.internal`. That name *is* the node. What is behind the first dot is the
//! cluster; a peer of another cluster is refused even if the same CA signed it.
//!
//! Both ends must show a certificate. Sessions are never resumed: each connection proves both names anew.
//! AES-128-GCM is preferred to AES-256: a third less work per byte, and no known weakness.
//!
//! **TLS 1.2** is for foreign clients alone ([`TlsMaterial::foreign_server`]): NBD's specification asks for it, and programs of some years ago
//! know nothing newer. Only what 1.3 has as well is offered: keys of a connection's own (ECDHE) and AEAD ciphers, and the extended master
//! secret is insisted on. What it lacks: the client's certificate, and so its name, is seen by who listens.
//!
//! Certificates are made by the `shorefast` binary; here they are only read. `from_pem` verifies the node's own
//! certificate as its peers will, so that a wrong or expired one is found at start and not by them.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::service::PeerIdentity;

/// What both ends name in ALPN: a TLS service that is not ours is told apart before HELLO.
const ALPN: &[u8] = b"shorefast";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No such item in the PEM text, or a damaged one.
    #[error("{what}: {why}")]
    Pem {
        /// Which of the three.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The certificate's names are not what a node's must be.
    #[error("the certificate's names: {0}")]
    Names(String),
    /// Key and certificate do not belong together, or the certificate is not of this CA, expired, or not for
    /// both client and server use.
    #[error("the node's own certificate would be refused: {0}")]
    Unusable(String),
}

/// A node's certificate and key, and its cluster's CA. Cheap to clone.
#[derive(Clone)]
pub struct TlsMaterial {
    subject: Arc<str>,
    pub(crate) server: Arc<ServerConfig>,
    foreign: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

impl TlsMaterial {
    /// Reads the CA's certificate, the node's certificate (and any between), and the node's key, all PEM.
    ///
    /// # Errors
    /// Anything that would make a peer refuse us.
    pub fn from_pem(ca: impl AsRef<[u8]>, cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for der in certificates("CA certificate", ca.as_ref())? {
            roots.add(der).map_err(|e| pem_error("CA certificate", &e))?;
        }
        let chain = certificates("node certificate", cert.as_ref())?;
        let key = PrivateKeyDer::from_pem_slice(key.as_ref()).map_err(|e| pem_error("node key", &e))?;
        let subject = subject_of(&chain[0]).map_err(TlsError::Names)?;
        Self::build(Arc::new(roots), chain, key, &subject)
    }

    fn build(
        roots: Arc<RootCertStore>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        subject: &str,
    ) -> Result<Self, TlsError> {
        let unusable = |e: &dyn std::fmt::Display| TlsError::Unusable(e.to_string());
        let provider = provider();
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| unusable(&e))?;
        check_own(&roots, &provider, &*clients, &chain, subject).map_err(|e| TlsError::Unusable(explain(&e)))?;
        let serves = |provider, versions: &[&'static SupportedProtocolVersion]| {
            let mut server = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(versions)?
                .with_client_cert_verifier(Arc::clone(&clients))
                .with_single_cert(chain.clone(), key.clone_key())?;
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
            server.require_ems = true;
            Ok::<_, rustls::Error>(server)
        };
        let mut server = serves(provider.clone(), &[&TLS13]).map_err(|e| unusable(&e))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        let foreign = serves(provider_of_foreign(), &[&TLS13, &TLS12]).map_err(|e| unusable(&e))?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| unusable(&e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| unusable(&e))?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        let (server, foreign, client) = (Arc::new(server), Arc::new(foreign), Arc::new(client));
        Ok(Self { subject: subject.into(), server, foreign, client })
    }

    /// This node's own name.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// How a server takes clients of this cluster that speak another protocol over TLS, such as NBD: the same
    /// certificates, TLS 1.2 besides 1.3, and no name of ours in ALPN. Whom it lets in is to be asked of
    /// [`identify`](Self::identify).
    pub fn foreign_server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.foreign)
    }

    /// Who the peer with this verified chain is, or why it may not talk to us.
    ///
    /// # Errors
    /// A sentence: no certificate, more or other names than a node's, another cluster.
    pub fn identify(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<PeerIdentity, String> {
        let cert = chain.and_then(<[_]>::first).ok_or("the peer showed no certificate")?;
        let subject = subject_of(cert)?;
        if cluster_of(&subject) != cluster_of(&self.subject) {
            let ours = cluster_of(&self.subject).unwrap_or_default();
            return Err(format!("{subject} is not of this cluster ({ours})"));
        }
        Ok(PeerIdentity { subject, proved: true })
    }
}

impl std::fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsMaterial({})", self.subject)
    }
}

/// Ring, with the cheaper cipher first.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..default_provider()
    })
}

/// The same for foreign clients, who may know TLS 1.2 only.
fn provider_of_foreign() -> Arc<CryptoProvider> {
    let older = [
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    let newer = CryptoProvider::clone(&provider());
    Arc::new(CryptoProvider { cipher_suites: [newer.cipher_suites.clone(), older.to_vec()].concat(), ..newer })
}

/// Our certificate as peers see it: as a client's and as a server's.
fn check_own(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    clients: &dyn ClientCertVerifier,
    chain: &[CertificateDer<'_>],
    subject: &str,
) -> Result<(), rustls::Error> {
    let now = UnixTime::now();
    clients.verify_client_cert(&chain[0], &chain[1..], now)?;
    let servers = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))?;
    let name = ServerName::try_from(subject).map_err(|e| rustls::Error::General(format!("{subject}: {e}")))?;
    servers.verify_server_cert(&chain[0], &chain[1..], &name, &[], now)?;
    Ok(())
}

fn pem_error(what: &'static str, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::Pem { what, why: why.to_string() }
}

/// At least one certificate.
fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| pem_error(what, &e))?;
    if all.is_empty() {
        return Err(pem_error(what, &"no certificate in it"));
    }
    Ok(all)
}

/// The one DNS name of a certificate.
fn subject_of(cert: &CertificateDer<'_>) -> Result<String, String> {
    let parsed = webpki::EndEntityCert::try_from(cert).map_err(|e| format!("the certificate cannot be read: {e}"))?;
    let names: Vec<&str> = parsed.valid_dns_names().collect();
    match names[..] {
        [name] if cluster_of(name).is_some() => Ok(name.to_ascii_lowercase()),
        [name] => Err(format!("{name} names no cluster (NODE.CLUSTER.shorefast.internal expected)")),
        _ => Err(format!("exactly one DNS name expected, {} found", names.len())),
    }
}

/// What is behind the first dot.
fn cluster_of(subject: &str) -> Option<&str> {
    subject.split_once('.').map(|(_, cluster)| cluster).filter(|c| !c.is_empty())
}

/// The sentence for a TLS failure that an I/O error carries, if it carries one.
pub(crate) fn tls_error(e: &io::Error) -> Option<String> {
    e.get_ref()?.downcast_ref::<rustls::Error>().map(explain)
}

/// What a failure means for somebody who runs a cluster.
fn explain(e: &rustls::Error) -> String {
    use rustls::Error as E;
    match e {
        E::InvalidCertificate(why) => explain_certificate(why),
        E::AlertReceived(AlertDescription::UnknownCA) => {
            "the peer refused our certificate: it knows another authority (another cluster?)".into()
        }
        E::AlertReceived(AlertDescription::CertificateRequired) => "the peer wants a certificate from us".into(),
        E::AlertReceived(what) => format!("the peer refused us: {what:?}"),
        E::NoCertificatesPresented => "the peer showed no certificate".into(),
        E::InvalidMessage(_) => "the peer does not speak TLS".into(),
        E::NoApplicationProtocol => "the peer is no Shorefast node (ALPN)".into(),
        other => other.to_string(),
    }
}

fn explain_certificate(why: &CertificateError) -> String {
    use CertificateError as C;
    match why {
        C::UnknownIssuer | C::BadSignature => "the certificate was not signed by this cluster's authority".into(),
        C::Expired | C::ExpiredContext { .. } => "the certificate has expired".into(),
        C::NotValidYet | C::NotValidYetContext { .. } => "the certificate is not valid yet (is a clock wrong?)".into(),
        C::NotValidForName | C::NotValidForNameContext { .. } => format!("wrong node: {why}"),
        other => format!("certificate refused: {other}"),
    }
}

#[cfg(test)]
mod tests;
