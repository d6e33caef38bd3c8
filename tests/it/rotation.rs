//! New keys for tickets, gateway by gateway, as the documents say: what a fleet has counted stays counted, and who has a
//! place is known again.

use std::time::Duration;

use serde_json::Value;
use tidegate::base::secret::Keyring;
use tidegate::queue::ticket::{Kind, verify};

use crate::support::client::{header, plain};
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::Origin;
use crate::support::redis::Redis;
use crate::support::{PATIENCE, eventually};

const OLD: &str = "0101010101010101010101010101010101010101010101010101010101010101\n";
const NEW: &str = "0202020202020202020202020202020202020202020202020202020202020202\n";

/// What a client may have in a day, exactly.
const LIMIT: usize = 5;

/// A gateway ends within its `drain`, and nothing is under way.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// The one key, both with the old one signing, both with the new one, and that alone.
fn steps() -> [String; 4] {
    [OLD.to_owned(), [OLD, NEW].concat(), [NEW, OLD].concat(), NEW.to_owned()]
}

async fn gateway(origin: &Origin, server: &Redis, keys: &str) -> Gateway {
    let limit = format!("{{ name: account, key: {{ cookie: account }}, missing: reject, limit: {LIMIT}/day }}");
    let hall = "{ capacity: { visitors: 1 }, one_place_per: { cookie: account }, bind: key }";
    let rules = origin.rules_with("", &format!("[rate_limit: {limit}]"));
    let setup = Setup::new(&format!("rooms: {{ hall: {hall} }}\n{rules}"))
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
    let [first, later @ ..] = steps();
    let mut fleet = [
        gateway(&origin, &server, &first).await,
        gateway(&origin, &server, &first).await,
    ];
    assert_eq!(admitted(&fleet).await, LIMIT);
    for keys in later {
        for index in 0..fleet.len() {
            fleet[index].signal("TERM");
            assert_eq!(fleet[index].exit_code(ENDS_WITHIN).await, Some(0));
            fleet[index] = gateway(&origin, &server, &keys).await;
            assert_eq!(admitted(&fleet).await, 0, "after {keys} at gateway {index}");
        }
    }
}

/// Joins with nothing but the name of an account, and gives the ticket and the number on it.
async fn join(gateway: &Gateway, account: &str) -> (String, u64) {
    let all = Keyring::parse(&[OLD, NEW].concat()).unwrap();
    let joined = eventually("a join is answered", PATIENCE, async || {
        let request = plain().post(gateway.url("/queue/join?room=hall"));
        let answer = request.header("cookie", format!("account={account}")).send().await;
        answer.ok().filter(|answer| answer.status() == 200)
    });
    let cookie = header(&joined.await, "set-cookie").to_owned();
    let slip = cookie.split(['=', ';']).nth(1).unwrap().to_owned();
    let claim = verify(&all, Kind::Ticket, &"hall".parse().unwrap(), &slip).unwrap();
    (slip, claim.number)
}

async fn state(gateway: &Gateway, ticket: &str, account: &str) -> String {
    let request = plain().get(gateway.url("/queue/status?room=hall"));
    let cookies = format!("tidegate-ticket-hall={ticket}; account={account}");
    let answer = request.header("cookie", cookies).send().await.unwrap();
    let told: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    told["state"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn keys_that_rotate_leave_places_and_tickets_whose_they_are() {
    let Some(server) = Redis::start(&[]) else { return };
    let origin = Origin::saying("hello").await;
    let first = gateway(&origin, &server, OLD).await;
    let (_, _inside) = join(&first, "6").await;
    let (mut ticket, number) = join(&first, "7").await;
    for keys in steps() {
        let gateway = gateway(&origin, &server, &keys).await;
        eventually("the ticket is known", PATIENCE, async || {
            (state(&gateway, &ticket, "7").await == "waiting").then_some(())
        })
        .await;
        assert_eq!(state(&gateway, &ticket, "8").await, "", "somebody else's");
        let again;
        (ticket, again) = join(&gateway, "7").await;
        assert_eq!(again, number, "one place, after {keys}");
    }
}
