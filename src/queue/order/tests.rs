use super::*;
use crate::queue::turn::{Outcome, Share, Turn, turn};

const START: Timestamp = Timestamp::from_secs(1_000_000);

/// A room, its rule, and the time there.
struct Desk {
    state: RoomState,
    terms: Terms,
    now: Timestamp,
}

impl Desk {
    fn open(terms: Terms) -> Self {
        Self {
            state: RoomState::new(1),
            terms,
            now: START,
        }
    }

    fn turn(&mut self, fill: impl FnOnce(&mut Turn)) -> Outcome {
        let mut gathered = Turn::new(self.terms.clone(), 1);
        fill(&mut gathered);
        turn(&mut self.state, &gathered, self.now)
    }

    fn join(&mut self) -> (u64, Stage) {
        match self.try_join(None) {
            Joined::Place { number, stage, .. } => (number, stage),
            Joined::Refused(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    fn try_join(&mut self, owner: Option<u128>) -> Joined {
        self.turn(|turn| {
            turn.joins.push(Join {
                owner,
                otherwise: Otherwise::Wait,
                share: None,
            })
        })
        .joins[0]
    }

    fn tick(&mut self) -> Outcome {
        self.turn(|turn| turn.tick = true)
    }

    fn enter(&mut self, number: u64) -> Entered {
        self.turn(|turn| turn.enters.push(number)).enters[0]
    }

    fn leave(&mut self, number: u64) {
        self.turn(|turn| turn.leaves.push(number));
    }

    /// Time passes, with a turn a second, as gateways make them.
    fn after(&mut self, secs: u64) -> &mut Self {
        for _ in 0..secs {
            self.now = self.now + Duration::from_secs(1);
            self.turn(|_| ());
        }
        self
    }
}

fn inside(stage: Stage) -> bool {
    matches!(stage, Stage::Inside { .. })
}

#[test]
fn who_comes_while_there_is_room_goes_straight_in_and_the_rest_wait_in_order() {
    let mut desk = Desk::open(Terms::sample(2));
    let places: Vec<_> = (0..5).map(|_| desk.join()).collect();
    assert!(inside(places[0].1) && inside(places[1].1));
    assert_eq!(
        places[2..],
        [(3, Stage::Waiting), (4, Stage::Waiting), (5, Stage::Waiting)]
    );
    assert_eq!(desk.tick().counts.frontier, 2);
    desk.leave(1);
    assert_eq!(desk.tick().counts.frontier, 3);
    assert!(matches!(desk.enter(4), Entered::NotYet));
    assert!(matches!(desk.enter(3), Entered::Now { .. }));
}

#[test]
fn nobody_overtakes_a_visitor_who_waits_although_there_is_room() {
    let mut desk = Desk::open(Terms::sample(2));
    for _ in 0..3 {
        desk.join();
    }
    desk.leave(1);
    assert_eq!(desk.join(), (4, Stage::Waiting));
    assert_eq!(desk.tick().counts.frontier, 3);
}

#[test]
fn a_ticket_becomes_a_pass_once() {
    let mut desk = Desk::open(Terms::sample(2));
    for _ in 0..3 {
        desk.join();
    }
    desk.leave(2);
    desk.tick();
    let entered = desk.now;
    assert_eq!(
        desk.enter(3),
        Entered::Now {
            until: entered + desk.terms.pass
        }
    );
    desk.after(60);
    let again = Entered::Already {
        since: entered,
        until: entered + desk.terms.pass,
    };
    assert_eq!(desk.enter(3), again);
    assert_eq!(desk.enter(99), Entered::Gone);
}

#[test]
fn a_call_that_nobody_answers_goes_to_the_next() {
    let mut desk = Desk::open(Terms::sample(2));
    for _ in 0..4 {
        desk.join();
    }
    desk.leave(1);
    desk.tick();
    desk.after(119);
    desk.now = desk.now + Duration::from_secs(1);
    let outcome = desk.tick();
    assert_eq!(outcome.change.map(|change| change.unclaimed), Some(vec![3]));
    assert_eq!(outcome.counts.frontier, 4);
    assert_eq!(desk.enter(3), Entered::Gone);
}

#[test]
fn a_place_is_given_up_after_silence_and_kept_by_any_sign_of_life() {
    let mut desk = Desk::open(Terms::sample(2));
    for _ in 0..4 {
        desk.join();
    }
    for _ in 0..5 {
        desk.after(299).turn(|turn| turn.touches.push(4));
        desk.turn(|turn| turn.renewals = [1, 2].map(|n| (n, START + Duration::from_secs(9_999))).to_vec());
    }
    let counts = desk.tick().counts;
    assert_eq!((counts.waiting, counts.inside), (1, 2));
    desk.leave(1);
    assert_eq!(desk.tick().counts.frontier, 4);
}

#[test]
fn a_slot_outlives_its_pass_by_the_grace_and_no_longer() {
    let mut desk = Desk::open(Terms::sample(2));
    for _ in 0..3 {
        desk.join();
    }
    for _ in 0..2 {
        desk.after(299).turn(|turn| turn.touches.push(3));
    }
    desk.after(4);
    assert_eq!(desk.now, START + desk.terms.pass + Duration::from_secs(2));
    assert_eq!(desk.tick().counts.inside, 2, "a renewal may still be on its way");
    desk.now = START + desk.terms.pass + PASS_GRACE;
    let counts = desk.tick().counts;
    assert_eq!((counts.inside, counts.called), (0, 1));
}

#[test]
fn after_the_store_was_away_nobody_loses_what_a_gateway_still_has_to_speak_of() {
    let mut desk = Desk::open(Terms::sample(2));
    for _ in 0..5 {
        desk.join();
    }
    desk.leave(2);
    desk.tick();
    desk.now = desk.now + Duration::from_secs(700);
    let counts = desk.turn(|turn| turn.touches.push(4)).counts;
    assert_eq!((counts.waiting, counts.called, counts.inside), (2, 1, 1));
    let until = desk.now + desk.terms.pass;
    desk.after(9)
        .turn(|turn| (turn.touches, turn.renewals) = (vec![5], vec![(1, until)]));
    assert!(
        matches!(desk.enter(3), Entered::Now { .. }),
        "the call came through late"
    );
    let counts = desk.after(2).tick().counts;
    assert_eq!((counts.waiting, counts.called, counts.inside), (2, 0, 2));
}

#[test]
fn after_the_store_was_away_silence_counts_again_before_long() {
    let mut desk = Desk::open(Terms::sample(2));
    for _ in 0..5 {
        desk.join();
    }
    desk.now = desk.now + Duration::from_secs(700);
    assert_eq!(desk.turn(|_| ()).counts.waiting, 3);
    let counts = desk.after(HEARING.as_secs()).tick().counts;
    assert_eq!((counts.waiting, counts.inside), (0, 0));
}

#[test]
fn a_renewal_that_comes_too_late_gets_a_free_slot_or_none() {
    let mut desk = Desk::open(Terms {
        visitors: Some(1),
        ..Terms::sample(2)
    });
    desk.join();
    desk.after(700).tick();
    let until = desk.now + Duration::from_secs(600);
    assert_eq!(desk.turn(|turn| turn.renewals.push((1, until))).counts.inside, 1);
    desk.after(700).tick();
    assert!(inside(desk.join().1));
    let until = desk.now + Duration::from_secs(600);
    let outcome = desk.turn(|turn| turn.renewals.push((1, until)));
    assert_eq!(outcome.counts.inside, 1);
    assert_eq!(outcome.change.map(|change| change.ended), Some(vec![1]));
}

#[test]
fn held_and_unopened_rooms_give_numbers_and_call_nobody() {
    for (mode, open) in [(Mode::Hold, None), (Mode::Auto, Some(START + Duration::from_secs(60)))] {
        let mut desk = Desk::open(Terms {
            mode,
            open,
            ..Terms::sample(2)
        });
        assert_eq!(desk.join(), (1, Stage::Waiting));
        assert_eq!(desk.tick().counts.frontier, 0);
        desk.terms.mode = Mode::Auto;
        assert_eq!(desk.after(60).tick().counts.frontier, 1);
    }
}

#[test]
fn a_draining_room_takes_nobody_and_goes_on_calling() {
    let mut desk = Desk::open(Terms::sample(2));
    for _ in 0..3 {
        desk.join();
    }
    desk.terms.mode = Mode::Drain;
    assert_eq!(desk.try_join(None), Joined::Refused(Refusal::Closed));
    desk.leave(1);
    assert_eq!(desk.tick().counts.frontier, 3);
}

#[test]
fn a_room_that_is_off_asks_nobody_to_wait_and_forgets_nobody_who_did() {
    let mut desk = Desk::open(Terms::sample(2));
    for _ in 0..3 {
        desk.join();
    }
    let off = desk.turn(|turn| turn.settings.push(Setting::Mode(Mode::Off)));
    assert_eq!((off.counts.mode, off.counts.waiting), (Mode::Off, 1));
    assert_eq!(desk.try_join(None), Joined::Refused(Refusal::Off));
    let back = desk.turn(|turn| turn.settings.push(Setting::AsWritten));
    assert_eq!((back.counts.mode, back.counts.waiting), (Mode::Auto, 1));
}

#[test]
fn a_full_queue_refuses_and_says_so() {
    let mut desk = Desk::open(Terms {
        visitors: Some(0),
        max_waiting: 3,
        ..Terms::sample(2)
    });
    for _ in 0..3 {
        desk.join();
    }
    assert_eq!(desk.try_join(None), Joined::Refused(Refusal::Full));
    desk.leave(2);
    assert_eq!(desk.join(), (4, Stage::Waiting), "a number is never given twice");
}

#[test]
fn an_owner_has_one_place_until_it_is_gone() {
    let mut desk = Desk::open(Terms {
        visitors: Some(1),
        ..Terms::sample(2)
    });
    let first = desk.try_join(Some(7));
    assert_eq!(desk.try_join(Some(7)), first);
    let Joined::Place { number: waiting, .. } = desk.try_join(Some(8)) else {
        panic!()
    };
    desk.leave(1);
    assert!(matches!(desk.try_join(Some(8)), Joined::Place { number, .. } if number == waiting));
    assert!(matches!(
        desk.try_join(Some(7)),
        Joined::Place {
            number: 3,
            stage: Stage::Waiting,
            ..
        }
    ));
}

#[test]
fn who_would_not_wait_takes_no_place() {
    let mut desk = Desk::open(Terms::sample(2));
    let pass_by = Join {
        owner: None,
        otherwise: Otherwise::Refuse,
        share: None,
    };
    let joins = desk.turn(|turn| turn.joins = vec![pass_by; 3]).joins;
    assert!(matches!(
        joins[1],
        Joined::Place {
            stage: Stage::Inside { .. },
            ..
        }
    ));
    assert_eq!(joins[2], Joined::Refused(Refusal::NoRoom));
    assert_eq!(desk.tick().counts.last, 2);
}

#[test]
fn a_lowered_capacity_calls_nobody_until_there_is_room_again() {
    let mut desk = Desk::open(Terms {
        visitors: Some(3),
        ..Terms::sample(2)
    });
    for _ in 0..5 {
        desk.join();
    }
    desk.turn(|turn| turn.settings.push(Setting::Visitors(1)));
    desk.leave(1);
    desk.leave(2);
    assert_eq!(desk.tick().counts.frontier, 3);
    desk.leave(3);
    assert_eq!(desk.tick().counts.frontier, 4);
}

#[test]
fn who_is_revoked_is_out_and_no_renewal_that_comes_late_brings_them_back() {
    let mut desk = Desk::open(Terms::sample(2));
    for _ in 0..4 {
        desk.join();
    }
    let used = desk.now + desk.terms.pass;
    let renewed = move |turn: &mut Turn| turn.renewals.push((1, used));
    let outcome = desk.turn(|turn| {
        turn.settings
            .extend([Setting::Revoke(1), Setting::Revoke(3), Setting::Revoke(99)]);
        renewed(turn);
    });
    let change = outcome.change.unwrap();
    assert_eq!((change.left, outcome.counts.inside), (vec![3], 1));
    assert!(change.ended.contains(&1));
    desk.after(5);
    let late = desk.turn(renewed);
    assert_eq!((late.counts.inside, late.change.unwrap().ended), (1, vec![1]));
    assert_eq!(desk.tick().counts.frontier, 4, "the slot is the next visitor's");
}

#[test]
fn what_was_revoked_is_remembered_up_to_a_bound() {
    let mut desk = Desk::open(Terms::sample(2));
    desk.turn(|turn| {
        turn.joins = vec![
            Join {
                owner: None,
                otherwise: Otherwise::Wait,
                share: None,
            };
            10
        ];
    });
    for _ in 0..REVOKED_MAX {
        desk.turn(|turn| turn.settings = (1..=10).map(Setting::Revoke).collect());
    }
    assert_eq!(desk.state.revoked.len(), REVOKED_MAX);
}

#[test]
fn a_pass_that_was_given_back_is_brought_back_by_no_renewal_under_way() {
    let mut desk = Desk::open(Terms::sample(2));
    desk.join();
    desk.leave(1);
    let until = desk.now + desk.terms.pass;
    let outcome = desk.turn(|turn| turn.renewals.push((1, until)));
    assert_eq!(outcome.counts.inside, 0);
    assert_eq!(outcome.change.map(|change| change.ended), Some(vec![1]));
}

#[test]
fn numbers_of_another_life_are_void() {
    let mut desk = Desk::open(Terms::sample(2));
    desk.join();
    let mut old = Turn::new(desk.terms.clone(), 2);
    old.leaves.push(1);
    old.enters.push(1);
    let outcome = turn(&mut desk.state, &old, desk.now);
    assert_eq!((outcome.counts.inside, outcome.enters[0]), (1, Entered::Gone));
}

#[test]
fn a_turn_that_changes_nothing_says_so() {
    let mut desk = Desk::open(Terms::sample(2));
    assert!(desk.tick().change.is_none());
    desk.join();
    assert!(desk.tick().change.is_none());
}

#[test]
fn a_mass_that_walked_off_holds_nobody_up() {
    let mut desk = Desk::open(Terms {
        visitors: Some(1),
        max_waiting: u64::MAX,
        ..Terms::sample(2)
    });
    let crowd = vec![
        Join {
            owner: None,
            otherwise: Otherwise::Wait,
            share: None,
        };
        50_000
    ];
    desk.turn(|turn| turn.joins = crowd);
    let late = desk.after(299).join().0;
    desk.after(1).leave(1);
    for _ in 0..30 {
        desk.tick();
    }
    assert_eq!(desk.tick().counts.frontier, late);
}

fn of_network(network: u64) -> Join {
    Join {
        owner: None,
        otherwise: Otherwise::Wait,
        share: Some(Share { network, most: 3 }),
    }
}

#[test]
fn a_network_has_as_many_places_as_it_may_waiting_or_inside_and_another_has_its_own() {
    let mut desk = Desk::open(Terms {
        visitors: Some(1),
        ..Terms::sample(2)
    });
    let joins = desk.turn(|turn| turn.joins = vec![of_network(1); 5]).joins;
    assert!(matches!(joins[2], Joined::Place { number: 3, .. }));
    assert_eq!(joins[3..], [Joined::Refused(Refusal::Crowded); 2]);
    let others = desk.turn(|turn| turn.joins = vec![of_network(2), of_network(1)]).joins;
    assert!(matches!(others[0], Joined::Place { number: 4, .. }), "{others:?}");
    assert_eq!(others[1], Joined::Refused(Refusal::Crowded));
}

#[test]
fn a_network_gets_a_new_place_for_each_that_is_gone_however_it_went() {
    let mut desk = Desk::open(Terms {
        visitors: Some(1),
        ..Terms::sample(2)
    });
    desk.turn(|turn| turn.joins = vec![of_network(1); 3]);
    for gone in 1..=20 {
        // The one inside, then the next, who was called.
        desk.leave(gone);
        let joins = desk.turn(|turn| turn.joins = vec![of_network(1); 2]).joins;
        assert!(
            matches!(joins[0], Joined::Place { number, .. } if number == gone + 3),
            "{joins:?}"
        );
        assert_eq!(joins[1], Joined::Refused(Refusal::Crowded));
    }
    desk.after(100_000).tick();
    desk.after(100_000).tick();
    let joins = desk.turn(|turn| turn.joins = vec![of_network(1); 4]).joins;
    let places = joins.iter().filter(|joined| matches!(joined, Joined::Place { .. }));
    assert_eq!(places.count(), 3, "all were given up: {joins:?}");
}

#[test]
fn what_an_operator_says_is_a_change_and_a_measured_rate_is_none() {
    let mut desk = Desk::open(Terms::sample(2));
    desk.tick();
    let says = |setting| move |turn: &mut Turn| turn.settings.push(setting);
    assert!(desk.turn(says(Setting::Mode(Mode::Hold))).change.is_some());
    assert!(desk.turn(says(Setting::AsWritten)).change.is_some());
    let rate = "2/s".parse().unwrap();
    assert_eq!(desk.turn(says(Setting::Measured { gateway: 1, rate })).change, None);
    assert_eq!(desk.tick().change, None);
}

#[test]
fn what_was_said_holds_until_another_rule_file_is_read_which_counts_once() {
    let mut desk = Desk::open(Terms::sample(2));
    let mut says = |settings: &[Setting]| desk.turn(|turn| turn.settings = settings.to_vec()).counts.mode;
    let (hold, off) = (Setting::Mode(Mode::Hold), Setting::Mode(Mode::Off));
    assert_eq!(says(&[hold]), Mode::Hold);
    assert_eq!(says(&[Setting::Written(5)]), Mode::Hold, "the first is only remembered");
    assert_eq!(says(&[Setting::Written(6)]), Mode::Auto);
    assert_eq!(says(&[off]), Mode::Off);
    assert_eq!(says(&[Setting::Written(6)]), Mode::Off, "it reached another gateway");
    assert_eq!(
        says(&[hold, Setting::Written(7)]),
        Mode::Hold,
        "whatever comes with it was said after it"
    );
    assert_eq!(says(&[Setting::AsWritten]), Mode::Auto);
    assert_eq!(says(&[off]), Mode::Off);
    assert_eq!(
        says(&[Setting::Written(7)]),
        Mode::Off,
        "a reset does not forget the file"
    );
}

#[test]
fn another_rule_file_takes_back_proposals_too() {
    let mut desk = Desk::open(Terms::sample(2));
    let mut says = |setting| desk.turn(|turn| turn.settings.push(setting)).counts.admit;
    let rate = "2/s".parse().unwrap();
    says(Setting::Written(5));
    assert_eq!(says(Setting::Measured { gateway: 1, rate }), Some(rate));
    assert_eq!(says(Setting::Written(5)), Some(rate));
    assert_eq!(says(Setting::Written(6)), None);
}
