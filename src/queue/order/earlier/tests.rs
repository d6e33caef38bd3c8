use std::time::Duration;

use super::*;
use crate::queue::earlier::{EARLIER_MAX, RANKS_EITHER_WAY, listening};
use crate::queue::log::{Cursor, Log};
use crate::queue::restore::{Hearing, RESTORE_WITHIN, listen};
use crate::queue::turn::{Join, Joined, Otherwise, Stage, Turn, turn};

const START: Timestamp = Timestamp::from_secs(1_000_000);

/// Of the life that was lost.
const LOST: u64 = 5;

/// A room that was lost, and has listened to gateways that remember nothing.
struct Room {
    state: RoomState,
    terms: Terms,
    now: Timestamp,
}

impl Room {
    fn begun(terms: Terms, shown: &[Return]) -> Self {
        let (mut state, mut log) = (RoomState::unheard(77), Log::default());
        let mut first = Turn::new(terms.clone(), 0);
        first.returns = shown.to_vec();
        assert!(matches!(
            listen((&mut state, &mut log), &first, Cursor::default(), 1, START),
            Hearing::On(_)
        ));
        let now = START + RESTORE_WITHIN;
        let last = Turn::new(terms.clone(), 0);
        assert!(matches!(
            listen((&mut state, &mut log), &last, Cursor::default(), 1, now),
            Hearing::Over
        ));
        Self { state, terms, now }
    }

    fn show(&mut self, returns: &[Return]) -> Vec<Returned> {
        let mut gathered = Turn::new(self.terms.clone(), 77);
        (gathered.returns, gathered.tick) = (returns.to_vec(), true);
        turn(&mut self.state, &gathered, self.now).returns
    }

    fn join(&mut self) -> (u64, Stage) {
        let mut gathered = Turn::new(self.terms.clone(), 77);
        gathered.joins = vec![Join {
            owner: None,
            otherwise: Otherwise::Wait,
            share: None,
        }];
        match turn(&mut self.state, &gathered, self.now).joins[0] {
            Joined::Place { number, stage, .. } => (number, stage),
            Joined::Refused(refusal) => panic!("{refusal:?}"),
        }
    }
}

fn ticket(rank: u64) -> Return {
    Return {
        epoch: LOST,
        rank,
        shows: Shows::Ticket { heard: START },
        owner: None,
    }
}

fn pass(rank: u64) -> Return {
    let until = START + Duration::from_secs(500);
    Return {
        shows: Shows::Pass { until },
        ..ticket(rank)
    }
}

fn number(returned: &Returned) -> u64 {
    match returned {
        Returned::Place { number, .. } => *number,
        Returned::Unknown => panic!("worth nothing"),
    }
}

#[test]
fn nobody_is_called_while_the_room_listens_and_then_the_lowest_rank_is() {
    let mut room = Room::begun(Terms::sample(1), &[ticket(900)]);
    let late = number(&room.show(&[ticket(900)])[0]);
    let (newcomer, stage) = room.join();
    assert_eq!(stage, Stage::Waiting);
    let early = number(&room.show(&[ticket(890)])[0]);
    assert!(early < late && late < newcomer);
    assert!(room.state.snapshot().called.is_empty());
    room.now = START + RESTORE_WITHIN + listening(&room.terms);
    room.show(&[]);
    assert_eq!(room.state.snapshot().called, [early]);
}

#[test]
fn a_room_that_nobody_shows_a_slip_of_begins_at_once_and_later_slips_are_worth_nothing() {
    let mut room = Room::begun(Terms::sample(1), &[]);
    assert!(matches!(room.join(), (1, Stage::Inside { .. })));
    room.now = room.now + listening(&room.terms);
    assert_eq!(room.show(&[ticket(3)]), [Returned::Unknown]);
    assert_eq!(room.state.earlier_life(), None);
}

#[test]
fn a_slip_that_is_shown_soon_puts_its_holder_before_all_who_come_from_then_on() {
    let mut room = Room::begun(Terms::sample(0), &[]);
    let (first, _) = room.join();
    let back = number(&room.show(&[ticket(3)])[0]);
    let (second, _) = room.join();
    assert!(first < back && back < second);
}

#[test]
fn a_slip_gives_one_place_and_none_once_somebody_has_entered_or_left_by_it() {
    let mut room = Room::begun(Terms::sample(0), &[ticket(1)]);
    let given = number(&room.show(&[ticket(1)])[0]);
    let before = room.state.snapshot();
    assert_eq!(number(&room.show(&[ticket(1)])[0]), given);
    assert_eq!(room.state.snapshot(), before);
    let inside = room.show(&[pass(1)]);
    assert!(matches!(inside[0], Returned::Place { number, stage: Stage::Inside { .. }, .. } if number == given));
    assert_eq!(room.show(&[ticket(1)]), [Returned::Unknown]);
    assert_eq!(room.show(&[pass(1)]), inside, "a page asks for many things at once");
    room.state.leave(given);
    assert_eq!(room.show(&[ticket(1), pass(1)]), [Returned::Unknown; 2]);
}

#[test]
fn passes_take_slots_whether_or_not_any_are_free() {
    let mut room = Room::begun(Terms::sample(2), &[pass(1)]);
    room.show(&[pass(1), pass(2), pass(3), ticket(4)]);
    room.now = START + RESTORE_WITHIN + listening(&room.terms);
    room.show(&[]);
    let order = room.state.snapshot();
    assert_eq!((order.inside.len(), order.called.len(), order.waiting.len()), (3, 0, 1));
}

#[test]
fn stragglers_are_put_next_and_keep_what_they_got() {
    let mut room = Room::begun(Terms::sample(2), &[ticket(50)]);
    let ranks: Vec<Return> = (50..60).map(ticket).collect();
    room.show(&ranks);
    room.now = START + RESTORE_WITHIN + listening(&room.terms);
    room.show(&[]);
    let frontier = room.state.snapshot().frontier;
    let late = room.show(&[ticket(7), ticket(8)]);
    let waiting = room.state.snapshot().waiting;
    assert_eq!(waiting[0], number(&late[0]));
    assert_eq!(waiting[2], number(&late[1]));
    assert_eq!(number(&late[0]), frontier + 1);
    assert_eq!(room.show(&[ticket(7)]), [late[0]]);
    room.now = START + RESTORE_WITHIN + room.terms.abandon_after;
    assert_eq!(
        room.show(&[ticket(9)]),
        [Returned::Unknown],
        "others would have given up"
    );
}

#[test]
fn what_is_old_elsewhere_or_without_a_rank_is_worth_nothing() {
    let mut room = Room::begun(Terms::sample(0), &[ticket(50)]);
    let shows = |heard| Shows::Ticket { heard };
    let given_up = START - 2 * room.terms.abandon_after - Duration::from_micros(1);
    let expired = Return {
        shows: Shows::Pass { until: START },
        ..ticket(50)
    };
    let ancient = START - EARLIER_MAX;
    let (none, far, other) = (
        ticket(0),
        ticket(50 + 2 * RANKS_EITHER_WAY),
        Return { epoch: 4, ..ticket(51) },
    );
    let [given_up, ancient] = [given_up, ancient].map(|heard| Return {
        shows: shows(heard),
        ..ticket(52)
    });
    let returned = room.show(&[ticket(50), none, far, other, given_up, ancient, expired]);
    number(&returned[0]);
    assert_eq!(returned[1..], [Returned::Unknown; 6]);
}

#[test]
fn the_latest_life_that_is_shown_while_the_room_listens_is_the_one() {
    let before = Return { epoch: 4, ..ticket(1) };
    let mut room = Room::begun(Terms::sample(0), &[before, ticket(1), before]);
    assert_eq!(room.state.earlier_life(), Some(LOST));
    assert_eq!(room.show(&[before]), [Returned::Unknown]);
}

#[test]
fn who_waits_for_a_lobby_joins_it_and_takes_nothing_along() {
    let terms = Terms {
        order: Order::Shuffle,
        open: Some(START + Duration::from_secs(600)),
        ..Terms::sample(2)
    };
    let mut room = Room::begun(terms, &[ticket(1)]);
    assert_eq!(room.show(&[ticket(1)]), [Returned::Unknown]);
    assert_eq!(room.join(), (1, Stage::Waiting));
}

#[test]
fn it_is_all_forgotten_once_nothing_of_it_can_be_worth_anything() {
    let mut room = Room::begun(Terms::sample(2), &[pass(1)]);
    number(&room.show(&[pass(1)])[0]);
    room.now = START + RESTORE_WITHIN + room.terms.pass;
    room.show(&[]);
    assert_eq!(room.state.earlier_life(), None);
}
