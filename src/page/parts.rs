//! What several pages show: texts from outside, times, links, shares of traffic and figures.

use std::time::Duration;

use maud::{Escaper, Markup, Render, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::decision::time::spoken;
use crate::decision::{LogEvent, Operator, Timestamp};
use crate::events::rfc3339;
use crate::figures::{Figure, Figures, Health, Known, Rating, Signal, VersionFigures};
use crate::visible::{is_hidden, misleads, shown_name};

/// A text from outside, escaped, without characters that hide something or turn the direction of writing.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub &'a str);

impl Render for Text<'_> {
    fn render_to(&self, page: &mut String) {
        use std::fmt::Write as _;
        let shown: String = self.0.chars().filter_map(visible).collect();
        let _ = Escaper::new(page).write_str(&shown);
    }
}

fn visible(c: char) -> Option<char> {
    match c {
        '\n' | '\r' | '\t' => Some(' '),
        c => (!is_hidden(c)).then_some(c),
    }
}

/// A text for an attribute, without the same characters.
pub fn shown(text: &str) -> String {
    text.chars().filter_map(visible).collect()
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

pub fn prompt_path(prompt: &str) -> String {
    format!("/prompts/{}", segment(prompt))
}

pub fn prompt_link(prompt: &str) -> Markup {
    html! { a href=(prompt_path(prompt)) { (Text(&shown_name(prompt))) } }
}

pub fn incident_link(id: &str, label: &str) -> Markup {
    html! { a href=(format!("/incidents/{}", segment(id))) { (Text(label)) } }
}

/// An address that may become a link: http or https, and nothing in it that hides where it leads.
pub fn address(url: &str) -> Option<&str> {
    let url = url.trim();
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))?;
    let has_host = url[scheme.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '[');
    (has_host && !misleads(url) && !url.chars().any(|c| is_hidden(c) || c.is_whitespace())).then_some(url)
}

/// A link to another site; `None` for an address that is not safe.
pub fn outward(label: &str, url: &str) -> Option<Markup> {
    let url = address(url)?;
    Some(html! { a href=(url) rel="noopener noreferrer" { (label) } })
}

/// A moment. The script shows it in the reader's time zone.
pub fn time(at: Timestamp) -> Markup {
    let text = rfc3339(at);
    match text.parse::<jiff::Timestamp>() {
        Ok(moment) => {
            let full = moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
            html! { time datetime=(text) title=(full) { (moment.strftime("%Y-%m-%d %H:%M UTC").to_string()) } }
        }
        Err(_) => html! { (text) },
    }
}

/// A moment of the API.
pub fn time_of(text: &str) -> Markup {
    match text.parse::<jiff::Timestamp>() {
        Ok(moment) => time(Timestamp(moment.as_millisecond())),
        Err(_) => html! { (Text(text)) },
    }
}

/// How long ago, or how long until then. The script keeps it true.
pub fn distance(at: Timestamp, now: Timestamp) -> Markup {
    let text =
        if at > now { format!("in {}", spoken(at.since(now))) } else { format!("{} ago", spoken(now.since(at))) };
    html! { span data-at=(at.0) { (text) } }
}

/// How much time is left. The script counts it down, and reads the page again at its end.
pub fn left(left: Duration) -> Markup {
    html! { span data-left=(left.as_secs()) { (spoken(left)) " left" } }
}

pub fn seconds(seconds: u64) -> String {
    spoken(Duration::from_secs(seconds))
}

/// Who did it, as the log names them.
pub fn who(operator: &str) -> Markup {
    let recorded = Operator::recorded(operator);
    html! {
        @if recorded.is_system() { "prompt-rollback itself" }
        @else if recorded == Operator::EXTERNAL { "someone, directly in Redis" }
        @else { (Text(operator)) }
    }
}

/// How a version came to serve.
pub fn how(event: &str) -> &'static str {
    match LogEvent::parse(event) {
        Some(LogEvent::Activate) => "activated",
        Some(LogEvent::Rollback) => "rolled back",
        Some(LogEvent::Canary) => "canary",
        Some(LogEvent::Gradual) => "gradual rollback",
        Some(LogEvent::External) => "set in Redis",
        // these move no traffic
        Some(LogEvent::MarkBad | LogEvent::MarkGood | LogEvent::Soaked) | None => "changed",
    }
}

/// A state as a word in a colored frame.
pub fn badge(tone: Tone, word: &str) -> Markup {
    html! { span class=(format!("badge {}", tone.class())) { (Text(word)) } }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Bad,
    Watch,
    Fine,
    Info,
    Off,
}

impl Tone {
    pub fn class(self) -> &'static str {
        match self {
            Tone::Bad => "bad",
            Tone::Watch => "watch",
            Tone::Fine => "fine",
            Tone::Info => "info",
            Tone::Off => "off",
        }
    }
}

impl From<Rating> for Tone {
    fn from(rating: Rating) -> Self {
        match rating {
            Rating::Bad => Tone::Bad,
            Rating::Watch => Tone::Watch,
            Rating::Fine => Tone::Fine,
        }
    }
}

/// The traffic of each version as a bar. Names beside it say the same.
pub fn bar(shares: &[(String, u8)]) -> Markup {
    let label = shares.iter().map(|(version, percent)| format!("{} {percent} %", shown(version)));
    let label = format!("Traffic: {}", label.collect::<Vec<_>>().join(", "));
    let starts = shares.iter().scan(0_u32, |from, (_, percent)| {
        let start = *from;
        *from += u32::from(*percent);
        Some(start)
    });
    html! {
        svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label=(label) {
            @for (at, ((_, percent), start)) in shares.iter().zip(starts).enumerate() {
                rect class=(format!("share{}", at % 4)) x=(start) y="0" width=(percent) height="6" {}
            }
        }
    }
}

/// Why values are missing: without this, a version whose bad value could not be read looks fine.
pub fn incomplete(known: &Known) -> Markup {
    let Known::Since(_, figures) = known else { return html! {} };
    html! {
        @if let Some(fault) = &figures.fault {
            div class="banner watch" { p { "Health is incomplete: " (Text(fault)) } }
        }
    }
}

/// How many prompt servers serve which version. Some may not have followed yet.
pub fn servers(known: &Known, prompt: &str) -> Markup {
    let Known::Since(_, figures) = known else { return html! {} };
    let one = |(version, servers): (&str, f64)| {
        let noun = if servers == 1.0 { "server" } else { "servers" };
        format!("{} by {} {noun}", shown(version), number(servers, 0))
    };
    let served: Vec<String> = figures.servers(prompt).into_iter().map(one).collect();
    html! {
        @if let Some(fault) = &figures.servers_fault {
            div class="quiet" { "Servers are not counted: " (Text(fault)) }
        }
        @if !served.is_empty() {
            div class="quiet" { "Served in the last 2 min: " (served.join(", ")) }
        }
    }
}

/// What is measured of one version, with the last hour of each signal.
pub fn health(known: &Known, prompt: &str, version: &str) -> Markup {
    let figures = match known {
        Known::NotMeasured => return html! { span class="quiet" { "not measured: no Prometheus is configured" } },
        Known::Awaited => return html! { span class="quiet" aria-busy="true" { "asking Prometheus …" } },
        Known::Since(_, figures) => figures,
    };
    let found = figures.of(prompt, version).cloned().unwrap_or_default();
    html! {
        @match found.health() {
            Health::Blind => { (blind(figures, &found)) }
            Health::TooLittle => {
                (badge(Tone::Off, "too little traffic"))
                span class="quiet" { (requests(&found)) }
            }
            Health::Measured(_) => {}
        }
        @for signal in Signal::ALL { (figure(signal, found.of(signal))) }
    }
}

fn blind(figures: &Figures, version: &VersionFigures) -> Markup {
    let why = match (&figures.fault, version.requests) {
        (Some(fault), _) => shown(fault),
        (None, Some(_)) if version.of(Signal::Errors).is_blind() => {
            format!("{}, and no rule can judge its errors", requests(version))
        }
        (None, Some(_)) => format!("{}, and nothing else is measured", requests(version)),
        (None, None) => "Prometheus has no series of this version".to_owned(),
    };
    html! { (badge(Tone::Off, "blind")) span class="quiet" { (why) } }
}

fn requests(version: &VersionFigures) -> String {
    format!("{} requests in 5 min", number(version.requests.unwrap_or_default(), 0))
}

/// A value with its comparison; nothing if it was not measured in the last hour.
fn figure(signal: Signal, figure: &Figure) -> Markup {
    let measured = figure.now.is_some() || figure.line.iter().any(|value| value.is_finite());
    if !measured {
        return html! {};
    }
    let tone = figure.rating(signal).map_or(Tone::Off, Tone::from);
    let value = figure.now.map_or("no value".to_owned(), |now| value(signal, now));
    html! {
        span class=(format!("figure {}", tone.class())) title=(limits(signal)) {
            span class="label" { (signal.label()) } " "
            span class="value" { (value) } " "
            @if let Some(compared) = compared(signal, figure) { span class="quiet" { (compared) } " " }
            (spark(signal, figure))
        }
    }
}

pub fn value(signal: Signal, value: f64) -> String {
    match signal {
        Signal::Errors => format!("{} %", number(value * 100.0, 2)),
        Signal::P99 if value < 1.0 => format!("{} ms", number(value * 1e3, 0)),
        Signal::P99 => format!("{} s", number(value, 2)),
        Signal::Quality => number(value, 3),
    }
}

/// A number that fits into a cell.
fn number(value: f64, digits: usize) -> String {
    if value.abs() < 1e6 { format!("{value:.digits$}") } else { format!("{value:.1e}") }
}

/// With the baseline and, if it is exceeded, with the threshold.
fn compared(signal: Signal, figure: &Figure) -> Option<String> {
    let parts = [with_baseline(signal, figure), exceeded(signal, figure)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn with_baseline(signal: Signal, figure: &Figure) -> Option<String> {
    let (now, baseline) = (figure.now?, figure.baseline.filter(|baseline| *baseline > 0.0)?);
    match signal {
        Signal::Errors => None,
        Signal::P99 => Some(format!("{}× the baseline", number(now / baseline, 1))),
        Signal::Quality => {
            let change = (now / baseline - 1.0) * 100.0;
            Some(format!("{} % {} the baseline", number(change.abs(), 0), if change < 0.0 { "below" } else { "above" }))
        }
    }
}

/// The highest threshold that the value exceeds. Color alone does not reach everybody.
fn exceeded(signal: Signal, figure: &Figure) -> Option<String> {
    let (watch, bad) = signal.limits();
    let limit = match figure.rating(signal)? {
        Rating::Fine => return None,
        Rating::Watch => watch,
        Rating::Bad => bad,
    };
    Some(match signal {
        Signal::Errors => format!("above {:.0} %", limit * 1e2),
        Signal::P99 => format!("above {limit}×"),
        Signal::Quality => format!("more than {:.0} %", limit * 1e2),
    })
}

fn limits(signal: Signal) -> String {
    let (watch, bad) = signal.limits();
    match signal {
        Signal::Errors => {
            format!("The shipped rules ask people above {:.0} % and roll back above {:.0} %.", watch * 1e2, bad * 1e2)
        }
        Signal::P99 => format!("The shipped rules observe above {watch}× the baseline and ask people above {bad}×."),
        Signal::Quality => {
            format!(
                "The shipped rules observe a drop above {:.0} % and ask people above {:.0} %.",
                watch * 1e2,
                bad * 1e2
            )
        }
    }
}

const WIDTH: f64 = 60.0;
const HEIGHT: f64 = 16.0;

/// The last hour as a line, with gaps.
fn spark(signal: Signal, figure: &Figure) -> Markup {
    let finite = || figure.line.iter().copied().filter(|value| value.is_finite());
    let (least, most) = finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if finite().count() < 2 {
        return html! {};
    }
    // errors are drawn from zero, so that a quiet version looks quiet
    let (floor, ceiling) = match signal {
        Signal::Errors => (0.0, most.max(signal.limits().0)),
        Signal::P99 | Signal::Quality => (least - 0.1 * (most - least), most + 0.1 * (most - least)),
    };
    let span = if ceiling > floor { ceiling - floor } else { 1.0 };
    let step = WIDTH / (figure.line.len() - 1) as f64;
    let point = |(at, value): (usize, &f64)| {
        format!("{:.1},{:.1}", at as f64 * step, HEIGHT - 1.0 - (value - floor) / span * (HEIGHT - 2.0))
    };
    let places: Vec<(usize, &f64)> = figure.line.iter().enumerate().collect();
    let pieces = places.split(|(_, value)| !value.is_finite()).filter(|piece| !piece.is_empty());
    let label =
        format!("{} in the last hour: from {} to {}", signal.label(), value(signal, least), value(signal, most));
    html! {
        svg class="spark" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) {
            @for piece in pieces {
                polyline points=(piece.iter().copied().map(point).collect::<Vec<_>>().join(" ")) {}
            }
        }
    }
}
