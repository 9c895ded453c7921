//! TLS for those who connect: the handshake.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The answer to a client that speaks HTTP where TLS is spoken: without it, it only sees the connection end.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n\
    {\"error\":{\"code\":\"tls_expected\",\"message\":\"this port speaks TLS: use https://\"}}";

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
