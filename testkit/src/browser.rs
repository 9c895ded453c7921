//! A headless Chromium that opens a page and acts like a person.

use crate::http::Http;
use crate::{Dir, PATIENCE, Process, ProcessBuilder, eventually};
use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine as _};
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
    errors: Vec<String>,
    requests: Vec<String>,
    _process: Process,
    _dir: Dir,
}

impl Browser {
    /// Starts a browser on this page.
    pub async fn open(url: &str) -> Result<Self> {
        let dir = Dir::new("browser")?;
        let profile = dir.path().join("profile");
        let port_file = profile.join("DevToolsActivePort");
        // no sandbox: in a container the browser runs as root, and it opens only pages of this machine
        let process = ProcessBuilder::new("chromium", dir.path())
            .env("HOME", dir.path())
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            // sites with a name, and without the privileges that browsers grant to a loopback address
            .arg("--host-resolver-rules=MAP *.test 127.0.0.1")
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
        let (errors, requests) = (Vec::new(), Vec::new());
        let mut browser = Self { socket, last_id: 0, errors, requests, _process: process, _dir: dir };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.command(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(browser)
    }

    /// Goes to this address, and waits until the page is loaded.
    pub async fn goto(&mut self, url: &str) -> Result<()> {
        self.command("Page.navigate", json!({"url": url})).await?;
        let loaded = format!("document.readyState === 'complete' && location.href === {}", Value::from(url));
        self.until(&format!("{url} is loaded"), PATIENCE, &loaded).await.map(drop)
    }

    /// What the console has complained about so far: exceptions, violations of the page's policy, failed requests.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// The addresses that have been requested so far.
    pub fn requests(&self) -> &[String] {
        &self.requests
    }

    /// The size of the window in CSS pixels, and whether it is a phone's.
    pub async fn resize(&mut self, width: u32, height: u32, mobile: bool) -> Result<()> {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.command("Emulation.setDeviceMetricsOverride", metrics).await.map(drop)
    }

    /// Whether the person prefers dark pages.
    pub async fn prefer_dark(&mut self, dark: bool) -> Result<()> {
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.command("Emulation.setEmulatedMedia", features).await.map(drop)
    }

    /// Whether pages that are loaded from now on run their scripts.
    pub async fn run_scripts(&mut self, run: bool) -> Result<()> {
        self.command("Emulation.setScriptExecutionDisabled", json!({"value": !run})).await.map(drop)
    }

    /// The zone of the person's clock, such as `Asia/Tokyo`.
    pub async fn set_zone(&mut self, zone: &str) -> Result<()> {
        self.command("Emulation.setTimezoneOverride", json!({"timezoneId": zone})).await.map(drop)
    }

    /// Types into the element with the focus.
    pub async fn type_text(&mut self, text: &str) -> Result<()> {
        self.command("Input.insertText", json!({"text": text})).await.map(drop)
    }

    /// Presses Tab, Enter or Escape.
    pub async fn press(&mut self, key: &str) -> Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            _ => bail!("no key {key}"),
        };
        for event in ["keyDown", "keyUp"] {
            let mut params = json!({"type": event, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if (key, event) == ("Enter", "keyDown") {
                params["text"] = "\r".into();
            }
            self.command("Input.dispatchKeyEvent", params).await?;
        }
        Ok(())
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
            let value = match self.eval(&expression).await {
                // another page is being loaded
                Err(error) if ["context", "navigated"].iter().any(|word| error.to_string().contains(word)) => {
                    Value::Null
                }
                value => value?,
            };
            match value {
                Value::Null if std::time::Instant::now() > deadline => bail!("not within {within:?}: {what}"),
                Value::Null => tokio::time::sleep(Duration::from_millis(50)).await, // between two looks
                value => return Ok(value),
            }
        }
    }

    /// Waits for the element with this CSS selector, and clicks on it with the mouse.
    pub async fn click(&mut self, selector: &str) -> Result<()> {
        let place = self.place(selector, &by_selector(selector)).await?;
        self.click_at(&place).await
    }

    /// Waits for a visible button or link with this label, and clicks on it with the mouse.
    pub async fn click_label(&mut self, label: &str) -> Result<()> {
        let place = self.place(label, &by_label(label)).await?;
        self.click_at(&place).await
    }

    /// Clicks like [`click_label`](Self::click_label), and again at the same place once the expression holds. `count`: 2
    /// if that is the second half of a double click, 1 for a click of its own.
    pub async fn click_label_twice(&mut self, label: &str, between: &str, count: u8) -> Result<()> {
        let place = self.place(label, &by_label(label)).await?;
        self.click_at(&place).await?;
        self.until(between, PATIENCE, between).await?;
        self.mouse("mousePressed", &place, count).await?;
        self.mouse("mouseReleased", &place, count).await
    }

    /// The first half of a click.
    pub async fn press_mouse(&mut self, selector: &str) -> Result<()> {
        let place = self.place(selector, &by_selector(selector)).await?;
        self.mouse("mousePressed", &place, 1).await
    }

    /// The second half of a click.
    pub async fn release_mouse(&mut self, selector: &str) -> Result<()> {
        let place = self.place(selector, &by_selector(selector)).await?;
        self.mouse("mouseReleased", &place, 1).await
    }

    /// Where the middle of a node is, once it stands still and nothing lies above it.
    async fn place(&mut self, what: &str, node: &str) -> Result<Value> {
        let place = format!(
            "(async () => {{ const node = {node}; if (!node || node.disabled || node.ariaDisabled) return null;
             node.scrollIntoView({{ block: 'center' }});
             const middle = () => {{ const box = node.getBoundingClientRect();
             return [box.x + box.width / 2, box.y + box.height / 2]; }};
             const before = middle();
             for (const _ of [1, 2]) await new Promise(requestAnimationFrame);
             const place = middle();
             return before.join() === place.join() && node.contains(document.elementFromPoint(...place)) ? place : null;
             }})()"
        );
        self.until(&format!("an element {what} that can be clicked"), PATIENCE, &place).await
    }

    async fn click_at(&mut self, place: &Value) -> Result<()> {
        self.mouse("mousePressed", place, 1).await?;
        self.mouse("mouseReleased", place, 1).await
    }

    async fn mouse(&mut self, event: &str, place: &Value, count: u8) -> Result<()> {
        let params = json!({"type": event, "x": place[0], "y": place[1], "button": "left", "clickCount": count});
        self.command("Input.dispatchMouseEvent", params).await.map(drop)
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
        fs::write(&path, BASE64_STANDARD.decode(data)?).with_context(|| format!("write {}", path.display()))
    }

    async fn command(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let command = json!({"id": id, "method": method, "params": params});
        self.socket.send(Frame::text(command.to_string())).await?;
        let answer = async {
            // events arrive between command and answer
            while let Some(frame) = self.socket.next().await {
                let answer: Value = match frame? {
                    Frame::Text(text) => serde_json::from_str(&text)?,
                    _ => continue,
                };
                if answer["id"] == id {
                    return Ok(answer);
                }
                match (answer["method"].as_str(), &answer["params"]) {
                    (Some("Runtime.exceptionThrown"), params) => {
                        self.errors.push(params["exceptionDetails"].to_string());
                    }
                    (Some("Log.entryAdded"), params) if params["entry"]["level"] == "error" => {
                        self.errors.push(format!("{}: {}", params["entry"]["text"], params["entry"]["url"]));
                    }
                    (Some("Network.requestWillBeSent"), params) => {
                        self.requests.extend(params["request"]["url"].as_str().map(str::to_owned));
                    }
                    _ => {}
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

fn by_selector(selector: &str) -> String {
    format!("document.querySelector({})", Value::from(selector))
}

fn by_label(label: &str) -> String {
    format!(
        "[...document.querySelectorAll('button, a, summary')].find(node => node.checkVisibility() \
         && node.innerText.trim() === {})",
        Value::from(label)
    )
}

fn read_port(file: &Path) -> Option<u16> {
    fs::read_to_string(file).ok()?.lines().next()?.parse().ok()
}
