//! The cluster's certificate authority: ECDSA P-256, made once, signs one certificate a node.
//!
//! A node is known by a DNS name in its certificate, [`dns_name`]; peers check that name, not the address. The
//! subject says the same for people. Certificates live for twenty years: nothing here renews them, and a cluster that
//! stops one night because of a date would be worse than a key that is old. Revoking is done by a new authority.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use super::bundle::Pems;
use crate::api::Node;
use crate::clock::WallTime;

/// How long certificates live.
const YEARS: i32 = 20;

/// The DNS name by which peers know a node: `node-N.CLUSTER-ID.shorefast.internal`.
pub fn dns_name(cluster_id: &str, node: Node) -> String {
    format!("{node}.{cluster_id}.shorefast.internal")
}

/// The subject of a node's certificate: `CLUSTER-ID/node-N`.
pub fn subject(cluster_id: &str, node: Node) -> String {
    format!("{cluster_id}/{node}")
}

/// An authority with its key, for as long as `init` runs.
pub(super) struct Authority {
    cluster_id: String,
    certificate: Certificate,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub(super) fn new(cluster: &str, cluster_id: &str) -> Result<Authority, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = lifetime(CertificateParams::default());
        params.distinguished_name.push(DnType::CommonName, format!("Shorefast cluster {cluster}"));
        params.distinguished_name.push(DnType::OrganizationName, cluster_id);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let key_pem = key.serialize_pem();
        Ok(Authority { cluster_id: cluster_id.to_owned(), certificate, key_pem, issuer: Issuer::new(params, key) })
    }

    /// Its private key.
    pub(super) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Its certificate.
    pub(super) fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    /// A new key and certificate for a node.
    pub(super) fn issue(&self, node: Node) -> Result<Pems, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = lifetime(CertificateParams::new(vec![dns_name(&self.cluster_id, node)])?);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject(&self.cluster_id, node));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Every node both calls and is called.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pems { ca_certificate: self.certificate_pem(), certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// From the first of last year's January, so that a node whose clock is somewhat behind takes it too.
fn lifetime(mut params: CertificateParams) -> CertificateParams {
    let (year, _, _) = WallTime::now().date();
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + YEARS, 1, 1);
    params
}
