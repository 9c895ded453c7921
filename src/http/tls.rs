//! TLS for those who connect: the handshake, and certificates that are replaced while we serve.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::{Contents, ServerFiles, TlsError};

/// How soon a file that was replaced is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The answer to a client that speaks HTTP where TLS is spoken: without it, it only sees the connection end.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n\
    {\"error\":{\"code\":\"tls_expected\",\"message\":\"this port speaks TLS: use https://\"}}";

/// Our certificate and whose clients we trust, as of the last look at the files.
#[derive(Debug)]
pub struct Certificates {
    files: ServerFiles,
    seen: Result<Contents, TlsError>,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl Certificates {
    pub fn load(files: ServerFiles) -> Result<Self, TlsError> {
        let contents = files.read()?;
        let current = watch::Sender::new(files.config(&contents)?);
        Ok(Self { files, seen: Ok(contents), current })
    }

    /// What new connections get.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }

    /// Takes over what the files hold now. What can't be used is said once, and the old stays in use.
    fn look(&mut self) {
        let read = self.files.read();
        if read == self.seen {
            return;
        }
        match read.as_ref().map_err(TlsError::clone).and_then(|contents| self.files.config(contents)) {
            Ok(config) => {
                self.current.send_replace(config);
                tracing::info!(cert = %self.files.cert.display(), "certificates were replaced");
            }
            // also for a moment, between the two files of a pair
            Err(error) => tracing::warn!(%error, "the old certificates stay in use"),
        }
        self.seen = read;
    }

    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(certificates) => self = certificates,
                Err(_) => return,
            }
        }
    }
}

/// A stream and whether its client has shown a certificate, which then is one of our authority. `None`: no handshake.
pub async fn handshake(mut stream: TcpStream, config: Arc<ServerConfig>) -> Option<(TlsStream<TcpStream>, bool)> {
    let mut first = [0];
    stream.peek(&mut first).await.ok()?;
    if first[0].is_ascii_alphabetic() {
        // what is left unread would reset the connection before the answer is there
        let _ = stream.read(&mut [0; 8192]).await;
        let _ = stream.write_all(PLAIN).await;
        let _ = stream.shutdown().await;
        return None;
    }
    match TlsAcceptor::from(config).accept(stream).await {
        Ok(stream) => {
            let certified = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
            Some((stream, certified))
        }
        Err(error) => {
            tracing::debug!(%error, "no handshake");
            None
        }
    }
}
