//! A room whose Redis loses everything, again and again, while people wait in it: over HTTP, with real gateways, one of
//! which dies. Who goes on asking has a place all the time, in the same order, and nobody inside is thrown out.

use reqwest::Client;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::fleet::{CAPACITY, Visitor, gateways, join, state};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::redis::Redis;
use crate::support::{PATIENCE, eventually};

const CROWD: u64 = 120;

/// Numbers are left out after a loss.
const LEFT_OUT: u64 = 100_000;

/// What the gateway tells everyone, in the order of their numbers: the state, and how many are ahead.
pub(super) async fn told(gateway: &Gateway, crowd: &[Visitor]) -> Vec<(String, u64)> {
    let ask = |(index, visitor): (usize, &Visitor)| {
        let request = visitor.client.get(gateway.url("/queue/status"));
        async move {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let told: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            assert_eq!(status, 200, "visitor {index}: {told}");
            let state = told["state"].as_str().unwrap().to_owned();
            (index, (state, told["ahead"].as_u64().unwrap()))
        }
    };
    let asked: JoinSet<_> = crowd.iter().enumerate().map(ask).collect();
    let mut told = asked.join_all().await;
    told.sort_unstable_by_key(|(index, _)| *index);
    told.into_iter().map(|(_, told)| told).collect()
}

/// Whether everyone has the place that their number says: first those inside, then those who wait, one behind the other.
pub(super) fn is_in_order(told: &[(String, u64)], inside: usize) -> bool {
    let mut places = told.iter().enumerate();
    places.all(|(index, (state, ahead))| match index.checked_sub(inside) {
        None => state == "inside",
        Some(before) => state == "waiting" && *ahead == before as u64,
    })
}

async fn all_in_order(gateways: &[&Gateway], crowd: &[Visitor]) {
    for gateway in gateways {
        eventually("everyone has their place", PATIENCE, async || {
            is_in_order(&told(gateway, crowd).await, CAPACITY).then_some(())
        })
        .await;
    }
}

/// Nobody may be told at any moment that the place is gone, and who is inside gets the page.
async fn nobody_is_lost(gateways: &[&Gateway], crowd: &[Visitor]) {
    for gateway in gateways {
        assert!(is_in_order(&told(gateway, crowd).await, CAPACITY));
        for visitor in &crowd[..CAPACITY] {
            assert_eq!(page(gateway, &visitor.client).await, "hello");
        }
    }
}

pub(super) async fn page(gateway: &Gateway, client: &Client) -> String {
    let page = client.get(gateway.url("/show")).header("accept", "text/html");
    page.send().await.unwrap().text().await.unwrap()
}

/// The room takes newcomers again, behind everybody, with a number that nobody can have.
async fn goes_on(gateways: &[&Gateway], crowd: &mut Vec<Visitor>, left_out: u64) {
    let newcomer = join(gateways[0].url("/queue/join?room=hall")).await;
    let last = crowd.last().unwrap().number;
    assert!(newcomer.number > last + left_out, "{} after {last}", newcomer.number);
    crowd.push(newcomer);
    all_in_order(gateways, crowd).await;
}

#[tokio::test]
async fn who_goes_on_asking_keeps_the_place_whatever_becomes_of_the_store() {
    let Some(mut server) = Redis::start(&[]) else { return };
    let origin = Origin::saying("hello").await;
    let [one, two] = gateways(&origin, &server).await;
    let mut crowd = Vec::new();
    for _ in 0..CAPACITY {
        crowd.push(join(one.url("/queue/join?room=hall")).await);
    }
    let at = |number| [&one, &two][number as usize % 2].url("/queue/join?room=hall");
    let joins: JoinSet<Visitor> = (0..CROWD).map(|number| join(at(number))).collect();
    crowd.extend(joins.join_all().await);
    crowd.sort_unstable_by_key(|visitor| visitor.number);
    all_in_order(&[&one, &two], &crowd).await;

    server.order(&["FLUSHALL"]);
    nobody_is_lost(&[&one, &two], &crowd).await;
    goes_on(&[&one, &two], &mut crowd, LEFT_OUT).await;

    server.signal("STOP");
    nobody_is_lost(&[&one, &two], &crowd).await;
    server.signal("CONT");
    goes_on(&[&two, &one], &mut crowd, 0).await;

    server.stop();
    nobody_is_lost(&[&one, &two], &crowd).await;
    drop(one);
    assert!(server.run());
    nobody_is_lost(&[&two], &crowd).await;
    goes_on(&[&two], &mut crowd, LEFT_OUT).await;

    let left = crowd[0].client.post(two.url("/queue/leave")).send().await.unwrap();
    assert_eq!(left.status(), 204);
    eventually("the first of those who wait is called", PATIENCE, async || {
        (state(&two, &crowd[CAPACITY]).await != "waiting").then_some(())
    })
    .await;
    eventually("and enters", PATIENCE, async || {
        (page(&two, &crowd[CAPACITY].client).await == "hello").then_some(())
    })
    .await;
    assert_eq!(state(&two, &crowd[CAPACITY + 1]).await, "waiting");
}
