//! A store whose answers come after nobody waits for them any more: what it gave is nobody's, and goes back.

use crate::support::client::{browser, header};
use crate::support::gateway::Setup;
use crate::support::meddler::{Answers, Meddler};
use crate::support::origin::Origin;
use crate::support::redis::Redis;
use crate::support::{PATIENCE, eventually};

/// Numbers that wait, as the store has it.
fn waiting(server: &Redis) -> String {
    server.ask("ZCARD tidegate:{room:hall}:queue")
}

#[tokio::test]
async fn a_place_that_came_too_late_for_its_visitor_is_nobodys_and_is_given_back() {
    let Some(server) = Redis::start(&[]) else { return };
    let meddler = Meddler::before(server.address).await;
    let origin = Origin::saying("hello").await;
    let rules = format!(
        "rooms: {{ hall: {{ capacity: {{ visitors: 1 }} }} }}\n{}",
        origin.rules_with("", "[waiting_room: { room: hall }]")
    );
    let store = format!(
        "store: {{ redis: {{ urls: redis://{}, timeout: 2s }} }}",
        meddler.address
    );
    let gateway = Setup::new(&rules)
        .file("tickets", &"5a".repeat(32))
        .file("hashes", &"3c".repeat(32))
        .process("secrets: { tickets: { file: tickets }, hashes: { file: hashes } }")
        .process(&store)
        .start()
        .await;
    let join = async || {
        let asked = browser().post(gateway.url("/queue/join?room=hall")).send();
        asked.await.unwrap()
    };
    eventually("somebody is inside", PATIENCE, async || {
        (join().await.status() == 200).then_some(())
    })
    .await;
    assert_eq!(waiting(&server), "0");

    meddler.let_answers(Answers::AreLate);
    let refused = join().await;
    assert_eq!(refused.status(), 503);
    assert!(!header(&refused, "retry-after").is_empty());
    assert_eq!(waiting(&server), "1", "the store gave a place that nobody knows of");

    meddler.let_answers(Answers::Arrive);
    eventually("the place is given back", PATIENCE, async || {
        (waiting(&server) == "0").then_some(())
    })
    .await;
    let given_back = gateway.metric("tidegate_room_given_back_total{room=\"hall\"}").await;
    assert_eq!(given_back, 1.0);
    eventually("the next is the first in the queue", PATIENCE, async || {
        let told: serde_json::Value = serde_json::from_str(&join().await.text().await.unwrap()).unwrap();
        (told["state"] == "waiting" && told["ahead"] == 0).then_some(())
    })
    .await;
}
