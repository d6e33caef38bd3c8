use std::time::Duration;

use super::*;
use crate::base::clock::ManualClock;
use crate::base::key::Key;
use crate::limiter::terms::{Algorithm, Terms};
use crate::limiter::window::{Counts, Window};
use crate::store::limits::KeyTurn;

fn store() -> MemoryLimits {
    MemoryLimits::shared(ManualClock::at(Timestamp::default()))
}

fn turn(limit: &str, gateway: u64, fleet: Fleet) -> LimitTurn {
    LimitTurn {
        gateway: GatewayId(gateway),
        sequence: 1,
        limit: limit.parse().unwrap(),
        terms: Terms {
            allows: 100,
            window: Window::new(Duration::from_secs(10)),
            algorithm: Algorithm::SlidingWindow,
        },
        partition: 0,
        epoch: 0,
        said_all: true,
        cursor: 0,
        fleet: Arc::new(fleet),
        keys: vec![KeyTurn {
            key: Key(7),
            report: Some(Counts::default()),
            overdraft: 0,
            give_back: None,
            ask: 1,
        }],
    }
}

#[test]
fn a_key_in_steady_use_remembers_no_gateway_that_is_long_gone() {
    let store = store();
    let mut now = Timestamp::from_secs(1_000);
    for gateway in 0..300 {
        let fleet = store.note_alive_at(GatewayId(gateway), &Fleet::default(), now);
        store.apply_at(&turn("one", gateway, fleet), now).unwrap();
        now = now + Duration::from_secs(15);
    }
    let state = store.locked();
    let kept = state.partitions.values().next().unwrap();
    let most = kept.partition.reported_of(Key(7));
    assert!(most < 10, "{most} gateways are remembered");
}

#[test]
fn partitions_of_limits_that_ended_make_room_for_others() {
    let store = store();
    let at = |secs: u64| Timestamp::from_secs(1_000 + secs);
    let held = |limit: &str, secs: u64| {
        store.apply_at(&turn(limit, 1, Fleet::default()), at(secs)).unwrap();
        store.locked().partitions.len()
    };
    assert_eq!(held("one", 0), 1);
    assert_eq!(held("two", 50), 2);
    assert_eq!(held("three", 80), 3, "two windows and a minute are not over");
    assert_eq!(held("two", 81), 3, "nothing is needed");
    assert_eq!(held("four", 81), 3, "the first was last spoken of 81 seconds ago");
}
