//! Going around a waiting room: known networks, and links that the command line makes.

use std::process::Command;

use serde_json::Value;

use crate::support::client::{browser, plain};
use crate::support::gateway::{Gateway, Setup, TIDEGATE};
use crate::support::origin::Origin;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

fn setup(origin: &Origin, bypass: &str) -> Setup {
    let hall = format!("rooms: {{ hall: {{ capacity: {{ visitors: 1 }}, bypass: {bypass} }} }}\n");
    let rules = hall + &origin.rules_with("", "[waiting_room: { room: hall }]");
    Setup::new(&rules)
        .file("keys", KEY)
        .file("hashes", &"3c".repeat(32))
        .process("secrets: { tickets: { file: keys }, hashes: { file: hashes } }")
}

fn make_link(gateway: &Gateway, room: &str, url: &str) -> (Option<i32>, String) {
    let config = gateway.dir().join("tidegate.yaml");
    let mut command = Command::new(TIDEGATE);
    command.args(["room", "link", "--room", room, "--valid", "2h", "--url", url, "-c"]);
    let output = command.arg(config).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap().trim().to_owned())
}

async fn inside(gateway: &Gateway) -> u64 {
    let answer = plain().get(gateway.admin_url("/rooms")).send().await.unwrap();
    let rooms: Value = answer.json().await.unwrap();
    rooms[0]["inside"].as_u64().unwrap() + rooms[0]["called"].as_u64().unwrap() + rooms[0]["last"].as_u64().unwrap()
}

#[tokio::test]
async fn a_known_network_passes_without_a_place() {
    let origin = Origin::saying("hello").await;
    let gateway = setup(&origin, "{ networks: [127.0.0.0/8] }").start().await;
    for _ in 0..3 {
        let answer = plain().get(gateway.url("/show")).send().await.unwrap();
        assert_eq!(answer.headers().get("set-cookie"), None);
        assert_eq!(answer.text().await.unwrap(), "hello");
    }
    assert_eq!(inside(&gateway).await, 0);
    let counted = "tidegate_room_bypassed_total{by=\"network\",room=\"hall\"}";
    assert_eq!(gateway.metric(counted).await, 3.0);
}

#[tokio::test]
async fn whoever_opens_a_link_passes_and_keeps_passing() {
    let origin = Origin::saying("hello").await;
    let gateway = setup(&origin, "{ links: true }").start().await;
    let first = plain().get(gateway.url("/show")).send().await.unwrap();
    assert_eq!(first.text().await.unwrap(), "hello", "the hall is full with this one");

    let (code, link) = make_link(&gateway, "hall", &gateway.url("/show?day=1"));
    assert_eq!(code, Some(0), "{link}");
    let guest = browser();
    let answer = guest.get(&link).send().await.unwrap();
    assert_eq!(answer.status(), 303);
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(location, "/show?day=1");
    for _ in 0..2 {
        let answer = guest.get(gateway.url(&location)).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "hello");
    }
    let request = origin.last();
    assert_eq!((request.target(), request.value("cookie")), ("/show?day=1", None));
    let status = guest.get(gateway.url("/queue/status?room=hall")).send().await.unwrap();
    let status: Value = status.json().await.unwrap();
    assert_eq!(status["state"], "inside");
    assert_eq!(inside(&gateway).await, 2, "the first visitor, with number 1");

    let forged = link.replace("tidegate-link=A", "tidegate-link=B");
    let refused = plain().get(&forged).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    let (code, said) = make_link(&gateway, "halls", "http://a.example/");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no room `halls`"), "{said}");
}
