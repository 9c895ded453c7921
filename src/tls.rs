//! TLS: the receiver's certificates as a server and as a client, and the authorities that it trusts. Errors in a file are
//! reported before anything is served or sent.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};

/// The files of a server's certificate and key, and of the authority that signs its clients' certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients may present a certificate; one that this authority did not sign ends the handshake.
    pub client_ca: Option<PathBuf>,
}

/// One of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    Cert,
    Key,
    ClientCa,
    /// The authority that signs servers' certificates.
    Ca,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TlsError {
    pub file: File,
    /// What was found and where, and what was expected.
    pub message: String,
}

/// The TLS settings of a server.
#[derive(Clone)]
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    /// Changes with the certificate or key.
    pub certificate: u64,
    /// Changes with the authority of clients' certificates, if they are requested.
    pub authority: Option<u64>,
}

/// Omits the key.
impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerFiles {
    /// Creates the settings from the files, which `read` returns.
    pub fn load(&self, mut read: impl FnMut(File, &Path) -> io::Result<Vec<u8>>) -> Result<ServerTls, TlsError> {
        let mut content = |file, path: &Path| content(&mut read, file, path);
        let (cert, key) = (content(File::Cert, &self.cert)?, content(File::Key, &self.key)?);
        let client_ca = self.client_ca.as_deref().map(|path| Ok((path, content(File::ClientCa, path)?))).transpose()?;
        let certificate = told_apart(&(&cert, &key));
        let authority = client_ca.as_ref().map(|(_, pem)| told_apart(pem));
        let identity = identity((&self.cert, &cert), (&self.key, &key))?;
        let provider = provider();
        #[allow(clippy::expect_used, reason = "a fact about the library")]
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring speaks the default TLS versions");
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some((path, pem)) => {
                let roots = authorities(path, &pem).map_err(|message| wrong(File::ClientCa, message))?;
                // clients without a certificate are accepted, because only the webhook requires one
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| wrong(File::ClientCa, format!("{}: {error}", path.display())))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if authority.is_some() {
            // a resumed session would count for a certificate that has expired since
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(ServerTls { config: Arc::new(config), certificate, authority })
    }
}

/// The files of a client: whom it trusts, and its own certificate and key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The only authority that it trusts; `None`: those of the system.
    pub ca: Option<PathBuf>,
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The TLS settings of a client.
#[derive(Clone, Default)]
pub struct ClientTls {
    /// `None`: the system's authorities.
    pub roots: Option<Arc<RootCertStore>>,
    pub identity: Option<Arc<SingleCertAndKey>>,
}

/// Omits the key.
impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientFiles {
    /// Creates the settings from the files, which `read` returns.
    pub fn load(&self, mut read: impl FnMut(File, &Path) -> io::Result<Vec<u8>>) -> Result<ClientTls, TlsError> {
        let mut content = |file, path: &Path| content(&mut read, file, path);
        let roots = self.ca.as_deref().map(|path| {
            let pem = content(File::Ca, path)?;
            authorities(path, &pem).map(Arc::new).map_err(|message| wrong(File::Ca, message))
        });
        let roots = roots.transpose()?;
        let identity = self.identity.as_ref().map(|(cert, key)| {
            let (cert_pem, key_pem) = (content(File::Cert, cert)?, content(File::Key, key)?);
            identity((cert, &cert_pem), (key, &key_pem)).map(|identity| Arc::new(identity.into()))
        });
        Ok(ClientTls { roots, identity: identity.transpose()? })
    }
}

fn wrong(file: File, message: String) -> TlsError {
    TlsError { file, message }
}

fn content(
    read: &mut impl FnMut(File, &Path) -> io::Result<Vec<u8>>,
    file: File,
    path: &Path,
) -> Result<Vec<u8>, TlsError> {
    read(file, path).map_err(|error| wrong(file, format!("cannot read {}: {error}", path.display())))
}

/// A certificate with its chain, and the key that belongs to it, each with the path of its file.
fn identity((cert_path, cert): (&Path, &[u8]), (key_path, key): (&Path, &[u8])) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(cert_path, cert).map_err(|message| wrong(File::Cert, message))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        let expected = "a private key in PEM without a passphrase (PKCS#8, PKCS#1 or SEC1)";
        wrong(File::Key, format!("found none in {}, expected {expected}", key_path.display()))
    })?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let (key, cert) = (key_path.display(), cert_path.display());
            wrong(File::Key, format!("found another key in {key}, expected that of the first certificate in {cert}"))
        }
        rustls::Error::InvalidCertificate(error) => wrong(File::Cert, format!("{}: {error}", cert_path.display())),
        error => wrong(File::Key, format!("{}: {error}", key_path.display())),
    })
}

/// A hash that is the same for the same content within this process.
fn told_apart(content: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// The authorities in a PEM file, for a client that trusts only these.
pub fn trusted(path: &Path) -> Result<RootCertStore, String> {
    let pem = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    authorities(path, &pem)
}

/// The cryptography provider of this program.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("{}: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("found no certificate in {}, expected PEM: -----BEGIN CERTIFICATE-----", path.display()));
    }
    Ok(found)
}
