//! A certificate authority of our own and a certificate for loopback.

use crate::Dir;
use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::path::PathBuf;

/// Files in PEM, in the server's directory.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Makes a CA and a certificate for `localhost` and 127.0.0.1 that it signed.
pub(crate) fn generate(dir: &Dir) -> Result<Files> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "prompt-rollback testkit CA");
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    let cert = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?;

    Ok(Files {
        ca: dir.write("tls/ca.pem", ca_pem)?,
        cert: dir.write("tls/cert.pem", cert.pem())?,
        key: dir.write("tls/key.pem", key.serialize_pem())?,
    })
}
