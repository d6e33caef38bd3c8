use std::time::Duration;

use super::*;
use crate::base::clock::ManualClock;
use crate::base::secret::Keyring;
use crate::queue::turn::{Join, Otherwise};
use crate::room::page::Page;
use crate::room::rule::{Capacity, Rule};
use crate::store::memory::rooms::MemoryRooms;

/// Gateways with one room of one fleet, in which a thousand wait.
struct Fleet {
    clock: Arc<ManualClock>,
    gateways: Vec<(Arc<Room>, Arc<Vitals>)>,
}

impl Fleet {
    async fn of(gateways: usize, name: &str) -> Self {
        let clock = ManualClock::at(Timestamp::from_secs(1_800_000_000));
        let store = Arc::new(MemoryRooms::new(Arc::<ManualClock>::clone(&clock)));
        let gateway = |_| {
            let vitals = Arc::new(Vitals::default());
            let room = Room::new(
                rule(name, &vitals),
                Arc::<MemoryRooms>::clone(&store),
                Arc::<ManualClock>::clone(&clock),
                Arc::new(Keyring::random()),
                Page::builtin(),
            );
            (room, vitals)
        };
        let gateways: Vec<_> = (0..gateways).map(gateway).collect();
        let fleet = Self { clock, gateways };
        let join = Join {
            owner: None,
            otherwise: Otherwise::Wait,
            share: None,
        };
        let room = &fleet.gateways[0].0;
        let _answers: Vec<_> = (0..10_000).map(|_| room.gather().join(join)).collect();
        for _ in 0..40 {
            room.turn().await;
        }
        fleet
    }

    /// So many seconds in which each gateway sees answers that take so many milliseconds; the rate in force then.
    async fn seconds(&self, seconds: u64, millis: &[u64]) -> f64 {
        for _ in 0..5 * seconds {
            self.clock.advance(Duration::from_millis(200));
            for ((room, vitals), millis) in self.gateways.iter().zip(millis) {
                for _ in 0..20 {
                    vitals.answered(Duration::from_millis(*millis));
                }
                room.turn().await;
            }
        }
        self.rate()
    }

    fn rate(&self) -> f64 {
        self.gateways[0].0.replica().counts().admit.unwrap().per_second()
    }
}

fn rule(name: &str, vitals: &Arc<Vitals>) -> Rule {
    let range = Range {
        min: "10/s".parse().unwrap(),
        max: "40/s".parse().unwrap(),
        by_latency: true,
        by_errors: true,
    };
    let capacity = Capacity {
        visitors: None,
        admit: Some(range.min),
        pass: Duration::from_secs(600),
    };
    let mut rule = Rule::new(name.parse().unwrap(), capacity);
    rule.terms.abandon_after = Duration::from_secs(86_400);
    rule.measured = Some(Measured {
        range,
        upstream: "shop".parse().unwrap(),
        vitals: Arc::clone(vitals),
    });
    rule
}

#[tokio::test]
async fn a_room_calls_faster_while_the_service_is_well_and_slower_when_it_is_not() {
    let fleet = Fleet::of(1, "measured").await;
    assert_eq!(fleet.rate(), 10.0);
    assert_eq!(fleet.seconds(150, &[50]).await, 40.0);
    assert!(fleet.seconds(6, &[150]).await <= 32.0);
    let snapshot = fleet.gateways[0].0.snapshot().capacity.measured.unwrap();
    assert!(["slow", "calm"].contains(&snapshot.judged.unwrap().as_str()));
    assert_eq!(fleet.seconds(150, &[50]).await, 40.0);
}

#[tokio::test]
async fn one_gateway_that_sees_trouble_is_enough_and_one_that_sees_nothing_is_not_asked() {
    let fleet = Fleet::of(3, "measured-by-three").await;
    assert_eq!(fleet.seconds(150, &[50, 50, 50]).await, 40.0);
    assert!(fleet.seconds(40, &[50, 50, 200]).await < 20.0);
    // The first two see nothing any more; the third alone brings the rate back.
    let (_, others) = fleet.gateways.split_at(2);
    for _ in 0..5 * 150 {
        fleet.clock.advance(Duration::from_millis(200));
        let (room, vitals) = &others[0];
        (0..20).for_each(|_| vitals.answered(Duration::from_millis(50)));
        room.turn().await;
    }
    fleet.gateways[0].0.turn().await;
    assert_eq!(fleet.rate(), 40.0);
}

#[tokio::test]
async fn where_nobody_sees_anything_the_rate_is_the_lowest_and_an_operator_has_the_last_word() {
    let fleet = Fleet::of(1, "measured-in-silence").await;
    fleet.seconds(30, &[50]).await;
    let room = &fleet.gateways[0].0;
    let _heard = room.gather().set(vec![Setting::Admit("70/s".parse().unwrap())]);
    assert_eq!(fleet.seconds(2, &[50]).await, 70.0);
    let _heard = room.gather().set(vec![Setting::AsWritten]);
    fleet.clock.advance(Duration::from_secs(30));
    room.turn().await;
    assert_eq!(fleet.rate(), 10.0);
}
