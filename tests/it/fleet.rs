//! One waiting room of two gateways on one Redis: a visitor who came to one may poll, enter and leave at the other, and
//! the order and the capacity are those of the fleet.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Client;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::client::{browser, header, plain};
use crate::support::gateway::{Gateway, Setup};
use crate::support::origin::Origin;
use crate::support::redis::Redis;
use crate::support::{PATIENCE, eventually, soon};

const VISITORS: u64 = 24;
pub(super) const CAPACITY: usize = 3;

/// Where a ticket has its number: after version, kind, key and epoch.
const NUMBER_AT: usize = 11;

pub(super) struct Visitor {
    pub(super) number: u64,
    pub(super) client: Client,
}

pub(super) async fn gateways(origin: &Origin, server: &Redis) -> [Gateway; 2] {
    gateways_with("", origin, server).await
}

/// With more that is said of the room.
pub(super) async fn gateways_with(room: &str, origin: &Origin, server: &Redis) -> [Gateway; 2] {
    let rules = format!(
        "rooms: {{ hall: {{ capacity: {{ visitors: {CAPACITY} }}{room} }} }}\n{}",
        origin.rules_with("", "[waiting_room: { room: hall }]")
    );
    let setup = || {
        Setup::new(&rules)
            .file("tickets", &"5a".repeat(32))
            .file("hashes", &"3c".repeat(32))
            .process("secrets: { tickets: { file: tickets }, hashes: { file: hashes } }")
            .process(&format!(
                "store: {{ redis: {{ urls: {}, timeout: 2s }} }}",
                server.url()
            ))
    };
    [setup().start().await, setup().start().await]
}

/// Joins, and reads the number on the ticket.
pub(super) async fn join(url: String) -> Visitor {
    let client = browser();
    let joined = soon("a visitor joins", async {
        loop {
            let answer = client.post(&url).send().await.unwrap();
            if answer.status() == 200 {
                return answer;
            }
        }
    })
    .await;
    let cookie = header(&joined, "set-cookie").to_owned();
    let slip = cookie.split(['=', ';']).nth(1).unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(slip).unwrap();
    let number = u64::from_be_bytes(*bytes[NUMBER_AT..].first_chunk().unwrap());
    Visitor { number, client }
}

pub(super) async fn state(gateway: &Gateway, visitor: &Visitor) -> String {
    let answer = visitor.client.get(gateway.url("/queue/status")).send().await.unwrap();
    let told: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    told["state"].as_str().unwrap_or_default().to_owned()
}

/// How many the gateway knows to be called or inside.
async fn occupied(gateway: &Gateway) -> u64 {
    let answer = plain().get(gateway.admin_url("/rooms")).send().await.unwrap();
    let rooms: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let hall = &rooms.as_array().or(rooms["rooms"].as_array()).unwrap()[0];
    hall["called"].as_u64().unwrap() + hall["inside"].as_u64().unwrap()
}

/// Lets everyone in who is called, and gives them. Asked from the last to the first: the frontier only advances, so
/// once somebody is called nobody before them may still wait.
async fn let_in(gateway: &Gateway, other: &Gateway, waiting: &mut Vec<Visitor>) -> Vec<Visitor> {
    let (mut called, mut still) = (Vec::new(), Vec::new());
    while let Some(visitor) = waiting.pop() {
        let state = state(gateway, &visitor).await;
        if state == "waiting" {
            assert!(called.is_empty(), "{} was passed over", visitor.number);
            still.push(visitor);
        } else {
            called.push(visitor);
        }
    }
    still.reverse();
    *waiting = still;
    for visitor in &called {
        eventually("who is called enters", PATIENCE, async || {
            let answer = visitor.client.post(other.url("/queue/enter")).send().await.unwrap();
            let already = answer.status() == 409 && state(other, visitor).await == "inside";
            (answer.status() == 200 || already).then_some(())
        })
        .await;
    }
    called
}

#[tokio::test]
async fn two_gateways_hold_one_room_in_one_order() {
    let Some(server) = Redis::start(&[]) else { return };
    let origin = Origin::saying("hello").await;
    let [one, two] = gateways(&origin, &server).await;
    let at = |number| [&one, &two][number as usize % 2].url("/queue/join?room=hall");
    let joins: JoinSet<Visitor> = (0..VISITORS).map(|number| join(at(number))).collect();
    let mut waiting = joins.join_all().await;
    waiting.sort_unstable_by_key(|visitor| visitor.number);
    let numbers: Vec<u64> = waiting.iter().map(|visitor| visitor.number).collect();
    assert_eq!(numbers, (1..=VISITORS).collect::<Vec<_>>());
    let (mut inside, mut order): (Vec<Visitor>, Vec<u64>) = (Vec::new(), Vec::new());
    let (mut here, mut there) = (&one, &two);
    while !waiting.is_empty() || !inside.is_empty() {
        let mut called = let_in(here, there, &mut waiting).await;
        called.sort_unstable_by_key(|visitor| visitor.number);
        order.extend(called.iter().map(|visitor| visitor.number));
        inside.append(&mut called);
        assert!(inside.len() <= CAPACITY, "{} are inside", inside.len());
        for gateway in [&one, &two] {
            assert!(occupied(gateway).await <= CAPACITY as u64);
        }
        for visitor in inside.drain(..inside.len().min(2)) {
            let page = visitor.client.get(here.url("/show")).header("accept", "text/html");
            assert_eq!(page.send().await.unwrap().text().await.unwrap(), "hello");
            let left = visitor.client.post(here.url("/queue/leave")).send().await.unwrap();
            assert_eq!(left.status(), 204);
        }
        (here, there) = (there, here);
    }
    assert_eq!(order, numbers, "the order of entering is the order of numbers");
}

/// No gateway asks the store about a pass, and yet one word to any of them ends it at all of them.
#[tokio::test]
async fn who_is_revoked_at_one_gateway_is_outside_at_the_other() {
    let Some(server) = Redis::start(&[]) else { return };
    let origin = Origin::saying("hello").await;
    let [one, two] = gateways(&origin, &server).await;
    let visitor = join(one.url("/queue/join?room=hall")).await;
    let page = async || {
        let asked = visitor.client.get(two.url("/show")).header("accept", "text/html");
        asked.send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(page().await, "hello");
    // The room is full and somebody waits, so nobody who has lost the pass goes straight in again.
    for _ in 0..CAPACITY {
        join(two.url("/queue/join?room=hall")).await;
    }
    let order = serde_json::json!({ "mode": "hold", "revoke": visitor.number });
    let ordered = plain()
        .post(one.admin_url("/rooms/hall"))
        .json(&order)
        .send()
        .await
        .unwrap();
    let said: Value = ordered.json().await.unwrap();
    assert_eq!(
        said["revoked"],
        serde_json::json!({ "number": visitor.number, "was": "inside" })
    );
    eventually("the pass is worth nothing at the other gateway", PATIENCE, async || {
        (page().await != "hello").then_some(())
    })
    .await;
    assert_eq!(
        state(&two, &visitor).await,
        "waiting",
        "at the end, like anyone who comes"
    );
}

/// Q8: who waits sees where, who is inside goes on, who comes is held, and nobody loses anything by it.
#[tokio::test]
async fn while_the_store_is_silent_nobody_new_gets_in_and_nobody_loses_anything() {
    let Some(server) = Redis::start(&[]) else { return };
    let origin = Origin::saying("hello").await;
    let [one, two] = gateways(&origin, &server).await;
    let mut visitors = Vec::new();
    for _ in 0..CAPACITY + 2 {
        visitors.push(join(one.url("/queue/join?room=hall")).await);
    }
    let (inside, next, last) = (&visitors[0], &visitors[CAPACITY], &visitors[CAPACITY + 1]);
    eventually("both gateways know of everyone", PATIENCE, async || {
        (occupied(&two).await == CAPACITY as u64 && state(&two, last).await == "waiting").then_some(())
    })
    .await;
    server.signal("STOP");
    eventually("newcomers are held", PATIENCE, async || {
        let newcomer = plain().get(two.url("/show")).header("accept", "text/html");
        (newcomer.send().await.unwrap().status() == 503).then_some(())
    })
    .await;
    for gateway in [&one, &two] {
        assert_eq!(state(gateway, last).await, "waiting");
        let page = inside.client.get(gateway.url("/show")).send().await.unwrap();
        assert_eq!(page.text().await.unwrap(), "hello");
    }
    server.signal("CONT");
    let left = inside.client.post(two.url("/queue/leave")).send().await.unwrap();
    assert_eq!(left.status(), 204);
    eventually("the next is called", PATIENCE, async || {
        (state(&two, next).await == "called").then_some(())
    })
    .await;
    assert_eq!(state(&two, last).await, "waiting");
}
