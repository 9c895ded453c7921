//! The TLS handshake of incoming connections.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The response to a client that speaks HTTP on a TLS port; without it, the client only sees the connection close.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n\
    {\"error\":{\"code\":\"tls_expected\",\"message\":\"this port speaks TLS: use https://\"}}";

/// How much of a request without TLS is read before this response. On the heap: an array would be a part of each handshake.
const UNREAD: usize = 8 << 10;

/// How much of a response a connection encrypts in advance. By default that is 64 KiB, which each client that does not read
/// would hold.
const AHEAD: usize = 4 << 10;

/// Returns the stream, and whether the client presented a certificate, which then was verified. `None`: no handshake.
/// The stream is boxed: each future that hands it on would keep room for its kilobyte.
pub async fn handshake(mut stream: TcpStream, config: Arc<ServerConfig>) -> Option<(Box<TlsStream<TcpStream>>, bool)> {
    let mut first = [0];
    stream.peek(&mut first).await.ok()?;
    if first[0].is_ascii_alphabetic() {
        // unread bytes would reset the connection before the client gets the response
        let _ = stream.read(&mut vec![0_u8; UNREAD]).await;
        let _ = stream.write_all(PLAIN).await;
        let _ = stream.shutdown().await;
        return None;
    }
    match TlsAcceptor::from(config).accept(stream).await {
        Ok(mut stream) => {
            stream.get_mut().1.set_buffer_limit(Some(AHEAD));
            let certified = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
            Some((Box::new(stream), certified))
        }
        Err(error) => {
            tracing::debug!(%error, "no handshake");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::server::ResolvesServerCertUsingSni;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_handshake_holds_no_buffer_for_a_request_without_tls() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let config = ServerConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("ring speaks the default TLS versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        let size = size_of_val(&handshake(stream, Arc::new(config)));
        assert!(size < UNREAD, "{size} bytes for each of them");
    }
}
