//! A room that is lost altogether: its Redis and every gateway that remembered it. Whoever still has a ticket has the
//! place back, in the same order, ahead of all who come now; and whoever still has a pass is inside.

use tokio::task::JoinSet;

use crate::fleet::{CAPACITY, Visitor, gateways_with, join, state};
use crate::lost_room::{is_in_order, page, told};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::redis::Redis;
use crate::support::{PATIENCE, eventually};

const CROWD: u64 = 60;
const NEWCOMERS: usize = 5;

/// So the room listens for ten seconds.
const ROOM: &str = ", abandon_after: 30s";

async fn ask(gateway: &Gateway, visitor: &Visitor) {
    eventually("a ticket is worth its place again", PATIENCE, async || {
        (state(gateway, visitor).await == "waiting").then_some(())
    })
    .await;
}

async fn has_the_page(gateway: &Gateway, visitor: &Visitor) {
    eventually("who was inside is inside", PATIENCE, async || {
        (page(gateway, &visitor.client).await == "hello").then_some(())
    })
    .await;
}

async fn crowd(gateways: &[Gateway; 2]) -> Vec<Visitor> {
    let mut crowd = Vec::new();
    for _ in 0..CAPACITY {
        crowd.push(join(gateways[0].url("/queue/join?room=hall")).await);
    }
    let at = |number| gateways[number as usize % 2].url("/queue/join?room=hall");
    let joins: JoinSet<Visitor> = (0..CROWD).map(|number| join(at(number))).collect();
    crowd.extend(joins.join_all().await);
    crowd.sort_unstable_by_key(|visitor| visitor.number);
    crowd
}

#[tokio::test]
async fn who_has_a_ticket_has_the_place_again_when_the_store_and_all_gateways_are_lost() {
    let Some(mut server) = Redis::start(&[]) else { return };
    let origin = Origin::saying("hello").await;
    let before = gateways_with(ROOM, &origin, &server).await;
    let mut crowd = crowd(&before).await;
    drop(before);
    server.stop();
    assert!(server.run());

    let [one, two] = gateways_with(ROOM, &origin, &server).await;
    // The last of them is the first who asks; then newcomers come, before most others ask.
    ask(&one, &crowd[crowd.len() - 1]).await;
    for visitor in &crowd[..CAPACITY] {
        has_the_page(&two, visitor).await;
    }
    let mut newcomers = Vec::new();
    for _ in 0..NEWCOMERS {
        newcomers.push(join(two.url("/queue/join?room=hall")).await);
    }
    for (index, visitor) in crowd.iter().enumerate().skip(CAPACITY).rev() {
        ask([&one, &two][index % 2], visitor).await;
    }
    crowd.extend(newcomers);
    for gateway in [&one, &two] {
        eventually("everyone has their place", PATIENCE, async || {
            is_in_order(&told(gateway, &crowd).await, CAPACITY).then_some(())
        })
        .await;
    }

    let left = crowd[0].client.post(two.url("/queue/leave")).send().await.unwrap();
    assert_eq!(left.status(), 204);
    eventually("the first of those who wait is called", PATIENCE, async || {
        (state(&two, &crowd[CAPACITY]).await != "waiting").then_some(())
    })
    .await;
    has_the_page(&one, &crowd[CAPACITY]).await;
    assert_eq!(state(&one, &crowd[CAPACITY + 1]).await, "waiting");
}
