//! How much the requests of others delay critical alerts, and what `/metrics` costs.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use prompt_rollback_testkit::Redis;
use serde_json::{Value, json};

use super::Bench;
use super::figures::{Times, ms};
use super::wire::{Wire, http_length};
use super::world::{name, outcomes, post, receiver, settle, webhook};

/// Alerts of the larger deliveries: about 150 kB, which the receiver reads on another thread.
const MANY: u64 = 100;

/// A delivery with as little text as possible: 50,000 alerts fit into a body.
fn short(alerts: impl Iterator<Item = (String, String)>) -> Vec<u8> {
    let alert = |(prompt, version): (String, String)| {
        let labels = json!({"alertname": "Row", "prompt": prompt, "version": version, "severity": "critical"});
        json!({"status": "firing", "labels": labels, "fingerprint": format!("{prompt} {version}")})
    };
    let alerts: Vec<Value> = alerts.map(alert).collect();
    post(&json!({"version": "4", "status": "firing", "alerts": alerts}).to_string())
}

/// Sends `request` again and again, whatever the answer, until `stop`.
fn repeat(address: &str, request: &[u8], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut http) = Wire::connect(address) else { continue };
        while !stop.load(Ordering::Relaxed) && http.ask(request, http_length).is_ok() {}
    }
}

impl Bench {
    /// Single criticals, and a hundred in one delivery, with and without the load of others.
    pub fn fair(&mut self) -> Result<()> {
        let turns = if self.quick { 100 } else { 500 };
        let flipped = self.prompts(50_000)?;
        let (quiet, busy) = (self.prompts(turns * (1 + MANY))?, self.prompts(turns * (1 + MANY))?);
        let load = [
            short(flipped.map(|number| (name(number), "v2.1.0".to_owned()))),
            short((0..40_000).map(|version| (name(0), format!("v{version}")))),
            b"GET /api/prompts?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            b"GET /api/log?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ];
        let [mut single, mut many] = self.criticals(quiet)?;
        let (address, stop) = (self.receiver.addr(), AtomicBool::new(false));
        let found = std::thread::scope(|scope| {
            for request in &load {
                scope.spawn(|| repeat(&address, request, &stop));
            }
            std::thread::sleep(Duration::from_secs(1));
            let found = self.criticals(busy);
            stop.store(true, Ordering::Relaxed);
            found
        });
        let [mut single_busy, mut many_busy] = found?;
        for (what, quiet, busy) in [
            ("a critical beside huge deliveries and lists, p99", &mut single, &mut single_busy),
            ("100 criticals in one body beside them, p99", &mut many, &mut many_busy),
        ] {
            let (quiet, busy) = (quiet.quantile(0.99), busy.quantile(0.99));
            let found = format!("{} ({} without them)", ms(busy), ms(quiet));
            self.report(what, found, "< 50 ms more", busy - quiet < 0.05);
        }
        Ok(())
    }

    /// In turns: one critical, and [`MANY`] in one delivery.
    fn criticals(&self, mut numbers: Range<u64>) -> Result<[Times; 2]> {
        let mut http = Wire::connect(&self.receiver.addr())?;
        let mut times = [Times::default(), Times::default()];
        while !numbers.is_empty() {
            for (times, alerts) in times.iter_mut().zip([1, MANY]) {
                let request = webhook(numbers.start..numbers.start + alerts);
                numbers.start += alerts;
                let answer = times.time(|| http.ask(&request, http_length))?;
                let rolled_back = outcomes(answer, "rolled_back");
                ensure!(rolled_back as u64 == alerts, "{rolled_back} of {alerts} were rolled back");
            }
        }
        Ok(times)
    }

    /// The receiver's CPU time for one exposition of 20,000 prompts: read from Redis, and from the last reading.
    pub fn metrics(&mut self) -> Result<()> {
        const EACH: u32 = 20;
        let redis = Redis::start()?;
        self.model.seed(&redis, 0..20_000)?;
        let mut receiver = receiver(&redis)?;
        settle(&redis)?;
        let mut http = Wire::connect(&receiver.addr())?;
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let [mut read, mut shared] = [Duration::ZERO; 2];
        for _ in 0..EACH {
            std::thread::sleep(Duration::from_millis(1_100));
            for spent in [&mut read, &mut shared] {
                let before = receiver.process().computed();
                http.ask(request, http_length)?;
                *spent += receiver.process().computed() - before;
            }
        }
        let [read, shared] = [read, shared].map(|spent| spent.as_secs_f64() / f64::from(EACH));
        let found = format!("{} ({} for another client of the same second)", ms(read), ms(shared));
        self.report("CPU of one exposition of 20,000 prompts", found, "< 50 ms", read < 0.05);
        Ok(())
    }
}
