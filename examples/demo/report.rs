//! What the demo prints.

use crate::scenario::Hops;
use crate::stack::{PROMPT, Stack};
use jiff::Timestamp;
use std::io::IsTerminal;
use std::time::Duration;

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

    /// Every hop, with the time since the first bad response and since the hop before it.
    pub fn table(&self, hops: &Hops) {
        println!("\n{}", self.paint("1", &format!("{:<42} {:>10} {:>10}", "", "since bad", "hop took")));
        let mut before = hops.first_bad;
        let mut row = |name: &str, at: Timestamp| {
            let (since, hop) = (seconds(hops.first_bad, at), seconds(before, at));
            println!("{name:<42} {since:>8.3} s {hop:>8.3} s");
            before = at;
        };
        row("first bad response", hops.first_bad);
        row("rule fired", hops.rule_fired);
        row("webhook received", hops.webhook);
        row("committed", hops.committed);
        for (name, last) in &hops.servers {
            // Each server is told by Redis, not by the server in the line above. Its last bad response may have
            // been given just before the commit.
            let since = seconds(hops.first_bad, *last);
            let hop = seconds(hops.committed, *last).max(0.0);
            println!("{:<42} {since:>8.3} s {hop:>8.3} s", format!("last bad response, {name}"));
        }
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

    /// Where everything listens, for a demo that stays.
    pub fn addresses(&self, stack: &Stack) {
        self.heading("It stays until Ctrl-C");
        println!("receiver       {}", stack.receiver.url());
        println!("Prometheus     {}", stack.prometheus.url());
        println!("Alertmanager   {}", stack.alertmanager.url());
        println!("Redis          {}", stack.redis.addr());
        for server in &stack.servers {
            println!(
                "{:<14} http://{}/?prompt={PROMPT}",
                server.name.split(' ').next().unwrap_or_default(),
                server.addr()
            );
        }
        println!("\nTry:  curl {}/api/prompts/{PROMPT}", stack.receiver.url());
        println!("      target/release/prompt-rollback log {PROMPT} --url {}", stack.receiver.url());
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
