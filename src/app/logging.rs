//! Log lines and, where that is configured, the export of spans.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry, reload};

use super::otlp::Exporter;
use crate::config::{Config, LogFormat, LogLevel};
use crate::visible::LogLines;

/// Starts logging. Returns a function that changes the level, for a reload.
pub(super) fn init(config: &Config, exporter: Option<&Exporter>) -> Box<dyn Fn(LogLevel)> {
    let given = EnvFilter::try_from_env("PROMPT_ROLLBACK_LOG_FILTER").ok();
    let follows = given.is_none();
    let filter = given.unwrap_or_else(|| of_level(config.log.level));
    macro_rules! init {
        ($lines:expr) => {
            match exporter {
                // one filter for everything: what it leaves out costs nothing
                None => {
                    let (filter, handle) = reload::Layer::new(filter);
                    registry().with($lines).with(filter).init();
                    change(handle, follows)
                }
                Some(exporter) => {
                    let (filter, handle) = reload::Layer::new(filter);
                    registry().with(exporter.layer()).with($lines.with_filter(filter)).init();
                    change(handle, follows)
                }
            }
        };
    }
    match config.log.format {
        LogFormat::Text => init!(fmt::layer().with_writer(LogLines(stderr)).with_ansi(stderr().is_terminal())),
        // the innermost span has all that there is to say
        LogFormat::Json => init!(fmt::layer().with_writer(LogLines(stderr)).json().with_span_list(false)),
    }
}

fn of_level(level: LogLevel) -> EnvFilter {
    EnvFilter::new(level.as_str())
}

fn change<S: 'static>(handle: reload::Handle<EnvFilter, S>, follows: bool) -> Box<dyn Fn(LogLevel)> {
    Box::new(move |level| {
        if follows {
            let _ = handle.reload(of_level(level));
        }
    })
}
