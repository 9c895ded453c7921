//! The leanest possible clients: their cost counts towards what they measure.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};
use prompt_rollback_testkit::Redis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A blocking connection for one request at a time.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 << 10) })
    }

    /// Connects to Redis as a user with all permissions.
    pub fn to_redis(redis: &Redis) -> Result<Self> {
        let mut wire = Self::connect(&redis.addr())?;
        let answer = wire.ask(&login(), line_length)?;
        ensure!(answer == b"+OK\r\n", "{}", String::from_utf8_lossy(answer));
        Ok(wire)
    }

    /// Sends `request`, and reads until `complete` returns the length of the answer.
    pub fn ask(&mut self, request: &[u8], complete: impl Fn(&[u8]) -> Option<usize>) -> Result<&[u8]> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let mut part = [0; 16 << 10];
        loop {
            let read = self.stream.read(&mut part)?;
            ensure!(read > 0, "the connection was closed");
            self.buffer.extend_from_slice(&part[..read]);
            if complete(&self.buffer).is_some() {
                return Ok(&self.buffer);
            }
        }
    }
}

/// Sends `request`, and reads until `complete` returns the length of the answer.
pub async fn ask(
    stream: &mut tokio::net::TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
    complete: impl Fn(&[u8]) -> Option<usize>,
) -> Result<()> {
    stream.write_all(request).await?;
    buffer.clear();
    while complete(buffer).is_none() {
        ensure!(stream.read_buf(buffer).await? > 0, "the connection was closed");
    }
    Ok(())
}

/// The length of a complete HTTP response with a Content-Length.
pub fn http_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    Some(head + length.parse::<usize>().ok()?).filter(|length| bytes.len() >= *length)
}

/// The length of a complete reply of the commit script: an array of integers.
pub fn script_length(bytes: &[u8]) -> Option<usize> {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let items = usize::from(bytes.first()? == &b'*') * usize::from(bytes.get(1)?.wrapping_sub(b'0'));
    (lines == 1 + items).then_some(bytes.len())
}

/// The login as a user with all permissions.
pub fn login() -> Vec<u8> {
    pack(&["AUTH", Redis::ADMIN.name, Redis::ADMIN.password].map(|arg| arg.as_bytes().to_vec()))
}

/// The length of a complete reply of one line.
pub fn line_length(bytes: &[u8]) -> Option<usize> {
    bytes.ends_with(b"\r\n").then_some(bytes.len())
}

/// One command in the protocol of Redis.
pub fn pack(args: &[Vec<u8>]) -> Vec<u8> {
    let mut packed = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        packed.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        packed.extend_from_slice(arg);
        packed.extend_from_slice(b"\r\n");
    }
    packed
}

/// A command as Redis saw it.
pub struct Seen {
    /// Whether a script called it.
    pub in_script: bool,
    pub args: Vec<Vec<u8>>,
}

impl Seen {
    pub fn is(&self, name: &str) -> bool {
        self.args.first().is_some_and(|arg| arg.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// The commands that Redis executes while `during` runs, from MONITOR.
pub fn monitored(redis: &Redis, during: impl FnOnce() -> Result<()>) -> Result<Vec<Seen>> {
    const END: &str = "end-of-what-is-monitored";
    let mut stream = Wire::to_redis(redis)?.stream;
    stream.write_all(b"MONITOR\r\n")?;
    let mut lines = BufReader::new(stream).lines();
    ensure!(lines.next().context("MONITOR")?? == "+OK");
    during()?;
    let mut echo = Wire::to_redis(redis)?.stream;
    echo.write_all(&pack(&[b"ECHO".to_vec(), END.as_bytes().to_vec()]))?;
    let mut seen = Vec::new();
    for line in lines {
        let one = read_monitored(&line?).context("a line of MONITOR")?;
        if one.is("ECHO") && one.args[1] == END.as_bytes() {
            return Ok(seen);
        }
        seen.push(one);
    }
    bail!("MONITOR ended")
}

/// Parses `+time [db address] "arg" "arg"`, with arguments escaped as in C.
fn read_monitored(line: &str) -> Option<Seen> {
    let (head, mut rest) = line.split_once("] ")?;
    let mut args = Vec::new();
    while let Some(quoted) = rest.strip_prefix('"') {
        let mut arg = Vec::new();
        let mut bytes = quoted.bytes().enumerate();
        let end = loop {
            match bytes.next()? {
                (at, b'"') => break at,
                (_, b'\\') => arg.push(match bytes.next()?.1 {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'x' => {
                        let digits = [bytes.next()?.1, bytes.next()?.1];
                        u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                    }
                    other => other,
                }),
                (_, byte) => arg.push(byte),
            }
        };
        args.push(arg);
        rest = quoted[end + 1..].trim_start();
    }
    Some(Seen { in_script: head.ends_with(" lua"), args })
}
