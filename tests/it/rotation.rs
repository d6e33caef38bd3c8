//! New keys for tickets, gateway by gateway, as the documents say: what a fleet has counted stays counted.

use std::time::Duration;

use crate::support::client::plain;
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::Origin;
use crate::support::redis::Redis;

const OLD: &str = "0101010101010101010101010101010101010101010101010101010101010101\n";
const NEW: &str = "0202020202020202020202020202020202020202020202020202020202020202\n";

/// What a client may have in a day, exactly.
const LIMIT: usize = 5;

/// A gateway ends within its `drain`, and nothing is under way.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

async fn gateway(origin: &Origin, server: &Redis, keys: &str) -> Gateway {
    let limit = format!("{{ name: account, key: {{ cookie: account }}, missing: reject, limit: {LIMIT}/day }}");
    let setup = Setup::new(&origin.rules_with("", &format!("[rate_limit: {limit}]")))
        .file("tickets", keys)
        .file("hashes", &"3c".repeat(32))
        .process("secrets: { tickets: { file: tickets }, hashes: { file: hashes } }")
        .process(&format!(
            "store: {{ redis: {{ urls: {}, timeout: 2s }} }}",
            server.url()
        ))
        .process("throttle: { partitions: 4, cold_slots: 4096 }");
    setup.start().await
}

/// How many requests of the client are admitted, of a whole limit at each gateway.
async fn admitted(fleet: &[Gateway]) -> usize {
    let mut admitted = 0;
    for gateway in fleet {
        for _ in 0..LIMIT {
            let request = plain().get(gateway.url("/")).header("cookie", "account=7");
            admitted += usize::from(request.send().await.unwrap().status() == 200);
        }
    }
    admitted
}

#[tokio::test]
async fn keys_that_rotate_start_no_limit_afresh() {
    let Some(server) = Redis::start(&[]) else { return };
    let origin = Origin::saying("hello").await;
    let mut fleet = [
        gateway(&origin, &server, OLD).await,
        gateway(&origin, &server, OLD).await,
    ];
    assert_eq!(admitted(&fleet).await, LIMIT);
    for keys in [[OLD, NEW].concat(), [NEW, OLD].concat(), NEW.to_owned()] {
        for index in 0..fleet.len() {
            fleet[index].signal("TERM");
            assert_eq!(fleet[index].exit_code(ENDS_WITHIN).await, Some(0));
            fleet[index] = gateway(&origin, &server, &keys).await;
            assert_eq!(admitted(&fleet).await, 0, "after {keys} at gateway {index}");
        }
    }
}
