//! A certificate authority for tests, and certificates for loopback.

use crate::Dir;
use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::path::PathBuf;

/// Files in PEM, in the server's directory.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_cert: PathBuf,
    pub(crate) client_key: PathBuf,
}

/// Creates a CA, and two certificates that it signed: for `localhost` and 127.0.0.1, and for a client.
pub(crate) fn generate(dir: &Dir) -> Result<Files> {
    let authority = Authority::new()?;
    let (server, client) = (authority.server()?, authority.client("receiver")?);
    Ok(Files {
        ca: dir.write("tls/ca.pem", authority.pem())?,
        cert: dir.write("tls/cert.pem", &server.cert)?,
        key: dir.write("tls/key.pem", &server.key)?,
        client_cert: dir.write("tls/client.pem", &client.cert)?,
        client_key: dir.write("tls/client-key.pem", &client.key)?,
    })
}

/// Signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub cert: String,
    /// Its key, PKCS#8.
    pub key: String,
}

impl Authority {
    /// Creates a new authority.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(DnType::CommonName, "prompt-rollback testkit CA");
        let pem = ca.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(ca, key), pem })
    }

    /// The certificate that others must trust, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for `localhost` and 127.0.0.1, and for `server.corp.test`, which only a proxy can resolve.
    pub fn server(&self) -> Result<Certificate> {
        self.sign("localhost", &["localhost", "127.0.0.1", "server.corp.test"], None)
    }

    /// A certificate for a client, which is not valid for a server.
    pub fn client(&self, name: &str) -> Result<Certificate> {
        self.sign(name, &[], Some(ExtendedKeyUsagePurpose::ClientAuth))
    }

    fn sign(&self, name: &str, hosts: &[&str], usage: Option<ExtendedKeyUsagePurpose>) -> Result<Certificate> {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
        leaf.distinguished_name.push(DnType::CommonName, name);
        leaf.extended_key_usages.extend(usage);
        let cert = leaf.signed_by(&key, &self.issuer)?;
        Ok(Certificate { cert: cert.pem(), key: key.serialize_pem() })
    }
}
