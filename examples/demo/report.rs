//! The output of the demo.

use crate::critical::Hops;
use crate::progress::Screen;
use crate::stack::{PROMPT, Stack};
use jiff::Timestamp;
use std::time::Duration;

/// A row of a table: a step, its time, and the previous time.
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

    /// Each server's last response, measured from the commit, because Redis announces the change to each server
    /// separately.
    pub fn of_servers(servers: &[(&'static str, Timestamp)], committed: Timestamp) -> impl Iterator<Item = Self> {
        servers.iter().map(move |(name, last)| Self::new(&format!("last bad response, {name}"), *last, committed))
    }
}

/// Prints to standard output, in color on a terminal.
pub struct DemoOutput {
    pub screen: Screen,
    colours: bool,
}

impl DemoOutput {
    pub fn new() -> Self {
        let screen = Screen::new();
        let colours = screen.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { screen, colours }
    }

    pub fn heading(&self, text: &str) {
        self.line(&format!("\n{}", self.paint("1", text)));
    }

    /// Prints an action of the demo.
    pub fn step(&self, text: &str) {
        self.line(&self.paint("2", &format!("         · {text}")));
    }

    /// Prints an event, with the time since the first bad response.
    pub fn event(&self, first_bad: Timestamp, at: Timestamp, text: &str) {
        let colour = if at == first_bad { "31" } else { "32" };
        self.line(&format!("{} {text}", self.paint(colour, &format!("{:>+8.2} s", seconds(first_bad, at)))));
    }

    /// Prints an instruction for the reader.
    pub fn invite(&self, text: &str) {
        self.line(&self.paint("1;36", text));
    }

    /// Prints a quoted line.
    pub fn quote(&self, text: &str) {
        self.line(&format!("{} {text}", self.paint("2", "  │")));
    }

    /// Prints all steps, with the time since the first row and since the previous step.
    pub fn table(&self, since: &str, rows: &[Row]) {
        self.heading(&format!("{:<42} {since:>10} {:>10}", "", "step took"));
        for Row { name, at, after } in rows {
            // a server's last bad response may be from just before the commit
            let (since, hop) = (seconds(rows[0].at, *at).max(0.0), seconds(*after, *at).max(0.0));
            self.line(&format!("{name:<42} {since:>8.3} s {hop:>8.3} s"));
        }
    }

    /// Prints how many users got the bad version.
    pub fn harm(&self, hops: &Hops) {
        let total = self.paint("1", &format!("{:.1} s", hops.total().as_secs_f64()));
        let Hops { answers, failed, .. } = hops;
        self.line(&format!("\nThe bad version was served for {total}: {answers} responses, {failed} of them failed."));
    }

    /// Prints the measurements that confirm a recovery.
    pub fn proof(&self, title: &str, rows: &[(String, String)]) {
        self.line(&format!("\n{}", self.paint("1;32", title)));
        for (name, value) in rows {
            self.line(&format!("{name:<42} {value}"));
        }
    }

    /// Prints p50 and p90 of each step over all runs.
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
            self.line(&format!("{name:<42} {:>8.3} s {:>8.3} s", p(50), p(90)));
        }
    }

    /// Prints all addresses, for a demo that keeps running, and how to ship another version.
    pub fn addresses(&self, stack: &Stack) {
        self.heading("Everything keeps running until Ctrl-C");
        let servers: Vec<_> = stack.servers.iter().map(|server| format!("http://{}", server.addr())).collect();
        let own = [
            ("receiver", stack.receiver.url()),
            ("Slack", stack.slack.url().to_owned()),
            ("Prometheus", stack.prometheus.url()),
            ("Alertmanager", stack.alertmanager.url()),
            ("Redis", stack.redis.addr()),
        ];
        let served = stack.servers.iter().zip(&servers);
        let served = served.map(|(server, url)| (server.name, format!("{url}/?prompt={PROMPT}")));
        for (name, address) in own.into_iter().chain(served) {
            self.line(&format!("{name:<14} {address}"));
        }
        let (receiver, servers) = (stack.receiver.url(), servers.join(" "));
        let api = format!("{receiver}/api/prompts/{PROMPT}");
        self.line("\nTo ship another version that answers badly, and decide on the page or in Slack, paste these three lines. With");
        self.line("\"error_ratio\": 0.3 instead of \"quality\": 0.5 it is rolled back automatically.");
        let version = "v2.2.0";
        self.line(&format!(
            "  for s in {servers}; do curl $s/misbehave -d '{{\"version\": \"{version}\", \"quality\": 0.5}}'; done"
        ));
        self.line(&format!("  curl {api}/versions -d '{{\"version\": \"{version}\"}}'"));
        self.line(&format!("  curl {api}/activate -d '{{\"version\": \"{version}\"}}'"));
        self.line(&format!("What happened so far:  {} log {PROMPT} --url {receiver}", stack.program.display()));
    }

    /// Prints what to try after the demo.
    pub fn next(&self, keep: bool) {
        self.heading("What to try next");
        let ship = if keep {
            "the three lines above"
        } else {
            "`make demo KEEP=1` keeps everything running and prints the commands"
        };
        for (what, how) in [
            ("Ship bad versions yourself", ship),
            ("Connect your own Slack", "docs/slack.md, in six steps"),
            ("Roll back your own prompts", "README.md, \"Run it\" and \"Adopt it\""),
        ] {
            self.line(&format!("  {what:<28} {how}"));
        }
    }

    fn line(&self, text: &str) {
        self.screen.line(text);
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

/// Nearest rank: the smallest value that at least `percent` of the values do not exceed.
pub fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or_default()
}
