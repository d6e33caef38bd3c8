//! A waiting room that is lost with everybody who remembered it, and begins anew: people show what they hold, in whatever
//! order they happen to, some of them late, some of them twice, while others come for the first time.
//!
//! * nobody is called while the room listens, and nobody while more would be called and inside than fit;
//! * who shows a ticket while the room listens is called by the rank of the earlier life;
//! * who came for the first time is called after everybody who came back, and no straggler waits for them;
//! * a slip gives one place, however often it is shown, and none once somebody has entered by it;
//! * gateways know where everyone stands: what follows the room says what a snapshot does;
//! * in the end everybody got in.

use std::collections::HashMap;
use std::time::Duration;

use tidegate::base::clock::{ManualClock, Timestamp};
use tidegate::base::name::Name;
use tidegate::queue::earlier::{Return, Returned, Shows, listening};
use tidegate::queue::log::Cursor;
use tidegate::queue::terms::{Mode, Order, Terms};
use tidegate::queue::turn::{Join, Joined, Otherwise, Outcome, Stage, Turn};
use tidegate::room::replica::{Place, Replica};
use tidegate::store::memory::rooms::MemoryRooms;
use tidegate::store::rooms::RoomTurn;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const TICK: Duration = Duration::from_millis(200);
const SEEDS: u64 = 200;

/// By then everyone has come back who does, and got in.
const ENOUGH: Duration = Duration::from_secs(900);

#[test]
fn who_shows_a_ticket_in_a_room_that_nobody_remembers_has_the_place_again() {
    let seeds = crate::seeds(SEEDS);
    let swept = seeds.len() as u64 >= SEEDS;
    let mut total = [0; 5];
    for seed in seeds {
        let figures = Sim::new(seed).run(seed);
        total.iter_mut().zip(figures).for_each(|(sum, more)| *sum += more);
    }
    println!("back in their order, stragglers, passes, newcomers, shown again: {total:?}");
    assert!(!swept || total.iter().all(|count| *count > 200), "{total:?}");
}

/// Somebody of the earlier life, or a newcomer.
#[derive(Debug, Clone)]
struct Visitor {
    slip: Option<Return>,
    comes_at: Timestamp,
    touches_at: Timestamp,
    leaves_at: Option<Timestamp>,
    number: Option<u64>,
    /// Whether the ticket was shown while the room listened.
    in_time: bool,
    called: bool,
    done: bool,
}

#[derive(Debug, Default)]
struct Gateway {
    replica: Replica,
    gathered: Vec<usize>,
    enters: Vec<u64>,
    leaves: Vec<u64>,
    touches: Vec<u64>,
}

struct Sim {
    rng: fastrand::Rng,
    room: Name,
    terms: Terms,
    store: MemoryRooms,
    now: Timestamp,
    gateways: Vec<Gateway>,
    visitors: Vec<Visitor>,
    /// When the earlier life ended.
    lost: Timestamp,
    /// Whether anybody has shown that there was one.
    shown: bool,
    /// Until when the room listens.
    listens_until: Option<Timestamp>,
    figures: [u64; 5],
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let terms = Terms {
            visitors: Some(rng.u64(1..12)),
            admit: None,
            pass: Duration::from_secs(200),
            open: Some(START + Duration::from_secs(30)),
            order: [Order::Arrival, Order::Shuffle][rng.usize(..2)],
            abandon_after: Duration::from_secs([60, 240, 600][rng.usize(..3)]),
            claim_within: Duration::from_secs(30),
            tick: TICK,
            max_waiting: 100_000,
            mode: Mode::Auto,
        };
        Self {
            store: MemoryRooms::on_server(ManualClock::at(START), 1),
            room: "concert".parse().unwrap(),
            terms,
            now: START,
            gateways: vec![Gateway::default()],
            visitors: Vec::new(),
            lost: START,
            shown: false,
            listens_until: None,
            figures: [0; 5],
            rng,
        }
    }

    fn turn(&mut self, index: usize, fill: impl FnOnce(&mut Turn)) -> Outcome {
        let cursor = self.gateways[index].replica.cursor();
        let mut turn = Turn::new(self.terms.clone(), cursor.epoch);
        (turn.tick, turn.nonce) = (true, self.rng.u128(..));
        fill(&mut turn);
        let reply = self.store.turn_at(&self.room, &RoomTurn { turn, cursor }, self.now);
        if reply.outcome.restoring.is_none() {
            self.gateways[index].replica.follow(&reply, self.terms.pass, self.now);
        }
        reply.outcome
    }

    /// The earlier life, and what its people hold at the end of it.
    fn live(&mut self) {
        let crowd = self.rng.usize(20..150);
        self.now = START + Duration::from_secs(1);
        self.turn(0, |_| ());
        self.now = self.now + Duration::from_secs(4);
        let join = Join {
            owner: None,
            otherwise: Otherwise::Wait,
            share: None,
        };
        self.turn(0, |turn| turn.joins = vec![join; crowd]);
        self.now = START + Duration::from_secs(40);
        for _ in 0..self.rng.usize(1..10) {
            self.now = self.now + Duration::from_secs(1);
            let leaves: Vec<u64> = (0..3).map(|_| self.rng.u64(1..=crowd as u64)).collect();
            self.turn(0, |turn| turn.leaves = leaves);
            let called: Vec<u64> = (1..=crowd as u64)
                .filter(|number| self.gateways[0].replica.place(*number) == Place::Called)
                .collect();
            let enters = called.into_iter().filter(|_| self.rng.u8(..3) > 0).collect();
            self.turn(0, |turn| turn.enters = enters);
        }
        for number in 1..=crowd as u64 {
            self.remember(number);
        }
    }

    fn remember(&mut self, number: u64) {
        let replica = &self.gateways[0].replica;
        let (place, rank) = (replica.place(number), replica.rank_drawn(number));
        let kept = self.terms.abandon_after.as_millis() as u64;
        let ago = Duration::from_millis(self.rng.u64(..kept));
        let shows = match place {
            Place::Gone => return,
            Place::Inside => Shows::Pass {
                until: self.now + self.terms.pass,
            },
            Place::Waiting { .. } | Place::Called => Shows::Ticket { heard: self.now - ago },
        };
        let slip = Return {
            epoch: replica.cursor().epoch,
            rank,
            shows,
            owner: None,
        };
        self.visitors.push(Visitor {
            slip: Some(slip),
            ..newcomer(self.now)
        });
    }

    /// Everything is lost, and it is decided who comes when.
    fn lose(&mut self) {
        self.lost = self.now;
        self.now = self.now + Duration::from_secs(self.rng.u64(..100));
        self.store = MemoryRooms::on_server(ManualClock::at(self.now), 2);
        self.gateways = (0..self.rng.usize(1..4)).map(|_| Gateway::default()).collect();
        let within = listening(&self.terms).as_millis() as u64;
        let kept = self.terms.abandon_after.as_millis() as u64;
        let at_once = self.rng.bool();
        let begins = self.now;
        for visitor in &mut self.visitors {
            let late = self.rng.u8(..8) == 0;
            let after = if late {
                self.rng.u64(within..kept)
            } else {
                self.rng.u64(..within)
            };
            visitor.comes_at = begins + Duration::from_millis(after);
        }
        let first = self.rng.usize(..self.visitors.len());
        self.visitors[first].comes_at = begins
            + if at_once {
                Duration::ZERO
            } else {
                listening(&self.terms) / 2
            };
        for _ in 0..self.rng.usize(..60) {
            let after = Duration::from_millis(self.rng.u64(..2 * within));
            self.visitors.push(newcomer(begins + after));
        }
    }

    fn run(mut self, seed: u64) -> [u64; 5] {
        let _named = crate::Seed(seed);
        self.live();
        self.lose();
        let ends = self.now + ENOUGH;
        while self.now < ends {
            self.now = self.now + TICK;
            self.people_come();
            for index in 0..self.gateways.len() {
                self.launch(index);
            }
            if self.rng.u8(..100) == 0 {
                self.gateways_agree();
            }
        }
        for visitor in &self.visitors {
            assert!(visitor.done, "{visitor:?} never got in");
        }
        self.figures
    }

    fn people_come(&mut self) {
        for who in 0..self.visitors.len() {
            let index = self.rng.usize(..self.gateways.len());
            let gateway = &mut self.gateways[index];
            let visitor = &mut self.visitors[who];
            if visitor.done || visitor.comes_at > self.now {
                continue;
            }
            match visitor.number {
                None if visitor.comes_at <= self.now => {
                    gateway.gathered.push(who);
                    visitor.comes_at = ENDLESS;
                }
                Some(number) if visitor.leaves_at.is_some_and(|at| at <= self.now) => {
                    gateway.leaves.push(number);
                    visitor.done = true;
                }
                Some(number) if visitor.called && visitor.leaves_at.is_none() => gateway.enters.push(number),
                Some(number) if visitor.touches_at <= self.now => {
                    gateway.touches.push(number);
                    visitor.touches_at = self.now + self.terms.abandon_after / 4;
                }
                _ => {}
            }
        }
    }

    fn launch(&mut self, index: usize) {
        let gathered = std::mem::take(&mut self.gateways[index].gathered);
        let (back, new): (Vec<usize>, Vec<usize>) =
            gathered.iter().partition(|who| self.visitors[**who].slip.is_some());
        let returns: Vec<Return> = back.iter().filter_map(|who| self.visitors[*who].slip).collect();
        let gateway = &mut self.gateways[index];
        let (enters, leaves) = (std::mem::take(&mut gateway.enters), std::mem::take(&mut gateway.leaves));
        let touches = std::mem::take(&mut gateway.touches);
        let join = Join {
            owner: None,
            otherwise: Otherwise::Wait,
            share: None,
        };
        let (shown, entering) = (!returns.is_empty(), enters.clone());
        let outcome = self.turn(index, |turn| {
            (turn.returns, turn.enters, turn.leaves, turn.touches) = (returns, enters, leaves, touches);
            turn.joins = vec![join; new.len()];
        });
        if outcome.restoring.is_some() {
            self.shown |= shown;
            self.gateways[index].gathered = gathered;
            return;
        }
        self.shown |= shown;
        let until = *self.listens_until.get_or_insert(self.now + listening(&self.terms));
        let (may_call, fits) = (!self.shown || self.now >= until, self.terms.visitors.unwrap());
        let counts = outcome.counts;
        if outcome.tally.called > 0 {
            assert!(may_call, "somebody was called while the room listens");
            assert!(counts.called + counts.inside <= fits, "{counts:?}");
        }
        for (who, returned) in back.into_iter().zip(&outcome.returns) {
            self.came_back(who, *returned, until);
        }
        for (who, joined) in new.into_iter().zip(&outcome.joins) {
            self.joined(who, *joined);
        }
        self.entered(&entering);
        self.audit_calls(index);
    }

    fn came_back(&mut self, who: usize, returned: Returned, until: Timestamp) {
        let Returned::Place { number, stage, .. } = returned else {
            self.may_be_worth_nothing(who);
            (self.visitors[who].slip, self.visitors[who].comes_at) = (None, self.now);
            return;
        };
        let again = self.rng.u8(..4) == 0;
        let visitor = &mut self.visitors[who];
        assert!(
            visitor.number.is_none_or(|known| known == number),
            "{visitor:?} {number}"
        );
        visitor.number = Some(number);
        visitor.comes_at = self.now;
        visitor.in_time = self.now < until;
        match stage {
            Stage::Inside { .. } => {
                visitor.leaves_at = Some(self.now + Duration::from_secs(40));
                self.figures[2] += 1;
            }
            Stage::Waiting | Stage::Called if visitor.in_time => self.figures[0] += 1,
            Stage::Waiting | Stage::Called => self.figures[1] += 1,
        }
        if let (true, Some(slip)) = (again, visitor.slip) {
            let before = visitor.clone();
            let outcome = self.turn(0, |turn| (turn.returns, turn.tick) = (vec![slip], false));
            assert!(
                matches!(outcome.returns[0], Returned::Place { number: same, .. } if Some(same) == before.number),
                "{before:?} {outcome:?}"
            );
            self.figures[4] += 1;
        }
        if let Shows::Pass { .. } = self.visitors[who].slip.unwrap().shows {
            let ticket = Return {
                shows: Shows::Ticket { heard: self.lost },
                ..self.visitors[who].slip.unwrap()
            };
            let outcome = self.turn(0, |turn| (turn.returns, turn.tick) = (vec![ticket], false));
            assert_eq!(outcome.returns[0], Returned::Unknown, "the ticket was used");
        }
    }

    /// A pass is worth nothing once it has expired, and a ticket once newcomers are called.
    fn may_be_worth_nothing(&self, who: usize) {
        let newcomer_called = |visitor: &Visitor| visitor.slip.is_none() && visitor.called;
        let may = match self.visitors[who].slip.unwrap().shows {
            Shows::Pass { until } => until <= self.now,
            Shows::Ticket { .. } => self.visitors.iter().any(newcomer_called),
        };
        assert!(may, "{:?}", self.visitors[who]);
    }

    fn joined(&mut self, who: usize, joined: Joined) {
        let Joined::Place { number, stage, .. } = joined else {
            panic!("refused: {joined:?}");
        };
        let visitor = &mut self.visitors[who];
        (visitor.number, visitor.comes_at) = (Some(number), self.now);
        if matches!(stage, Stage::Inside { .. }) {
            visitor.called = true;
            visitor.leaves_at = Some(self.now + Duration::from_secs(2));
        }
        self.figures[3] += 1;
    }

    fn entered(&mut self, numbers: &[u64]) {
        for visitor in &mut self.visitors {
            if visitor.number.is_some_and(|number| numbers.contains(&number)) {
                visitor.leaves_at = Some(self.now + Duration::from_secs(2));
            }
        }
    }

    /// Who is called goes before nobody who should have been called before.
    fn audit_calls(&mut self, index: usize) {
        let replica = &self.gateways[index].replica;
        let waits = |visitor: &Visitor| visitor.number.is_some() && !visitor.called && visitor.leaves_at.is_none();
        let is_called = |visitor: &Visitor| {
            let place = visitor.number.map(|number| replica.place(number));
            waits(visitor) && matches!(place, Some(Place::Called | Place::Inside))
        };
        let called: Vec<usize> = (0..self.visitors.len())
            .filter(|who| is_called(&self.visitors[*who]))
            .collect();
        for who in &called {
            self.visitors[*who].called = true;
        }
        let still: Vec<&Visitor> = self.visitors.iter().filter(|visitor| waits(visitor)).collect();
        for who in called {
            let one = &self.visitors[who];
            let first = still.iter().find(|other| match (&one.slip, &other.slip) {
                (Some(one_slip), Some(slip)) => one.in_time && other.in_time && slip.rank < one_slip.rank,
                (None, _) | (_, None) => one.number > other.number,
            });
            assert!(first.is_none(), "{one:?} was called before {first:?}");
        }
    }

    /// Whoever followed the room says what one says who begins with a snapshot.
    fn gateways_agree(&mut self) {
        let mut places = HashMap::new();
        for index in 0..self.gateways.len() {
            if self.turn(index, |turn| turn.tick = false).restoring.is_some() {
                return;
            }
            let mut fresh = Replica::new();
            let mut turn = Turn::new(self.terms.clone(), 0);
            turn.tick = false;
            let request = RoomTurn {
                turn,
                cursor: Cursor::default(),
            };
            let reply = self.store.turn_at(&self.room, &request, self.now);
            fresh.follow(&reply, self.terms.pass, self.now);
            for number in self.visitors.iter().filter_map(|visitor| visitor.number) {
                let place = self.gateways[index].replica.place(number);
                assert_eq!(place, fresh.place(number), "{number}");
                assert_eq!(*places.entry(number).or_insert(place), place, "{number}");
            }
        }
    }
}

const ENDLESS: Timestamp = Timestamp::from_secs(1 << 40);

fn newcomer(at: Timestamp) -> Visitor {
    Visitor {
        slip: None,
        comes_at: at,
        touches_at: at,
        leaves_at: None,
        number: None,
        in_time: false,
        called: false,
        done: false,
    }
}
