//! A room that opens at a moment and shuffles its lobby: what visitors see before, and that they can check the draw.

use reqwest::Client;
use serde_json::{Value, json};
use tidegate::queue::shuffle::{Seed, Shuffle};

use crate::support::client::{browser, plain};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::{PATIENCE, eventually};

const VISITORS: u64 = 30;

fn rules(origin: &Origin, opens: &str, visitors: u64) -> String {
    let hall = format!("capacity: {{ visitors: {visitors} }}, open: \"{opens}\", order: shuffle");
    format!(
        "rooms: {{ hall: {{ {hall} }} }}\n{}",
        origin.rules_with("", "[waiting_room: { room: hall }]")
    )
}

async fn status(gateway: &Gateway, client: &Client) -> Value {
    let answer = client.get(gateway.url("/queue/status")).send().await.unwrap();
    answer.json().await.unwrap()
}

#[tokio::test]
async fn a_lobby_has_no_positions_until_it_is_shuffled_by_a_seed_that_everyone_can_check() {
    let origin = Origin::saying("hello").await;
    let gateway = Gateway::start(&rules(&origin, "2199-01-01T00:00:00Z", 5)).await;
    let mut crowd = Vec::new();
    for _ in 0..VISITORS {
        let client = browser();
        let joined = client.post(gateway.url("/queue/join?room=hall")).send().await.unwrap();
        let joined: Value = joined.json().await.unwrap();
        let said = (&joined["state"], &joined["notice"], &joined["position"]);
        assert_eq!(said, (&json!("waiting"), &json!("lobby"), &Value::Null), "{joined}");
        assert_eq!(joined["opens_at"], "2199-01-01T00:00:00Z");
        crowd.push(client);
    }
    let told = status(&gateway, &crowd[0]).await;
    assert_eq!(
        (&told["in_lobby"], told.get("lobby")),
        (&json!(VISITORS), None),
        "{told}"
    );
    let page = crowd[0].get(gateway.url("/show")).header("accept", "text/html");
    let page = page.send().await.unwrap().text().await.unwrap();
    assert!(page.contains("data-notice=\"lobby\"") && page.contains("<b id=\"in-lobby\">30</b>"));

    let file = gateway.dir().join("rules/rules.yaml");
    std::fs::write(file, rules(&origin, "2020-01-01T00:00:00Z", 5)).unwrap();
    gateway.signal("HUP");
    let rooms = eventually("the lobby is shuffled", PATIENCE, async || {
        let rooms = plain().get(gateway.admin_url("/rooms")).send().await.unwrap();
        let rooms: Value = rooms.json().await.unwrap();
        (rooms[0]["called"] == 5).then_some(rooms)
    })
    .await;
    let draw = &rooms[0]["lobby"]["draw"];
    assert_eq!(
        (&draw["size"], &draw["first"]),
        (&json!(VISITORS), &json!(1)),
        "{rooms}"
    );
    let seed = draw["seed"].as_str().unwrap();
    gateway
        .says(&format!("its lobby of {VISITORS} is shuffled by seed {seed}"))
        .await;
    let shuffle = Shuffle::new(Seed(u128::from_str_radix(seed, 16).unwrap()), VISITORS);
    for (number, client) in (1..).zip(&crowd) {
        let told = status(&gateway, client).await;
        let rank = shuffle.rank(number);
        let lot = json!({ "number": number, "rank": rank, "size": VISITORS, "seed": seed });
        assert_eq!(told["lobby"], lot, "{told}");
        let expected = match rank {
            ..=5 => (json!("called"), json!(1)),
            _ => (json!("waiting"), json!(rank - 5)),
        };
        assert_eq!(
            (&told["state"], &told["position"]),
            (&expected.0, &expected.1),
            "{told}"
        );
    }

    let late = browser();
    let joined = late.post(gateway.url("/queue/join?room=hall")).send().await.unwrap();
    let joined: Value = joined.json().await.unwrap();
    assert_eq!(joined["position"], VISITORS - 5 + 1, "who comes later stands behind");
    assert_eq!(status(&gateway, &late).await.get("lobby"), None);
}
