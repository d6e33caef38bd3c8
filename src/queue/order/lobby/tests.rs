use std::time::Duration;

use super::*;
use crate::base::clock::Timestamp;
use crate::queue::terms::Mode;
use crate::queue::turn::{Join, Joined, Otherwise, Outcome, Stage, Turn, turn};

const OPEN: Timestamp = Timestamp::from_secs(1_000_000);
const EARLY: Timestamp = Timestamp::from_secs(999_999);

fn terms() -> Terms {
    Terms {
        visitors: Some(0),
        admit: None,
        pass: Duration::from_secs(600),
        open: Some(OPEN),
        order: Order::Shuffle,
        abandon_after: Duration::from_secs(300),
        claim_within: Duration::from_secs(120),
        tick: Duration::from_millis(200),
        max_waiting: 1_000_000,
        mode: Mode::Auto,
    }
}

struct Desk {
    state: RoomState,
    terms: Terms,
    now: Timestamp,
    nonce: u128,
}

impl Desk {
    fn before_the_opening() -> Self {
        Self {
            state: RoomState::new(1),
            terms: terms(),
            now: EARLY,
            nonce: 7,
        }
    }

    fn turn(&mut self, fill: impl FnOnce(&mut Turn)) -> Outcome {
        let mut gathered = Turn::new(self.terms.clone(), 1);
        (gathered.tick, gathered.nonce) = (true, self.nonce);
        fill(&mut gathered);
        turn(&mut self.state, &gathered, self.now)
    }

    fn join(&mut self, visitors: usize) -> Outcome {
        let join = Join {
            owner: None,
            otherwise: Otherwise::Wait,
            share: None,
        };
        self.turn(|turn| turn.joins = vec![join; visitors])
    }

    /// Calls so many more and gives them in the order in which the frontier passed them, one turn each.
    fn call(&mut self, visitors: u64) -> Vec<u64> {
        let called = |state: &RoomState| state.snapshot().called;
        let mut order = Vec::new();
        for _ in 0..visitors {
            let before = called(&self.state);
            self.terms.visitors = self.terms.visitors.map(|most| most + 1);
            self.turn(|_| ());
            order.extend(
                called(&self.state)
                    .into_iter()
                    .filter(|number| !before.contains(number)),
            );
        }
        order
    }
}

#[test]
fn a_lobby_is_called_by_rank_and_who_comes_later_by_arrival() {
    let mut desk = Desk::before_the_opening();
    let standing = desk.join(20).counts;
    assert_eq!((standing.lobby, standing.draw, standing.frontier), (true, None, 0));
    assert_eq!(desk.call(3), Vec::<u64>::new(), "nobody before the opening");
    desk.terms.visitors = Some(0);
    desk.now = OPEN;
    let counts = desk.join(5).counts;
    let draw = counts.draw.unwrap();
    assert_eq!((counts.lobby, draw.before, draw.size, draw.at), (false, 0, 20, OPEN));
    assert_eq!(draw.seed, Seed::draw(7, OPEN.as_micros()));
    let ranks = Ranks::new(draw);
    let mut expected: Vec<u64> = (1..=20).collect();
    expected.sort_by_key(|number| ranks.rank(*number));
    expected.extend(21..=25);
    let called = desk.call(25);
    assert_eq!(called, expected);
    assert_ne!(called[..20], (1..=20).collect::<Vec<_>>()[..]);
    assert_eq!(desk.turn(|_| ()).counts.frontier, 25);
}

#[test]
fn the_order_depends_on_the_turn_that_finds_the_room_open_and_on_nothing_before() {
    let order = |early: u128, late: u128| {
        let mut desk = Desk::before_the_opening();
        desk.nonce = early;
        desk.join(50);
        (desk.now, desk.nonce) = (OPEN, late);
        desk.turn(|_| ()).counts.draw.unwrap().seed
    };
    assert_eq!(order(1, 2), order(3, 2));
    assert_ne!(order(1, 2), order(1, 3));
}

#[test]
fn who_left_is_passed_over_and_a_turn_looks_at_so_many_ranks() {
    let mut desk = Desk::before_the_opening();
    desk.join(2_000);
    desk.turn(|turn| turn.leaves = (1..2_000).collect());
    desk.now = OPEN;
    desk.terms.visitors = Some(5);
    let mut turns = 0;
    loop {
        let outcome = desk.turn(|_| ());
        if outcome.counts.called == 1 {
            break;
        }
        assert_eq!(outcome.tick_at, Some(OPEN), "the next turn is due at once");
        assert!(outcome.change.is_some(), "the frontier moved");
        turns += 1;
    }
    assert!(turns <= 4, "{turns} turns");
    assert_eq!(desk.state.snapshot().called, [2_000]);
}

#[test]
fn nobody_is_shuffled_who_did_not_stand_in_a_lobby() {
    let mut desk = Desk::before_the_opening();
    desk.now = OPEN;
    desk.join(10);
    assert_eq!(
        desk.turn(|_| ()).counts.draw,
        None,
        "the room was first heard of after the opening"
    );
    assert_eq!(desk.call(10), (1..=10).collect::<Vec<_>>());

    let mut desk = Desk::before_the_opening();
    desk.join(10);
    desk.terms.order = Order::Arrival;
    assert!(!desk.turn(|_| ()).counts.lobby, "the operator thought better of it");
    desk.now = OPEN;
    desk.terms.order = Order::Shuffle;
    desk.turn(|_| ());
    assert_eq!(desk.call(10), (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_second_lobby_waits_for_the_first_to_be_over() {
    let mut desk = Desk::before_the_opening();
    desk.join(10);
    desk.now = OPEN;
    let first = desk.turn(|_| ()).counts.draw.unwrap();
    desk.call(4);
    let again = OPEN + Duration::from_secs(60);
    desk.terms.open = Some(again);
    assert!(desk.join(10).counts.lobby);
    desk.now = again;
    desk.nonce = 8;
    assert_eq!(
        desk.turn(|_| ()).counts.draw,
        Some(first),
        "six of the first lobby still wait"
    );
    let rest = desk.call(6);
    assert!(rest.iter().all(|number| *number <= 10), "{rest:?}");
    let second = desk.turn(|_| ()).counts.draw.unwrap();
    assert_eq!((second.before, second.size), (10, 10));
    assert_ne!(second.seed, first.seed);
    let mut called = desk.call(10);
    called.sort_unstable();
    assert_eq!(called, (11..=20).collect::<Vec<_>>());
}

#[test]
fn a_pass_of_the_lobby_is_renewed_like_any_other_once_its_rank_was_called() {
    let mut desk = Desk::before_the_opening();
    desk.join(100);
    desk.now = OPEN;
    desk.turn(|_| ());
    let number = desk.call(1)[0];
    desk.terms.pass = Duration::from_secs(1);
    desk.turn(|turn| turn.enters = vec![number]);
    // The pass runs out and the slot stays free: nobody is called.
    for _ in 0..5 {
        desk.now = desk.now + Duration::from_secs(1);
        desk.turn(|turn| turn.tick = false);
    }
    assert!(desk.state.snapshot().inside.is_empty());
    let till = OPEN + Duration::from_secs(900);
    desk.turn(|turn| turn.renewals = vec![(number, till)]);
    assert_eq!(
        desk.state.snapshot().inside,
        [number],
        "a late renewal gets the free slot"
    );
    let waiting = (1..=100)
        .find(|other| *other != number && *other < number)
        .unwrap_or(number + 1);
    let outcome = desk.turn(|turn| turn.renewals = vec![(waiting, till)]);
    assert_eq!(outcome.change, None, "a number that was not called has no pass");
}

#[test]
fn a_visitor_who_comes_back_gets_the_place_of_the_lobby_again() {
    let mut desk = Desk::before_the_opening();
    let join = |owner| Join {
        owner: Some(owner),
        otherwise: Otherwise::Wait,
        share: None,
    };
    desk.turn(|turn| turn.joins = (1..=30).map(join).collect());
    desk.now = OPEN;
    desk.turn(|_| ());
    for owner in [3, 30] {
        let joined = desk.turn(|turn| turn.joins = vec![join(owner)]).joins[0];
        assert!(
            matches!(joined, Joined::Place { number, stage: Stage::Waiting, .. } if u128::from(number) == owner),
            "{joined:?}"
        );
    }
}
