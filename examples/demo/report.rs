//! What the demo prints.

use crate::scenario::Hops;
use crate::stack::{PROMPT, Stack};
use jiff::Timestamp;
use std::io::IsTerminal;
use std::time::Duration;

/// One row of a table: what happened, when, and after what.
pub struct Row {
    name: String,
    at: Timestamp,
    after: Timestamp,
}

impl Row {
    pub fn first(name: &str, at: Timestamp) -> Self {
        Self::new(name, at, at)
    }

    pub fn new(name: &str, at: Timestamp, after: Timestamp) -> Self {
        Self { name: name.to_owned(), at, after }
    }

    /// Each server's last response: Redis tells each one, not the server in the row above.
    pub fn of_servers(servers: &[(&'static str, Timestamp)], committed: Timestamp) -> impl Iterator<Item = Self> {
        servers.iter().map(move |(name, last)| Self::new(&format!("last bad response, {name}"), *last, committed))
    }
}

/// Prints to stdout, in colour on a terminal.
pub struct Report {
    colours: bool,
}

impl Report {
    pub fn new() -> Self {
        Self { colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    pub fn heading(&self, text: &str) {
        println!("\n{}", self.paint("1", text));
    }

    /// Something the demo does.
    pub fn step(&self, text: &str) {
        println!("{}", self.paint("2", &format!("         · {text}")));
    }

    /// Something that happened, so long after the first bad response.
    pub fn event(&self, first_bad: Timestamp, at: Timestamp, text: &str) {
        let colour = if at == first_bad { "31" } else { "32" };
        println!("{} {text}", self.paint(colour, &format!("{:>+8.2} s", seconds(first_bad, at))));
    }

    /// Something for the reader to do.
    pub fn invite(&self, text: &str) {
        println!("{}", self.paint("1;36", text));
    }

    /// Every hop, with the time since the first row and since the hop before it.
    pub fn table(&self, since: &str, rows: &[Row]) {
        println!("\n{}", self.paint("1", &format!("{:<42} {since:>10} {:>10}", "", "hop took")));
        for Row { name, at, after } in rows {
            // A server's last bad response may have been given just before the commit.
            let (since, hop) = (seconds(rows[0].at, *at).max(0.0), seconds(*after, *at).max(0.0));
            println!("{name:<42} {since:>8.3} s {hop:>8.3} s");
        }
    }

    /// What users got of the bad version.
    pub fn harm(&self, hops: &Hops) {
        let total = self.paint("1", &format!("{:.1} s", hops.total().as_secs_f64()));
        println!(
            "\nThe bad version was served for {total}: {} responses, {} of them failed.",
            hops.answers, hops.failed
        );
    }

    /// p50 and p90 of each hop over all runs.
    pub fn percentiles(&self, runs: &[Hops]) {
        self.heading(&format!("{:<42} {:>10} {:>10}", format!("{} runs", runs.len()), "p50", "p90"));
        type Length = fn(&Hops) -> Duration;
        let rows: [(&str, Length); 4] = [
            ("first bad response → rule fired", |hops| between(hops.first_bad, hops.rule_fired)),
            ("rule fired → webhook received", |hops| between(hops.rule_fired, hops.webhook)),
            ("webhook received → committed", |hops| between(hops.webhook, hops.committed)),
            ("first bad response → last server", Hops::total),
        ];
        for (name, length) in rows {
            let p = |percent| percentile(runs.iter().map(length).collect(), percent).as_secs_f64();
            println!("{name:<42} {:>8.3} s {:>8.3} s", p(50), p(90));
        }
    }

    /// Where everything listens, for a demo that stays, and what to try.
    pub fn addresses(&self, stack: &Stack) {
        self.heading("It stays until Ctrl-C");
        println!("Slack          {}", stack.slack.url());
        println!("receiver       {}", stack.receiver.url());
        println!("Prometheus     {}", stack.prometheus.url());
        println!("Alertmanager   {}", stack.alertmanager.url());
        println!("Redis          {}", stack.redis.addr());
        let servers: Vec<_> = stack.servers.iter().map(|server| format!("http://{}", server.addr())).collect();
        for (server, url) in stack.servers.iter().zip(&servers) {
            println!("{:<14} {url}/?prompt={PROMPT}", server.name.split(' ').next().unwrap_or_default());
        }
        let (api, servers) = (format!("{}/api/prompts/{PROMPT}", stack.receiver.url()), servers.join(" "));
        println!("\nShip another one that answers badly, and decide in Slack. With \"error_ratio\": 0.3 instead of");
        println!("\"quality\": 0.5 nobody is asked, and on the page the rollback can be undone.");
        println!("  for s in {servers}; do curl $s/misbehave -d '{{\"version\": \"v2.2.0\", \"quality\": 0.5}}'; done");
        println!("  curl {api}/versions -d '{{\"version\": \"v2.2.0\"}}'");
        println!("  curl {api}/activate -d '{{\"version\": \"v2.2.0\"}}'");
        println!("What happened so far:  curl {api}/log");
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_secs_f64(seconds(from, to).max(0.0))
}

/// Nearest rank: the smallest value that `percent` of them don't exceed.
pub fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or_default()
}
