//! The two kinds of text in a message.
//!
//! [`Markup`] is written by prompt-rollback: fixed words, and typed pieces that cannot be anything else. External text
//! (annotations, reasons, people's names) goes into [`literal`], whose objects Slack shows unchanged: no mention, no
//! link, no formatting, no emoji. So nothing needs escaping, and escaping cannot be forgotten.

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use slack_morphism::prelude::{SlackBlockMarkDownText, SlackBlockPlainText};

use crate::config::Decider;
use crate::decision::time::spoken;
use crate::decision::{Operator, Timestamp};
use crate::visible::{is_hidden, misleads};
use crate::wording::took;

/// Longest address that becomes a link.
const MAX_URL: usize = 2_000;
/// Longest name in a code span.
const MAX_CODE: usize = 200;
/// Characters that would end a link's address early.
const IN_URL: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'|').add(b'`');

/// mrkdwn that consists of fixed words and of pieces that cannot contain markup.
#[derive(Debug, Default)]
pub struct Markup(String);

impl Markup {
    pub fn words(words: &'static str) -> Self {
        Self::default().and(words)
    }

    pub fn and(mut self, words: &'static str) -> Self {
        self.0.push_str(words);
        self
    }

    /// A name, shown literally.
    pub fn code(mut self, name: &str) -> Self {
        self.0.push_str(&code_span(&fit(name, MAX_CODE)));
        self
    }

    pub fn count(mut self, count: usize) -> Self {
        self.0.push_str(&count.to_string());
        self
    }

    /// Appends `next`.
    pub fn then(mut self, next: Self) -> Self {
        self.0.push_str(&next.0);
        self
    }

    /// A moment, in the reader's time zone.
    pub fn date(mut self, at: Timestamp) -> Self {
        let seconds = at.0.div_euclid(1_000);
        match jiff::Timestamp::from_second(seconds) {
            Ok(moment) => {
                let fallback = moment.strftime("%Y-%m-%d %H:%M UTC");
                self.0.push_str(&format!("<!date^{seconds}^{{date_short_pretty}} {{time_secs}}|{fallback}>"));
            }
            Err(_) => self.0.push_str("some day"),
        }
        self
    }

    /// How long before something else.
    pub fn before(mut self, duration: Duration) -> Self {
        self.0.push_str(&spoken(duration));
        self.and(" before")
    }

    pub fn took(mut self, duration: Duration) -> Self {
        self.0.push_str(&took(duration));
        self
    }

    /// Mentions people. The only way to do so; `mention` comes from the config.
    pub fn mention(mut self, mention: Option<&str>) -> Self {
        if let Some(mention) = mention.filter(|mention| mention.len() <= Decider::MAX_MENTION) {
            self.0.push_str(mention);
        }
        self
    }

    pub fn link(mut self, label: &'static str, address: &LinkAddress) -> Self {
        self.0.push_str(&format!("<{}|{label}>", address.0));
        self
    }

    /// `verbatim`: Slack adds no links or mentions of its own.
    pub fn object(self) -> SlackBlockMarkDownText {
        SlackBlockMarkDownText::new(self.0).with_verbatim(true)
    }
}

/// An address that may become a link: http or https, of bounded length, without a user before the host, and encoded so
/// that it cannot end early.
#[derive(Debug)]
pub struct LinkAddress(String);

impl LinkAddress {
    pub fn parse(url: &str) -> Option<Self> {
        let url = url.trim();
        let rest = ["http://", "https://"]
            .iter()
            .find_map(|scheme| url.get(..scheme.len())?.eq_ignore_ascii_case(scheme).then(|| &url[scheme.len()..]))?;
        let has_host = rest.starts_with(|c: char| c.is_alphanumeric() || c == '[');
        // an ellipsis shows that someone shortened it, so it leads nowhere
        if !has_host || misleads(url) || url.len() > MAX_URL || url.ends_with('…') {
            return None;
        }
        let encoded = utf8_percent_encode(url, IN_URL).to_string().replace('&', "&amp;");
        (encoded.len() <= MAX_URL).then_some(Self(encoded))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// External text, shown unchanged. The caller limits it with [`fit`].
pub fn literal(text: impl Into<String>) -> SlackBlockPlainText {
    SlackBlockPlainText::new(text.into()).with_emoji(false)
}

/// One line of at most `most` characters, as Slack counts in the worst case: UTF-16 units after escaping. White space
/// and control characters become single spaces; invisible characters and those that turn the direction of writing are
/// removed.
pub fn fit(text: &str, most: usize) -> String {
    let (mut line, mut room, mut gap) = (String::new(), most.saturating_sub(1), false);
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = !line.is_empty();
            continue;
        }
        if is_hidden(c) {
            continue;
        }
        let needed = cost(c) + usize::from(gap);
        if needed > room {
            line.push('…');
            break;
        }
        if std::mem::take(&mut gap) {
            line.push(' ');
        }
        line.push(c);
        room -= needed;
    }
    line
}

/// An operator, shortened like [`fit`], but without cutting what verifies it.
pub fn who(operator: &str, most: usize) -> String {
    /// Longest id or token name.
    const MAX_PROOF: usize = 40;
    let operator = Operator::recorded(operator);
    match operator.parts() {
        (name, Some(proof)) if proof.len() <= MAX_PROOF => {
            let proof = format!(" ({})", fit(proof, MAX_PROOF + 1));
            let room = most.saturating_sub(proof.chars().map(cost).sum());
            fit(name, room) + &proof
        }
        _ => fit(operator.as_str(), most),
    }
}

fn cost(c: char) -> usize {
    match c {
        '&' => "&amp;".len(),
        '<' | '>' => "&lt;".len(),
        c => c.len_utf16(),
    }
}

/// Escapes the three characters that control mrkdwn.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A code span in mrkdwn. A backtick cannot be escaped there, so it is replaced with a similar character.
pub fn code_span(text: &str) -> String {
    let text = escape(text).replace('`', "ˋ");
    match text.contains('\n') {
        true => format!("```\n{text}\n```"),
        false if text.is_empty() => "–".to_owned(),
        false => format!("`{text}`"),
    }
}
