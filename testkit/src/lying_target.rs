//! An HTTP server that gives any answer that a test wants.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

/// A running server. It runs until the process ends.
pub struct LyingTarget {
    address: String,
    requests: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl LyingTarget {
    /// `answer` gets the whole request, and returns status and body.
    pub fn start(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Result<Self> {
        let answer = Arc::new(answer);
        let requests: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
        let seen = Arc::clone(&requests);
        let address = listen(move |mut stream| {
            let Some(request) = read(&mut stream) else { return };
            let (status, body) = answer(&request);
            seen.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), request));
            let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close");
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        })?;
        Ok(Self { address, requests })
    }

    /// Accepts requests and never answers.
    pub fn hanging() -> Result<Self> {
        let address = listen(|mut stream| while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {})?;
        Ok(Self { address, requests: Arc::default() })
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// When each request came, and its text.
    pub fn requests(&self) -> Vec<(Instant, String)> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

/// Head and body of one request.
fn read(stream: &mut TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        text.extend_from_slice(&chunk[..n]);
        let request = String::from_utf8_lossy(&text);
        let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(request.into_owned());
        }
    }
}

/// The answer to a query that evaluates one or several expressions: `value` for each of them.
pub fn to_each(request: &str, value: &str) -> String {
    let numbers: Vec<String> = request
        .split("prompt_rollback_asked%22%2C%20%22")
        .skip(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect())
        .map(|number: String| format!("{{\"prompt_rollback_asked\":\"{number}\"}}"))
        .collect();
    if numbers.is_empty() {
        return vector(&[("{}", value)]);
    }
    vector(&numbers.iter().map(|labels| (labels.as_str(), value)).collect::<Vec<_>>())
}

/// An instant vector: labels as JSON, and values.
pub fn vector(series: &[(&str, &str)]) -> String {
    let items: Vec<String> =
        series.iter().map(|(labels, value)| format!(r#"{{"metric":{labels},"value":[1,"{value}"]}}"#)).collect();
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{}]}}}}"#, items.join(","))
}

/// Whether a request queries the counters of each instance.
pub fn asks_for_counters(request: &str) -> bool {
    request.contains("prompt_version_instance%3Arequests%3Asum")
}

/// One instance serves `version` of these prompts, a thousand times a second for a minute, without a failure.
pub fn well_served(prompts: &[String], version: &str) -> String {
    served(prompts, version, 0)
}

/// As [`well_served`], with this many failures per thousand requests.
pub fn served(prompts: &[String], version: &str, failures: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let series = |prompt: &str, name: &str, rate: u64| {
        let metric = format!(
            r#"{{"__name__":"prompt_version_instance:{name}","prompt":"{prompt}","version":"{version}","instance":"a"}}"#
        );
        let points: Vec<_> = (now - 60..=now).map(|second| format!(r#"[{second},"{}"]"#, second * rate)).collect();
        format!(r#"{{"metric":{metric},"values":[{}]}}"#, points.join(","))
    };
    let counters = [("requests:sum", 1_000), ("request_errors:sum", failures), ("requests:timestamp_seconds", 1)];
    let all = prompts.iter().flat_map(|prompt| counters.map(|(name, rate)| series(prompt, name, rate)));
    let all: Vec<_> = all.collect();
    format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{}]}}}}"#, all.join(","))
}
