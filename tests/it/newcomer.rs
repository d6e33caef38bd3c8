//! A gateway that is started while windows are under way, and what it may give without asking the store.

use std::time::Duration;

use crate::support::client::plain;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::Origin;
use crate::support::redis::Redis;

/// Clients that come for the first and only time.
const STRANGERS: u64 = 40;

/// A change of the fleet takes effect within four seconds; one that has died is noticed after ten. The rest is for a
/// machine that has other things to do.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

/// So much that a gateway has something to give in the first seconds of an hour, too: its share grows with the window.
const LIMIT: &str = "1000000/h";

async fn gateway(origin: &Origin, server: &Redis) -> Gateway {
    let limit = format!("{{ name: each, key: {{ header: x-client }}, missing: reject, limit: {LIMIT} }}");
    let setup = Setup::new(&origin.rules_with("", &format!("[rate_limit: {limit}]")))
        .process(&format!(
            "store: {{ redis: {{ urls: {}, timeout: 2s }} }}",
            server.url()
        ))
        .process("throttle: { partitions: 4, cold_slots: 4096 }");
    setup.start().await
}

/// Lets strangers in until none of them is any business of the store.
async fn strangers_are_no_business_of_the_store(gateway: &Gateway, name: &str) {
    let client = plain();
    let mut round = 0;
    eventually("strangers have free shares", KNOWN_WITHIN, async || {
        round += 1;
        let hot = "tidegate_throttle_hot_keys{limit=\"each\"}";
        let before = gateway.metric(hot).await;
        for number in 0..STRANGERS {
            let who = format!("{name}-{round}-{number}");
            let answer = client
                .get(gateway.url("/"))
                .header("x-client", who)
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 200);
        }
        (gateway.metric(hot).await == before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn neither_the_first_gateway_nor_one_started_anew_asks_for_every_client_until_the_hour_is_over() {
    let Some(server) = Redis::start(&[]) else { return };
    let origin = Origin::saying("hello").await;
    let mut first = gateway(&origin, &server).await;
    strangers_are_no_business_of_the_store(&first, "a").await;
    first.signal("TERM");
    assert_eq!(first.exit_code(KNOWN_WITHIN).await, Some(0));
    let second = gateway(&origin, &server).await;
    strangers_are_no_business_of_the_store(&second, "b").await;
}
