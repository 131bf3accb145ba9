//! The window: the real page in the real app, driven as a person would, with a real pool behind it.
//!
//! With `LULL_SHOTS_DIR` set, its pages are photographed there, light and dark.

use std::{path::PathBuf, process::Stdio, time::Duration};

use fantoccini::{Client, ClientBuilder, Locator, key::Key};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    process::Child,
    time,
};

use crate::{
    desk::{Desk, PATIENCE, eventually},
    pool::Pool,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_joins_and_its_owner_runs_a_command_on_another_one() {
    let mut pool = Pool::start().await;
    pool.start_worker().await;
    let desk = Desk::start().await;
    let window = Window::open(&desk).await;

    window.photograph("join").await;
    window.fill("#join-code", &pool.admin(&["join-code"]).await).await;
    window.press("Join the pool").await;
    window.shows("main", "Connected").await;

    window.go_to("Terminal").await;
    let token = pool.admin(&["token", "--role", "submitter", "--name", "ada"]).await;
    window.fill("#url", &pool.url).await;
    window.fill("#token", &token).await;
    window.photograph("sign-in").await;
    window.press("Sign in").await;

    // The page cannot give away what it does not have.
    window.sees("#command").await;
    let kept = window.run("return JSON.stringify([{...localStorage}, {...sessionStorage}])").await;
    assert!(!kept.as_str().unwrap().contains("lullt_"), "{kept}");

    let command = "mkdir -p out && seq 6 > out/numbers.txt && echo sum=$((1+2+3+4+5+6))";
    window.fill("#command", &format!("{command}{}", char::from(Key::Enter))).await;
    window.shows("[aria-label='This command']", "Completed").await;
    window.shows(".xterm-rows", "sum=21").await;
    window.photograph("terminal").await;

    window.press("Download outputs.zip").await;
    let home = desk.path("outputs.zip");
    let zip = eventually("the result is home", async || std::fs::read(&home).ok()).await;
    assert!(zip.starts_with(b"PK"));

    window.go_to("Jobs").await;
    window.shows("main", "Completed").await;
    window.photograph("jobs").await;
    window.go_to("PCs").await;
    window.sees("main article, main tbody tr, main li").await;
    window.photograph("pcs").await;

    window.go_to("This PC").await;
    window.press("Pause").await;
    window.shows("main", "Paused").await;
    window.press("Resume").await;
    window.sees_button("Pause").await;
    window.photograph("this-pc").await;
    window.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_code_and_a_wrong_token_are_explained() {
    let pool = Pool::start().await;
    let desk = Desk::start().await;
    let window = Window::open(&desk).await;

    window.fill("#join-code", "lull1.not-a-code").await;
    window.press("Join the pool").await;
    window.shows("main", "not a complete join code").await;

    window.go_to("Terminal").await;
    window.fill("#url", &pool.url).await;
    window.fill("#token", "lullt_wrong").await;
    // Nobody vouches for the pool's own certificate here: the token does not leave.
    window.press("Sign in").await;
    window.shows("main", "not the one expected").await;
    window.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_has_no_right_but_lull_s_own_commands() {
    let pool = Pool::start().await;
    let desk = Desk::start().await;
    let window = Window::open(&desk).await;

    for command in
        ["plugin:dialog|open", "plugin:window|close", "plugin:webview|create_webview_window"]
    {
        let said = window
            .try_async(&format!("window.__TAURI_INTERNALS__.invoke('{command}', {{}})"))
            .await;
        assert!(said.starts_with("refused"), "{command}: {said}");
        assert!(said.contains("not allowed"), "{command}: {said}");
    }
    let outside = pool.url.replace("https", "http");
    let said = window.try_async(&format!("fetch('{outside}/healthz', {{mode: 'no-cors'}})")).await;
    assert!(said.starts_with("refused"), "{said}");
    let token = window.try_async("window.__TAURI_INTERNALS__.invoke('session')").await;
    assert!(token.starts_with("granted"), "its own commands work: {token}");

    window.run("location.href = 'http://127.0.0.1:9/'").await;
    let address = window.run("return location.href").await;
    assert!(address.as_str().unwrap().starts_with("tauri://localhost"), "{address}");
    window.close().await;
}

/// The window under a driver's hands.
struct Window {
    page: Client,
    _driver: Child,
}

impl Window {
    /// Starts the app by way of the driver, and waits until the page shows something.
    async fn open(desk: &Desk) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let driver = desk
            .command("WebKitWebDriver".as_ref())
            .arg(format!("--port={}", address.port()))
            .env("TAURI_WEBVIEW_AUTOMATION", "true")
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("this test needs the package webkit2gtk-driver: {error}")
            });
        eventually("the driver answers", async || TcpStream::connect(address).await.ok()).await;

        let app = json!({
            "binary": env!("CARGO_BIN_EXE_lull-desktop"),
            "args": ["--data-dir", desk.data_dir()],
        });
        let Value::Object(capabilities) = json!({ "webkitgtk:browserOptions": app }) else {
            unreachable!("it is written as an object")
        };
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://{address}"))
            .await
            .unwrap();
        let window = Self { page, _driver: driver };
        window.sees("main").await;
        window
    }

    /// Waits for an answer; without one, fails with what the page shows instead.
    async fn until<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let answer = async {
            loop {
                if let Some(answer) = ask().await {
                    return answer;
                }
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        match time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer,
            Err(_too_late) => {
                let shown = self.run("return document.body.innerText").await;
                panic!("not in time: {what}; the page shows\n{}", shown.as_str().unwrap_or(""))
            }
        }
    }

    async fn sees(&self, css: &str) {
        self.until(css, async || self.page.find(Locator::Css(css)).await.ok()).await;
    }

    async fn sees_button(&self, text: &str) {
        let path = button(text);
        self.until(text, async || self.page.find(Locator::XPath(&path)).await.ok()).await;
    }

    /// Waits until the text is somewhere in the element.
    async fn shows(&self, css: &str, text: &str) {
        self.until(&format!("{text:?} in {css}"), async || {
            let shown = self.page.find(Locator::Css(css)).await.ok()?.text().await.ok()?;
            shown.contains(text).then_some(())
        })
        .await;
    }

    async fn fill(&self, css: &str, text: &str) {
        self.until(css, async || {
            let field = self.page.find(Locator::Css(css)).await.ok()?;
            field.is_enabled().await.ok()?.then_some(())?;
            field.clear().await.ok()?;
            field.send_keys(text).await.ok()
        })
        .await;
    }

    /// Presses the button with these words, once it can be pressed.
    async fn press(&self, text: &str) {
        let path = button(text);
        self.until(text, async || {
            let button = self.page.find(Locator::XPath(&path)).await.ok()?;
            button.is_enabled().await.ok()?.then_some(())?;
            button.click().await.ok()
        })
        .await;
    }

    async fn go_to(&self, place: &str) {
        let link = format!("//nav//a[contains(normalize-space(), '{place}')]");
        self.until(place, async || {
            self.page.find(Locator::XPath(&link)).await.ok()?.click().await.ok()
        })
        .await;
    }

    async fn run(&self, script: &str) -> Value {
        self.page.execute(script, Vec::new()).await.unwrap()
    }

    /// What comes of a promise: `granted …` or `refused …`.
    async fn try_async(&self, promise: &str) -> String {
        let script = format!(
            "let done = arguments[0];
             {promise}.then((value) => done('granted ' + JSON.stringify(value)),
                            (error) => done('refused ' + (error?.message ?? JSON.stringify(error))));"
        );
        let said = self.page.execute_async(&script, Vec::new()).await.unwrap();
        said.as_str().unwrap().to_owned()
    }

    /// Takes a picture in both themes, when pictures are wanted.
    async fn photograph(&self, name: &str) {
        let Some(folder) = std::env::var_os("LULL_SHOTS_DIR").map(PathBuf::from) else { return };
        // Colours would be caught while they glide into place.
        let still = "let still = document.createElement('style');
            still.textContent = '* { transition: none !important; animation: none !important; }';
            document.head.append(still)";
        self.run(still).await;
        for theme in ["dark", "light"] {
            self.until(theme, async || {
                let now = self.run("return document.documentElement.dataset.theme ?? ''").await;
                if now == theme {
                    return Some(());
                }
                let toggle = Locator::Css("button[aria-label^='Theme:']");
                self.page.find(toggle).await.ok()?.click().await.ok()?;
                None
            })
            .await;
            // The picture is of what was painted last, and painting cannot be waited for.
            self.try_async("new Promise((done) => setTimeout(done, 500))").await;
            let picture = self.page.screenshot().await.unwrap();
            std::fs::write(folder.join(format!("window-{name}-{theme}.png")), picture).unwrap();
        }
    }

    /// Ends the app before the driver, which would wait for it.
    async fn close(self) {
        self.page.close().await.unwrap();
    }
}

fn button(text: &str) -> String {
    format!("//main//button[contains(normalize-space(), '{text}')]")
}
