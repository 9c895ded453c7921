//! Prompt servers as Prometheus sees them: counters that grow with each scrape.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

use super::PROMPT;

#[derive(Debug, Default)]
struct Counters {
    /// Version and outcome → requests.
    total: BTreeMap<(String, &'static str), u64>,
    /// Version, good and bad requests between two scrapes.
    now: Option<(String, u64, u64)>,
    /// It serves on, but its metrics cannot be scraped.
    unscraped: bool,
}

pub struct PromptServers(Vec<(String, Arc<Mutex<Counters>>)>);

impl PromptServers {
    pub fn start(many: usize) -> Result<Self> {
        (0..many).map(|_| start()).collect::<Result<_>>().map(Self)
    }

    pub fn addresses(&self) -> Vec<String> {
        self.0.iter().map(|(address, _)| address.clone()).collect()
    }

    /// Makes server `which` serve `version` from now on, with these good and bad requests between two scrapes.
    pub fn serve(&self, which: usize, version: &str, good: u64, bad: u64) {
        let mut counters = self.0[which].1.lock().unwrap_or_else(PoisonError::into_inner);
        for outcome in ["ok", "error"] {
            counters.total.entry((version.to_owned(), outcome)).or_default();
        }
        counters.now = Some((version.to_owned(), good, bad));
    }

    /// From now on, each scrape of server `which` fails.
    pub fn fail_scrapes(&self, which: usize) {
        self.0[which].1.lock().unwrap_or_else(PoisonError::into_inner).unscraped = true;
    }
}

fn start() -> Result<(String, Arc<Mutex<Counters>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let counters = Arc::new(Mutex::new(Counters::default()));
    let shared = Arc::clone(&counters);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 4096]);
            let mut counters = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let status = if counters.unscraped { "503 Service Unavailable" } else { "200 OK" };
            let text = scrape(&mut counters);
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close");
            let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        }
    });
    Ok((address, counters))
}

fn scrape(counters: &mut Counters) -> String {
    let text = counters
        .total
        .iter()
        .map(|((version, outcome), total)| {
            format!(
                "prompt_requests_total{{prompt=\"{PROMPT}\",version=\"{version}\",outcome=\"{outcome}\"}} {total}\n"
            )
        })
        .collect();
    if let Some((version, good, bad)) = counters.now.clone() {
        for (outcome, more) in [("ok", good), ("error", bad)] {
            *counters.total.entry((version.clone(), outcome)).or_default() += more;
        }
    }
    text
}
