//! Programs between a receiver and a server: a proxy as in the network of a company, and a gateway as in front of a hosted
//! service. They run until the process ends.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use base64::prelude::{BASE64_STANDARD, Engine as _};

/// First line and headers of a request.
#[derive(Debug, Clone)]
pub struct Head {
    /// `GET /path HTTP/1.1`.
    pub line: String,
    headers: Vec<String>,
}

impl Head {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.headers.iter().filter_map(|header| header.split_once(':'));
        pairs.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// The target of the request.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

type Seen = Arc<Mutex<Vec<Head>>>;

/// A forward proxy: CONNECT for tunnels, and requests with the whole address. Every name leads to this machine.
#[derive(Debug)]
pub struct WebProxy {
    address: String,
    seen: Seen,
}

impl WebProxy {
    /// For everybody.
    pub fn start() -> Result<Self> {
        Self::with(|_| None)
    }

    /// For those with this login.
    pub fn with_login(user: &str, password: &str) -> Result<Self> {
        let expected = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        Self::with(move |head| (head.header("proxy-authorization") != Some(expected.as_str())).then_some(407))
    }

    /// Leads nowhere.
    pub fn refusing() -> Result<Self> {
        Self::with(|_| Some(403))
    }

    fn with(refuses: impl Fn(&Head) -> Option<u16> + Send + Sync + 'static) -> Result<Self> {
        let seen = Seen::default();
        let address = listen(&seen, move |client, head, rest| {
            if let Some(status) = refuses(head) {
                return answer(client, status);
            }
            let is_tunnel = head.line.starts_with("CONNECT ");
            let target = head.target().trim_start_matches("http://");
            let (authority, path) = target.split_at(target.find('/').unwrap_or(target.len()));
            let port = authority.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(80);
            let mut server = TcpStream::connect(("127.0.0.1", port))?;
            if is_tunnel {
                write!(&*client, "HTTP/1.1 200 Connection established\r\n\r\n")?;
            } else {
                write_head(&mut server, head, path)?;
            }
            server.write_all(rest)?;
            join(client, &server)
        })?;
        Ok(Self { address, seen })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `127.0.0.1:port`.
    pub fn addr(&self) -> &str {
        &self.address
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Head> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A server in front of another one.
#[derive(Debug)]
pub struct Gateway {
    address: String,
    seen: Seen,
}

impl Gateway {
    /// In front of `server` (`host:port`). `refuses` returns the status of a request that it does not pass on.
    pub fn start(
        server: impl Into<String>,
        refuses: impl Fn(&Head) -> Option<u16> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (server, seen) = (server.into(), Seen::default());
        let address = listen(&seen, move |client, head, rest| {
            if let Some(status) = refuses(head) {
                return answer(client, status);
            }
            let mut server = TcpStream::connect(&server)?;
            write_head(&mut server, head, head.target())?;
            server.write_all(rest)?;
            join(client, &server)
        })?;
        Ok(Self { address, seen })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Head> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Gives each connection's head, and what came behind it, to `serve`.
fn listen(
    seen: &Seen,
    serve: impl Fn(&TcpStream, &Head, &[u8]) -> io::Result<()> + Send + Sync + 'static,
) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let (serve, seen) = (Arc::new(serve), Arc::clone(seen));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (serve, seen) = (Arc::clone(&serve), Arc::clone(&seen));
            thread::spawn(move || {
                let Some((head, rest)) = read_head(&stream) else { return };
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
                let _ = serve(&stream, &head, &rest); // the other end may be gone
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    });
    Ok(address)
}

fn read_head(mut stream: &TcpStream) -> Option<(Head, Vec<u8>)> {
    const LONGEST: usize = 64 << 10;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    let end = loop {
        match stream.read(&mut chunk) {
            Ok(read @ 1..) => bytes.extend(&chunk[..read]),
            _ => return None,
        }
        match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(end) => break end,
            None if bytes.len() > LONGEST => return None,
            None => {}
        }
    };
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = text.lines().map(str::to_owned);
    Some((Head { line: lines.next()?, headers: lines.collect() }, bytes.split_off(end + 4)))
}

/// One request per connection, so that each is seen.
fn write_head(server: &mut TcpStream, head: &Head, path: &str) -> io::Result<()> {
    let method = head.line.split(' ').next().unwrap_or_default();
    let hop = |header: &&String| {
        let name = header.split(':').next().unwrap_or_default().to_lowercase();
        !name.starts_with("proxy-") && name != "connection"
    };
    let headers: Vec<&str> = head.headers.iter().filter(hop).map(String::as_str).collect();
    write!(server, "{method} {path} HTTP/1.1\r\n{}\r\nConnection: close\r\n\r\n", headers.join("\r\n"))
}

fn answer(mut client: &TcpStream, status: u16) -> io::Result<()> {
    write!(client, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// Copies both ways until both ends are closed.
fn join(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let there = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let back = io::copy(&mut &*server, &mut &*client);
    let _ = client.shutdown(Shutdown::Both);
    let _ = there.join();
    back.map(drop)
}
