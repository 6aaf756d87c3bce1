//! A real browser without a window, driven through WebDriver. It ends with the value.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// How long a page may take to show what it should.
const SOON: Duration = Duration::from_secs(30);

/// chromium, and the driver that started it.
pub struct Browser {
    runtime: Runtime,
    client: Option<Client>,
    driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// A browser with a profile of its own.
    pub fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("wharf-e2e-browser-").tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", profile.path())
            .env("TMPDIR", profile.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("chromedriver (Debian: chromium-driver): {e}"));
        let said = BufReader::new(driver.stdout.take().unwrap());
        let port = said
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok());
        let port = port.expect("chromedriver says its port");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let data = format!("--user-data-dir={}", profile.path().join("data").display());
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", data],
        });
        let capabilities = json!({ "goog:chromeOptions": options });
        let client = runtime
            .block_on(
                ClientBuilder::new(HttpConnector::new())
                    .capabilities(capabilities.as_object().unwrap().clone())
                    .connect(&format!("http://127.0.0.1:{port}")),
            )
            .expect("a browser");
        Self { runtime, client: Some(client), driver, _profile: profile }
    }

    fn client(&self) -> &Client {
        self.client.as_ref().expect("it has not ended")
    }

    /// Shows what is there.
    pub fn open(&self, url: &str) {
        self.runtime.block_on(self.client().goto(url)).unwrap();
    }

    /// The same in a tab of its own, which is looked at from now on.
    pub fn open_beside(&self, url: &str) {
        let opened = self.runtime.block_on(async {
            let tab = self.client().new_window(true).await?.handle;
            self.client().switch_to_window(tab).await?;
            self.client().goto(url).await
        });
        opened.unwrap();
    }

    /// How large the page is shown.
    pub fn resize(&self, width: u32, height: u32) {
        self.runtime.block_on(self.client().set_window_size(width, height)).unwrap();
    }

    /// What a script in the page returns.
    pub fn script(&self, text: &str) -> Value {
        self.runtime.block_on(self.client().execute(text, vec![])).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    /// The text of the first element that a selector finds.
    pub fn text(&self, selector: &str) -> Option<String> {
        let found = self.script(&format!("return document.querySelector({})?.innerText ?? null", json!(selector)));
        found.as_str().map(str::to_owned)
    }

    /// Waits until the first element that a selector finds has this text in it.
    #[track_caller]
    pub fn shows(&self, selector: &str, text: &str) {
        let until = Instant::now() + SOON;
        loop {
            let found = self.text(selector);
            if found.as_ref().is_some_and(|found| found.contains(text)) {
                return;
            }
            if Instant::now() > until {
                panic!("{selector} never showed {text:?}: {found:?}\npage:\n{}", self.text("body").unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a selector finds nothing.
    #[track_caller]
    pub fn shows_no(&self, selector: &str) {
        let until = Instant::now() + SOON;
        while let Some(found) = self.text(selector) {
            assert!(Instant::now() < until, "{selector} is still there: {found:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Clicks as a person does: what is covered, or off, cannot be clicked.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let until = Instant::now() + SOON;
        loop {
            let clicked =
                self.runtime.block_on(async { self.client().find(Locator::Css(selector)).await?.click().await });
            match clicked {
                Ok(()) => return,
                Err(e) => assert!(Instant::now() < until, "{selector}: {e}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Types into an element.
    #[track_caller]
    pub fn types(&self, selector: &str, keys: &str) {
        self.runtime
            .block_on(async { self.client().find(Locator::Css(selector)).await?.send_keys(keys).await })
            .unwrap_or_else(|e| panic!("{selector}: {e}"));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            _ = self.runtime.block_on(client.close());
        }
        // The driver and whatever of the browser is left: its own group.
        _ = killpg(Pid::from_raw(self.driver.id().cast_signed()), Signal::SIGKILL);
        _ = self.driver.wait();
    }
}
