//! The waiting page in a real browser, in front of the real gateway: with JavaScript and without.

use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::Client;

use crate::support::client::browser;
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::{Origin, answer};
use crate::support::{PATIENCE, eventually, skip};

/// How long a visit may take.
const VISIT: std::time::Duration = std::time::Duration::from_secs(60);

/// What the guarded page says.
const ORIGIN_TEXT: &str = "Welcome to the concert";

pub(crate) fn tools_are_there() -> bool {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    if !here.join("node_modules/playwright-core").exists() {
        skip("the modules of tests/browser are not installed: run npm ci there");
        return false;
    }
    let chromium = [
        "/usr/bin/chromium",
        "/usr/bin/chromium-browser",
        "/usr/bin/google-chrome",
    ];
    let known = std::env::var_os("CHROMIUM").is_some() || chromium.iter().any(|path| Path::new(path).exists());
    let node = Command::new("node")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !known || node.is_err() {
        skip("node or chromium is not installed");
        return false;
    }
    true
}

async fn see(gateway: &Gateway, client: &Client) -> bool {
    let answer = client
        .get(gateway.url("/show"))
        .header("accept", "text/html")
        .send()
        .await
        .unwrap();
    answer.text().await.unwrap().contains(ORIGIN_TEXT)
}

async fn leave(gateway: &Gateway, client: &Client) {
    client.post(gateway.url("/queue/leave?room=hall")).send().await.unwrap();
}

/// The room is full and two wait; then the browser comes. Those before it leave one by one, once it is there.
async fn visit(mode: &str) {
    if !tools_are_there() {
        return;
    }
    let page = format!("<!doctype html><title>Show</title><h1>{ORIGIN_TEXT}</h1>");
    let origin = Origin::scripted(move |_| answer("200 OK", &["content-type: text/html"], &page)).await;
    let rules = format!(
        "rooms: {{ hall: {{ capacity: {{ visitors: 1 }} }} }}\n{}",
        origin.rules_with("", "[waiting_room: { room: hall }]")
    );
    let gateway = Setup::new(&rules).start().await;
    let before = [browser(), browser(), browser()];
    assert!(see(&gateway, &before[0]).await);
    for waiting in &before[1..] {
        assert!(!see(&gateway, waiting).await);
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("node");
    command.arg("queue.mjs").current_dir(manifest.join("tests/browser"));
    command
        .env("BASE_URL", gateway.url(""))
        .env("PATH_GUARDED", "/show?seat=7")
        .env("ORIGIN_TEXT", ORIGIN_TEXT);
    command
        .env("MODE", mode)
        .env("OUT", manifest.join("target/screenshots"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut node = command.spawn().unwrap();
    let series = "tidegate_room_waiting{room=\"hall\"}";
    eventually("the browser waits", VISIT, async || {
        if node.try_wait().unwrap().is_some() {
            return Some(());
        }
        (gateway.metric(series).await == 3.0).then_some(())
    })
    .await;
    // The page is looked at before it moves: the browser has polled once, or loaded the page again.
    let lines = gateway.access_lines(5).await.len();
    leave(&gateway, &before[1]).await;
    gateway.access_lines(lines + 2).await;
    eventually("the place before the browser is given up", PATIENCE, async || {
        (gateway.metric(series).await <= 2.0).then_some(())
    })
    .await;
    let lines = gateway.access_lines(0).await.len();
    gateway.access_lines(lines + 1).await;
    leave(&gateway, &before[2]).await;
    leave(&gateway, &before[0]).await;
    let output = tokio::task::spawn_blocking(move || node.wait_with_output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    println!("{said}");
    for view in ["phone", "desk"] {
        let picture = manifest.join(format!("target/screenshots/waiting-{mode}-{view}.png"));
        assert!(
            std::fs::metadata(&picture).unwrap().len() > 1000,
            "{}",
            picture.display()
        );
    }
}

#[tokio::test]
async fn a_visitor_with_javascript_waits_and_is_let_in() {
    visit("js").await;
}

#[tokio::test]
async fn a_visitor_without_javascript_waits_and_is_let_in() {
    visit("nojs").await;
}
