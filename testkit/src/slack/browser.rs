//! A headless Chromium that opens a page and acts like a person.

use crate::http::Http;
use crate::{Dir, PATIENCE, Process, ProcessBuilder, eventually};
use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// A running browser with one page; ends when dropped. Debian's package `chromium`.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last_id: u64,
    _process: Process,
    _dir: Dir,
}

impl Browser {
    /// Starts a browser on this page.
    pub async fn open(url: &str) -> Result<Self> {
        let dir = Dir::new("browser")?;
        let profile = dir.path().join("profile");
        let port_file = profile.join("DevToolsActivePort");
        // no sandbox: in a container the browser runs as root, and it opens only the double's page
        let process = ProcessBuilder::new("chromium", dir.path())
            .env("HOME", dir.path())
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--window-size=1400,900", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .spawn_until(|| read_port(&port_file).is_some())
            .context("start the browser (Debian: chromium)")?;
        let port = read_port(&port_file).context("the browser's debugging port")?;
        let http = Http::new(format!("http://127.0.0.1:{port}"));
        let target = eventually("chromium's page", PATIENCE, async || {
            let pages = http.get("/json/list").await.ok()?.json().ok()?;
            let page = pages.as_array()?.iter().find(|page| page["type"] == "page")?;
            page["webSocketDebuggerUrl"].as_str().map(str::to_owned)
        });
        let (socket, _) = connect_async(target.await?).await?;
        Ok(Self { socket, last_id: 0, _process: process, _dir: dir })
    }

    /// The value of a JavaScript expression on the page; a promise is awaited.
    pub async fn eval(&mut self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.command("Runtime.evaluate", params).await?;
        if let Some(details) = answer.get("exceptionDetails") {
            bail!("{expression}: {}", details["exception"]["description"]);
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Evaluates until it is neither null, false, 0 nor empty; fails with `what` after `within`.
    pub async fn until(&mut self, what: &str, within: Duration, expression: &str) -> Result<Value> {
        let expression = format!("({expression}) || null");
        let deadline = std::time::Instant::now() + within;
        loop {
            match self.eval(&expression).await? {
                Value::Null if std::time::Instant::now() > deadline => bail!("not within {within:?}: {what}"),
                Value::Null => tokio::time::sleep(Duration::from_millis(50)).await, // between two looks
                value => return Ok(value),
            }
        }
    }

    /// Waits for the element with this CSS selector, and clicks on it with the mouse.
    pub async fn click(&mut self, selector: &str) -> Result<()> {
        let quoted = Value::from(selector);
        let place = format!(
            "(() => {{ const node = document.querySelector({quoted}); if (!node || node.disabled) return null;
             node.scrollIntoView({{ block: 'center' }}); const box = node.getBoundingClientRect();
             return box.width ? [box.x + box.width / 2, box.y + box.height / 2] : null; }})()"
        );
        let place = self.until(&format!("an element {selector}"), PATIENCE, &place).await?;
        for event in ["mousePressed", "mouseReleased"] {
            let params = json!({"type": event, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.command("Input.dispatchMouseEvent", params).await?;
        }
        Ok(())
    }

    /// Chooses this value of the menu with this CSS selector.
    pub async fn choose(&mut self, selector: &str, value: &str) -> Result<()> {
        let (quoted, value) = (Value::from(selector), Value::from(value));
        let choose = format!(
            "(() => {{ const menu = document.querySelector({quoted}); if (!menu) return false;
             menu.value = {value}; menu.dispatchEvent(new Event('change')); return menu.value === {value}; }})()"
        );
        self.until(&format!("a menu {selector} with {value}"), PATIENCE, &choose).await.map(drop)
    }

    /// Writes a picture of the page (PNG).
    pub async fn screenshot(&mut self, path: impl Into<PathBuf>) -> Result<()> {
        let answer = self.command("Page.captureScreenshot", json!({"format": "png"})).await?;
        let data = answer["data"].as_str().context("a picture")?;
        let path = path.into();
        fs::write(&path, decode_base64(data)?).with_context(|| format!("write {}", path.display()))
    }

    async fn command(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let command = json!({"id": id, "method": method, "params": params});
        self.socket.send(Frame::text(command.to_string())).await?;
        let answer = async {
            // events arrive between command and answer, and are ignored
            while let Some(frame) = self.socket.next().await {
                let answer: Value = match frame? {
                    Frame::Text(text) => serde_json::from_str(&text)?,
                    _ => continue,
                };
                if answer["id"] == id {
                    return Ok(answer);
                }
            }
            bail!("the browser ended")
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let mut answer = answer.with_context(|| format!("{method}: no answer within {PATIENCE:?}"))??;
        if let Some(error) = answer.get("error") {
            bail!("{method}: {error}");
        }
        Ok(answer["result"].take())
    }
}

fn read_port(file: &Path) -> Option<u16> {
    fs::read_to_string(file).ok()?.lines().next()?.parse().ok()
}

fn decode_base64(text: &str) -> Result<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut buffer, mut bits) = (Vec::with_capacity(text.len() * 3 / 4), 0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = ALPHABET.iter().position(|known| *known == letter).context("a letter outside of base64")?;
        buffer = buffer << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    Ok(bytes)
}
