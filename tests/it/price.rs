//! The price of a place, as programs and browsers meet it.

use std::path::Path;
use std::process::{Command, Stdio};

use reqwest::Response;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use tidegate::queue::work::zero_bits;

use crate::browser::tools_are_there;
use crate::support::client::plain;
use crate::support::gateway::Gateway;
use crate::support::origin::{Origin, answer};

/// What the guarded page says.
const ORIGIN_TEXT: &str = "Welcome to the concert";

async fn hall(challenge: &str) -> (Origin, Gateway) {
    let page = format!("<!doctype html><title>Show</title><h1>{ORIGIN_TEXT}</h1>");
    let origin = Origin::scripted(move |_| answer("200 OK", &["content-type: text/html"], &page)).await;
    let rules = format!(
        "rooms: {{ hall: {{ capacity: {{ visitors: 1 }}, challenge: {challenge} }} }}\n{}",
        origin.rules_with("", "[waiting_room: { room: hall }]")
    );
    let gateway = Gateway::start(&rules).await;
    (origin, gateway)
}

async fn join(gateway: &Gateway, work: &str) -> Response {
    let request = plain().post(gateway.url("/queue/join?room=hall"));
    request.header("tidegate-work", work).send().await.unwrap()
}

/// What a program does with a 403 that brings a challenge.
async fn solution(answer: Response) -> String {
    assert_eq!(answer.status(), 403);
    let told: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let challenge = told["challenge"]["challenge"].as_str().unwrap();
    let bits = u32::try_from(told["challenge"]["bits"].as_u64().unwrap()).unwrap();
    let mut texts = (0_u64..).map(|nonce| format!("{challenge}.{nonce}"));
    texts
        .find(|text| zero_bits(digest(&SHA256, text.as_bytes()).as_ref()) >= bits)
        .unwrap()
}

/// Pays, joins, and gives all cookies.
async fn visitor(gateway: &Gateway) -> String {
    let work = solution(join(gateway, "").await).await;
    let answer = join(gateway, &work).await;
    assert_eq!(answer.status(), 200);
    let lines = answer.headers().get_all("set-cookie").iter();
    let cookies = lines.map(|line| line.to_str().unwrap().split(';').next().unwrap().to_owned());
    cookies.collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_program_pays_for_its_place_and_each_outcome_is_counted() {
    let (_origin, gateway) = hall("{ work: 10 }").await;
    let asked = plain().get(gateway.url("/show")).send().await.unwrap();
    let work = solution(asked).await;
    let straight = plain().get(gateway.url("/show")).header("tidegate-work", &work);
    let answer = straight.send().await.unwrap();
    assert_eq!(answer.status(), 200, "the price may be paid with the page itself");
    assert!(answer.text().await.unwrap().contains(ORIGIN_TEXT));
    assert_eq!(join(&gateway, &work).await.status(), 403, "once");
    assert_eq!(join(&gateway, "nonsense").await.status(), 403);
    visitor(&gateway).await;
    for (outcome, count) in [("given", 4.0), ("solved", 2.0), ("replayed", 1.0), ("wrong", 2.0)] {
        let series = format!("tidegate_room_challenges_total{{outcome=\"{outcome}\",room=\"hall\"}}");
        assert_eq!(gateway.metric(&series).await, count, "{outcome}");
    }
    let status = plain().get(gateway.url("/queue/status")).send().await.unwrap();
    assert_eq!(status.status(), 404, "only a new place has a price");
}

/// A browser in front of a room where one is inside and one waits; what it does is told by the script.
async fn visit(script: &str, challenge: &str, mode: &str) {
    if !tools_are_there() {
        return;
    }
    let (_origin, gateway) = hall(challenge).await;
    let holders = [visitor(&gateway).await, visitor(&gateway).await];
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("node");
    command.arg(script).current_dir(manifest.join("tests/browser"));
    command
        .env("BASE_URL", gateway.url(""))
        .env("PATH_GUARDED", "/show?seat=7&row=b")
        .env("ORIGIN_TEXT", ORIGIN_TEXT)
        .env("MODE", mode)
        .env("HOLDERS", serde_json::to_string(&holders).unwrap())
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

#[tokio::test]
async fn a_browser_pays_loses_the_network_closes_the_tab_comes_back_and_is_let_in() {
    visit("journey.mjs", "{ work: 14, no_script: refuse }", "js").await;
}

#[tokio::test]
async fn a_browser_without_javascript_waits_instead_of_paying_and_is_let_in() {
    visit("journey.mjs", "{ work: 14 }", "nojs").await;
}
