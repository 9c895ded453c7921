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

/// How much of a response a connection encrypts in advance. By default that is 64 KiB, which each client that does not read
/// would hold.
const AHEAD: usize = 8 << 10;

/// Returns the stream, and whether the client presented a certificate, which then was verified. `None`: no handshake.
pub async fn handshake(mut stream: TcpStream, config: Arc<ServerConfig>) -> Option<(TlsStream<TcpStream>, bool)> {
    let mut first = [0];
    stream.peek(&mut first).await.ok()?;
    if first[0].is_ascii_alphabetic() {
        // unread bytes would reset the connection before the client gets the response
        let _ = stream.read(&mut [0; 8192]).await;
        let _ = stream.write_all(PLAIN).await;
        let _ = stream.shutdown().await;
        return None;
    }
    match TlsAcceptor::from(config).accept(stream).await {
        Ok(mut stream) => {
            stream.get_mut().1.set_buffer_limit(Some(AHEAD));
            let certified = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
            Some((stream, certified))
        }
        Err(error) => {
            tracing::debug!(%error, "no handshake");
            None
        }
    }
}
