//! The last line on the screen: what the demo waits for.

use std::io::{IsTerminal, Write, stdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Shorter waits are not shown.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a wait is repeated if lines cannot be redrawn.
const AGAIN: Duration = Duration::from_secs(60);
const FRAME: Duration = Duration::from_millis(100);
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// Moves to the start of the line, and clears it.
const CLEAR: &str = "\r\x1b[K";

/// Standard output. On a terminal, a wait is one line that is redrawn; elsewhere, such as in a log, it is a line per
/// minute.
pub struct Screen {
    state: Arc<Mutex<State>>,
}

/// Shows a wait until it is dropped.
pub struct WaitMessage(Arc<Mutex<State>>);

struct State {
    terminal: bool,
    wait: Option<Wait>,
    drawn: bool,
}

struct Wait {
    text: String,
    since: Instant,
    /// If lines cannot be redrawn: how often it was printed.
    said: u32,
}

impl Screen {
    pub fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let state = State { terminal: stdout().is_terminal() && !dumb, wait: None, drawn: false };
        let state = Arc::new(Mutex::new(state));
        let watched = Arc::downgrade(&state);
        // on another thread, because starting a server blocks
        thread::spawn(move || {
            while let Some(state) = watched.upgrade() {
                let mut state = lock(&state);
                if let Some(text) = state.tick(Instant::now()) {
                    put(&text);
                }
                drop(state);
                thread::sleep(FRAME);
            }
        });
        Self { state }
    }

    /// Whether lines can be redrawn, and colors shown.
    pub fn is_terminal(&self) -> bool {
        lock(&self.state).terminal
    }

    /// Prints a line above the current wait.
    pub fn line(&self, text: &str) {
        let mut state = lock(&self.state);
        let clear = state.clear();
        put(&format!("{clear}{text}\n"));
    }

    /// Shows "waiting for `what`" once that has taken a second.
    pub fn waiting(&self, what: &str) -> WaitMessage {
        let text = format!("waiting for {what}");
        lock(&self.state).wait = Some(Wait { text, since: Instant::now(), said: 0 });
        WaitMessage(self.state.clone())
    }
}

impl WaitMessage {
    /// Updates the progress, on a terminal.
    pub fn say(&self, text: String) {
        if let Some(wait) = &mut lock(&self.0).wait {
            wait.text = text;
        }
    }
}

impl Drop for WaitMessage {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.wait = None;
        put(&state.clear());
    }
}

impl State {
    /// The text to write now.
    fn tick(&mut self, now: Instant) -> Option<String> {
        let wait = self.wait.as_mut()?;
        let waited = now.saturating_duration_since(wait.since);
        if waited < PATIENCE + AGAIN * wait.said {
            return None;
        }
        let (text, seconds) = (&wait.text, waited.as_secs());
        if !self.terminal {
            wait.said += 1;
            return Some(format!("         … {text}\n"));
        }
        self.drawn = true;
        let frame = SPINNER[(waited.as_millis() / FRAME.as_millis()) as usize % SPINNER.len()];
        // a line that is too long for the terminal is cut, because a wrapped line cannot be redrawn
        Some(format!("{CLEAR}\x1b[?7l\x1b[2m         {frame} {text} ({seconds} s)\x1b[0m\x1b[?7h"))
    }

    /// Text that removes the drawn line.
    fn clear(&mut self) -> String {
        let drawn = std::mem::take(&mut self.drawn);
        if drawn { CLEAR.to_owned() } else { String::new() }
    }
}

/// Ignores errors: standard output may be closed.
fn put(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of `seconds`, with a tick every tenth of a second.
    fn written(terminal: bool, seconds: u32) -> Vec<String> {
        let since = Instant::now();
        let wait = Wait { text: "waiting for Godot".to_owned(), since, said: 0 };
        let mut state = State { terminal, wait: Some(wait), drawn: false };
        (0..seconds * 10).filter_map(|tenth| state.tick(since + FRAME * tenth)).collect()
    }

    #[test]
    fn a_short_wait_is_not_mentioned() {
        assert!(written(true, 1).is_empty() && written(false, 1).is_empty());
    }

    #[test]
    fn a_log_gets_a_line_a_minute_without_control_characters() {
        assert_eq!(written(false, 50), ["         … waiting for Godot\n"]);
        assert_eq!(written(false, 150).len(), 3);
    }

    #[test]
    fn a_terminal_gets_one_line_that_is_drawn_over() {
        let frames = written(true, 3);
        assert_eq!(frames.len(), 20);
        assert!(frames.iter().all(|frame| frame.starts_with(CLEAR) && !frame.contains('\n')), "{frames:?}");
        assert!(frames[19].contains("waiting for Godot (2 s)"), "{frames:?}");
    }

    #[test]
    fn the_progress_line_is_cleared_once() {
        let since = Instant::now();
        let wait = Wait { text: String::new(), since, said: 0 };
        let mut state = State { terminal: true, wait: Some(wait), drawn: false };
        assert_eq!(state.clear(), "");
        state.tick(since + PATIENCE);
        assert_eq!([state.clear(), state.clear()], [CLEAR, ""]);
    }
}
