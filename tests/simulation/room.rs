//! The waiting room under a crowd that joins, polls, sleeps, comes late, shares tickets and walks off, through
//! several gateways that follow one store with random lag and lose answers.
//!
//! The shadow keeps its own books from what visitors hold and from what turns answered, counts by brute force, and
//! is compared after every turn:
//!
//! * Q1 calls are in the order of numbers, and nobody who waits is passed over;
//! * Q2 never more visitors inside or called than fit, never more calls in any trailing window than the rate;
//! * Q4 no number enters twice;
//! * Q5 positions are exact as of the turn, and never grow;
//! * Q6 no slot stays free while somebody waits, and in the end everyone who went on polling got in.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tidegate::base::clock::{ManualClock, Timestamp};
use tidegate::base::name::Name;
use tidegate::queue::log::Change;
use tidegate::queue::terms::{Mode, Order, Setting, Terms};
use tidegate::queue::turn::{Entered, Join, Joined, Otherwise, Stage, Turn};
use tidegate::room::replica::{Place, Replica};
use tidegate::store::memory::rooms::MemoryRooms;
use tidegate::store::rooms::{RoomReply, RoomTurn};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const STEP: Duration = Duration::from_millis(20);
const CROWD: usize = 150;
const RUSH: Duration = Duration::from_secs(90);
const SETTLE: Duration = Duration::from_secs(1_500);
const SEEDS: u64 = 24;

#[test]
fn a_crowd_is_let_in_fairly_within_capacity_and_nobody_is_stuck() {
    let seeds = crate::seeds(SEEDS);
    let swept = seeds.len() as u64 >= SEEDS;
    let mut total = Figures::default();
    for seed in seeds {
        let figures = Sim::new(seed).run();
        total.turns += figures.turns;
        total.called += figures.called;
        total.unclaimed += figures.unclaimed;
        total.left += figures.left;
        total.lost += figures.lost;
        total.clones += figures.clones;
    }
    println!("{total:?}");
    let rehearsed = [total.called, total.unclaimed, total.left, total.lost, total.clones];
    assert!(
        !swept || rehearsed.iter().all(|n| *n > 50),
        "the adversary did not try hard: {total:?}"
    );
}

/// What the adversary got to do.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    turns: u64,
    called: u64,
    unclaimed: u64,
    left: u64,
    lost: u64,
    clones: u64,
}

/// What a visitor's browser holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Holds {
    Nothing,
    Asked,
    Ticket(u64),
    /// An enter is on its way.
    Entering(u64),
    Pass {
        number: u64,
        until: Timestamp,
    },
}

#[derive(Debug, Clone)]
struct Visitor {
    holds: Holds,
    acts_at: Timestamp,
    /// When the visitor has seen enough.
    stays_until: Timestamp,
    owner: Option<u128>,
    done: bool,
}

/// What waits at a gateway for its next turn.
#[derive(Debug, Default)]
struct Gathered {
    settings: Vec<Setting>,
    renewals: Vec<(u64, Timestamp)>,
    touches: Vec<u64>,
    leaves: Vec<u64>,
    enters: Vec<(usize, u64)>,
    joins: Vec<(usize, Join)>,
}

#[derive(Debug)]
struct Flight {
    arrives: Timestamp,
    reply: RoomReply,
    askers: Gathered,
    /// Who waited right after this turn, by the shadow's books.
    waiting: Vec<u64>,
    lost: bool,
}

#[derive(Debug, Default)]
struct Gateway {
    replica: Replica,
    gathered: Gathered,
    turns_at: Timestamp,
    flight: Option<Flight>,
    shown: HashMap<u64, u64>,
}

/// The shadow's books.
#[derive(Debug, Default)]
struct Shadow {
    waiting: BTreeSet<u64>,
    called: BTreeSet<u64>,
    frontier: u64,
    last: u64,
    calls: Vec<(Timestamp, u64)>,
    entered: HashSet<u64>,
    /// Passes given back: worth nothing, even to somebody whose copy is still on its way.
    given_back: HashSet<u64>,
    /// Passes whose end a turn has brought about, by what it carried: nothing brings them back.
    over: HashSet<u64>,
}

impl Shadow {
    fn note_over(&mut self, change: &Change, leaves: &[u64]) {
        for number in &change.entered {
            assert!(
                !self.over.contains(number),
                "{number} was given back and is inside again"
            );
        }
        let over = leaves.iter().filter(|number| change.ended.contains(number));
        self.over.extend(over);
    }

    /// Joins are the last thing in a turn: whoever goes straight in does so past nobody.
    fn note_joins(&mut self, joins: &[Joined]) {
        for joined in joins {
            let Joined::Place { number, stage, .. } = *joined else {
                continue;
            };
            if number <= self.last {
                continue;
            }
            assert_eq!(number, self.last + 1, "numbers are given one by one");
            self.last = number;
            if stage == Stage::Waiting {
                assert!(number > self.frontier);
                self.waiting.insert(number);
            } else {
                assert!(
                    self.waiting.is_empty(),
                    "Q1: {number} went straight in past {:?}",
                    self.waiting
                );
                assert!(self.entered.insert(number));
            }
        }
    }
}

struct Sim {
    _seed: crate::Seed,
    rng: fastrand::Rng,
    now: Timestamp,
    room: Name,
    terms: Terms,
    store: MemoryRooms,
    gateways: Vec<Gateway>,
    visitors: Vec<Visitor>,
    shadow: Shadow,
    figures: Figures,
    calm: bool,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let visitors = [Some(1), Some(5), Some(25), None][rng.usize(..4)];
        let rates = ["3/s", "10/s", "40/2s", "5/300ms", "120/min"];
        let admit = (visitors.is_none() || rng.bool()).then(|| rates[rng.usize(..5)].parse().expect("a rate"));
        let terms = Terms {
            visitors,
            admit,
            pass: Duration::from_secs(rng.u64(6..15)),
            open: rng.bool().then_some(START + Duration::from_secs(5)),
            order: Order::Arrival,
            abandon_after: Duration::from_secs(rng.u64(15..25)),
            claim_within: Duration::from_secs(rng.u64(3..8)),
            tick: Duration::from_millis(200),
            max_waiting: if rng.u8(..4) == 0 { 40 } else { 1_000 },
            mode: Mode::Auto,
        };
        let gateways = (0..rng.usize(1..5)).map(|_| Gateway::default()).collect();
        let owners = rng.bool();
        let visitors = (0..CROWD).map(|index| Visitor {
            holds: Holds::Nothing,
            acts_at: START + Duration::from_millis(rng.u64(0..20_000)),
            stays_until: START,
            owner: owners.then_some(1 + index as u128 / 2),
            done: false,
        });
        let visitors = visitors.collect();
        Self {
            _seed: crate::Seed(seed),
            now: START,
            room: "concert".parse().expect("a name"),
            terms,
            store: MemoryRooms::new(ManualClock::at(START)),
            gateways,
            visitors,
            shadow: Shadow::default(),
            figures: Figures::default(),
            calm: false,
            rng,
        }
    }

    fn run(mut self) -> Figures {
        while self.now < START + RUSH {
            self.step();
            self.operator();
        }
        self.calm = true;
        for gateway in &mut self.gateways {
            gateway.gathered.settings.push(Setting::AsWritten);
        }
        while self.now < START + RUSH + SETTLE && !self.settled() {
            self.step();
        }
        assert!(
            self.settled(),
            "stuck: {:?} wait, {:?} are called",
            self.shadow.waiting,
            self.shadow.called
        );
        self.an_empty_room_admits_at_once();
        self.figures
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        for index in 0..self.gateways.len() {
            self.land(index);
            self.launch(index);
        }
        for index in 0..self.visitors.len() {
            if self.visitors[index].acts_at <= self.now && !self.visitors[index].done {
                self.act(index);
            }
        }
    }

    fn operator(&mut self) {
        if self.rng.u32(..400) != 0 {
            return;
        }
        let setting = match self.rng.u8(..8) {
            0 => Setting::Mode(Mode::Hold),
            1 => Setting::Mode(Mode::Off),
            2 => Setting::Mode(Mode::Drain),
            3 => Setting::Visitors(self.rng.u64(1..10)),
            _ => Setting::AsWritten,
        };
        let gateway = self.any_gateway();
        self.gateways[gateway].gathered.settings.push(setting);
    }

    fn settled(&self) -> bool {
        let nobody = self.shadow.waiting.is_empty() && self.shadow.called.is_empty();
        nobody
            && self
                .visitors
                .iter()
                .all(|visitor| visitor.done || matches!(visitor.holds, Holds::Pass { .. }))
    }

    fn an_empty_room_admits_at_once(&mut self) {
        for _ in 0..self.terms.pass.as_secs() + 60 {
            self.now = self.now + Duration::from_secs(1);
            self.turn(0, Gathered::default());
        }
        let gathered = Gathered {
            joins: vec![(0, JOIN)],
            ..Gathered::default()
        };
        let flight = self.turn(0, gathered);
        let joined = flight.reply.outcome.joins[0];
        assert!(
            matches!(
                joined,
                Joined::Place {
                    stage: Stage::Inside { .. },
                    ..
                }
            ),
            "{joined:?}"
        );
    }

    // What gateways do.

    fn launch(&mut self, index: usize) {
        let gateway = &mut self.gateways[index];
        if gateway.flight.is_some() || gateway.turns_at > self.now {
            return;
        }
        gateway.turns_at = self.now + Duration::from_millis(self.rng.u64(20..300));
        let gathered = std::mem::take(&mut gateway.gathered);
        let flight = self.turn(index, gathered);
        self.gateways[index].flight = Some(flight);
    }

    fn turn(&mut self, index: usize, gathered: Gathered) -> Flight {
        let cursor = self.gateways[index].replica.cursor();
        let turn = Turn {
            settings: gathered.settings.clone(),
            renewals: gathered.renewals.clone(),
            touches: gathered.touches.clone(),
            leaves: gathered.leaves.clone(),
            enters: gathered.enters.iter().map(|(_, number)| *number).collect(),
            tick: true,
            joins: gathered.joins.iter().map(|(_, join)| *join).collect(),
            ..Turn::new(self.terms.clone(), cursor.epoch)
        };
        let reply = self.store.turn_at(&self.room, &RoomTurn { turn, cursor }, self.now);
        self.figures.turns += 1;
        self.audit(&reply, &gathered.leaves);
        let lost = !self.calm && self.rng.u8(..50) == 0;
        self.figures.lost += u64::from(lost);
        let lag = if self.calm { 0 } else { self.rng.u64(0..600) };
        Flight {
            arrives: self.now + Duration::from_millis(lag),
            reply,
            askers: gathered,
            waiting: self.shadow.waiting.iter().copied().collect(),
            lost,
        }
    }

    /// Compares one turn with the books, and enters it there.
    fn audit(&mut self, reply: &RoomReply, leaves: &[u64]) {
        let (now, outcome) = (self.now, &reply.outcome);
        let shadow = &mut self.shadow;
        for entered in &outcome.enters {
            assert!(!matches!(entered, Entered::Now { until } if *until <= now));
        }
        let Some(change) = &outcome.change else { return };
        shadow.note_over(change, leaves);
        self.figures.unclaimed += change.unclaimed.len() as u64;
        self.figures.left += change.left.len() as u64;
        self.figures.called += change.called;
        for number in &change.left {
            assert!(
                shadow.waiting.remove(number) | shadow.called.remove(number),
                "{number} left twice"
            );
        }
        assert!(change.frontier >= shadow.frontier, "the frontier went back");
        let beyond = shadow.waiting.split_off(&(change.frontier + 1));
        let called = std::mem::replace(&mut shadow.waiting, beyond);
        assert!(
            called.iter().all(|number| *number > shadow.frontier),
            "Q1: called behind the frontier: {called:?}"
        );
        let straight = change
            .entered
            .iter()
            .filter(|number| **number > shadow.frontier)
            .count();
        assert_eq!(
            (called.len() + straight) as u64,
            change.called,
            "Q1: somebody was passed over"
        );
        shadow.frontier = change.frontier;
        shadow.called.extend(called);
        shadow.note_joins(&outcome.joins);
        for number in &change.unclaimed {
            assert!(shadow.called.remove(number), "{number} was not called");
        }
        for number in &change.entered {
            if shadow.called.remove(number) {
                assert!(shadow.entered.insert(*number), "Q4: {number} entered twice");
            }
        }
        shadow.calls.push((now, change.called));
        self.audit_capacity(reply);
    }

    fn audit_capacity(&self, reply: &RoomReply) {
        let (now, counts) = (self.now, &reply.outcome.counts);
        let called = reply.outcome.change.as_ref().map_or(0, |change| change.called);
        let mut passes = HashSet::new();
        for visitor in &self.visitors {
            if let Holds::Pass { number, until } = visitor.holds
                && until > now
                && !visitor.done
                && !self.shadow.given_back.contains(&number)
            {
                passes.insert(number);
            }
        }
        let occupied = passes.len() as u64 + self.shadow.called.len() as u64;
        if let Some(most) = counts.visitors
            && called > 0
        {
            assert!(occupied <= most, "Q2: {occupied} of {most}");
            assert!(counts.called + counts.inside <= most, "Q2 by its own count");
        }
        if let Some(rate) = &self.terms.admit {
            let recent = self
                .shadow
                .calls
                .iter()
                .rev()
                .take_while(|(at, _)| now.since(*at) < rate.window);
            let recent: u64 = recent.map(|(_, calls)| calls).sum();
            assert!(
                recent <= rate.count.get(),
                "Q2: {recent} calls within {:?}",
                rate.window
            );
        }
        let idle = counts.visitors.is_none_or(|most| counts.called + counts.inside < most);
        let calling = matches!(counts.mode, Mode::Auto | Mode::Drain) && self.terms.opened(now);
        if idle && calling && self.terms.admit.is_none() {
            assert_eq!(counts.waiting, 0, "Q6: a slot is free and somebody waits");
        }
    }

    fn land(&mut self, index: usize) {
        let arrived = self.gateways[index].flight.take_if(|flight| flight.arrives <= self.now);
        let Some(flight) = arrived else { return };
        let Flight {
            reply,
            askers,
            waiting,
            lost,
            ..
        } = flight;
        if lost {
            return self.mourn(index, askers);
        }
        let gateway = &mut self.gateways[index];
        gateway.replica.follow(&reply, self.terms.pass, self.now);
        for (ahead, number) in waiting.iter().enumerate() {
            let (ahead, behind) = (ahead as u64, (waiting.len() - 1 - ahead) as u64);
            assert_eq!(
                gateway.replica.place(*number),
                Place::Waiting { ahead, behind },
                "Q5: {number} is not exact"
            );
            let shown = gateway.shown.entry(*number).or_insert(ahead);
            assert!(
                ahead <= *shown,
                "Q5: the position of {number} grew from {shown} to {ahead}"
            );
            *shown = ahead;
        }
        for ((visitor, number), entered) in askers.enters.iter().zip(&reply.outcome.enters) {
            self.told_entered(*visitor, *number, *entered);
        }
        for ((visitor, _), joined) in askers.joins.iter().zip(&reply.outcome.joins) {
            self.told_joined(*visitor, *joined);
        }
    }

    /// The turn was done, and nobody will ever know: signs of life are sent again, askers ask again.
    fn mourn(&mut self, index: usize, askers: Gathered) {
        let again = &mut self.gateways[index].gathered;
        again.touches.extend(askers.touches);
        again.leaves.extend(askers.leaves);
        again.renewals.extend(askers.renewals);
        again.settings.extend(askers.settings);
        for (visitor, number) in askers.enters {
            self.visitors[visitor].holds = Holds::Ticket(number);
        }
        for (visitor, _) in askers.joins {
            self.visitors[visitor].holds = Holds::Nothing;
        }
    }

    // What visitors do.

    fn told_joined(&mut self, visitor: usize, joined: Joined) {
        let stay = self.stay();
        let visitor = &mut self.visitors[visitor];
        visitor.holds = match joined {
            Joined::Place {
                number,
                stage: Stage::Inside { until },
                ..
            } => Holds::Pass { number, until },
            Joined::Place { number, .. } => Holds::Ticket(number),
            Joined::Refused(_) => Holds::Nothing,
        };
        visitor.stays_until = stay;
    }

    fn told_entered(&mut self, visitor: usize, number: u64, entered: Entered) {
        let stay = self.stay();
        let (now, claim_within) = (self.now, self.terms.claim_within);
        let visitor = &mut self.visitors[visitor];
        visitor.holds = match entered {
            Entered::Now { until } => Holds::Pass { number, until },
            Entered::Already { since, until } if now.since(since) < claim_within => Holds::Pass { number, until },
            Entered::NotYet => Holds::Ticket(number),
            Entered::Already { .. } | Entered::Gone => Holds::Nothing,
        };
        visitor.stays_until = stay;
    }

    fn stay(&mut self) -> Timestamp {
        let most = if self.calm { 1_000 } else { 20_000 };
        self.now + Duration::from_millis(self.rng.u64(500..most))
    }

    fn any_gateway(&mut self) -> usize {
        self.rng.usize(..self.gateways.len())
    }

    fn act(&mut self, index: usize) {
        let pause = if self.calm { 500..2_000 } else { 300..6_000 };
        self.visitors[index].acts_at = self.now + Duration::from_millis(self.rng.u64(pause));
        let at = self.any_gateway();
        match self.visitors[index].holds {
            Holds::Nothing => self.join(index, at),
            Holds::Ticket(number) => self.poll(index, at, number),
            Holds::Pass { number, until } => self.browse(index, at, (number, until)),
            Holds::Asked | Holds::Entering(_) => {}
        }
    }

    fn join(&mut self, index: usize, at: usize) {
        let join = Join {
            owner: self.visitors[index].owner,
            ..JOIN
        };
        self.gateways[at].gathered.joins.push((index, join));
        self.visitors[index].holds = Holds::Asked;
    }

    fn poll(&mut self, index: usize, at: usize, number: u64) {
        match self.rng.u8(..100) {
            // Asleep for longer than a place is kept; or closed for good.
            0 if !self.calm => self.visitors[index].acts_at = self.now + 2 * self.terms.abandon_after,
            1 if !self.calm => return self.visitors[index].holds = Holds::Nothing,
            2 if !self.calm => {
                // Whoever shares the ticket loses it too, even if they have entered meanwhile.
                self.visitors[index].holds = Holds::Nothing;
                self.shadow.given_back.insert(number);
                return self.gateways[at].gathered.leaves.push(number);
            }
            _ => {}
        }
        match self.gateways[at].replica.place(number) {
            Place::Waiting { .. } => self.gateways[at].gathered.touches.push(number),
            Place::Called | Place::Inside => self.enter(index, at, number),
            Place::Gone => self.visitors[index].holds = Holds::Nothing,
        }
    }

    fn enter(&mut self, index: usize, at: usize, number: u64) {
        if !self.calm && self.rng.u8(..10) == 0 {
            // Dawdles, and comes late.
            self.visitors[index].acts_at = self.now + self.terms.claim_within;
            return;
        }
        self.gateways[at].gathered.enters.push((index, number));
        self.visitors[index].holds = Holds::Entering(number);
        if self.rng.u8(..5) == 0 {
            // Somebody else has the same ticket, and tries it at another gateway.
            let accomplice = self.rng.usize(..self.visitors.len());
            if self.visitors[accomplice].holds == Holds::Nothing && !self.visitors[accomplice].done {
                let at = self.any_gateway();
                self.gateways[at].gathered.enters.push((accomplice, number));
                self.visitors[accomplice].holds = Holds::Entering(number);
                self.figures.clones += 1;
            }
        }
    }

    /// A request with a pass: the gateway decides by itself whether it is good, and renews it.
    fn browse(&mut self, index: usize, at: usize, (number, until): (u64, Timestamp)) {
        if until <= self.now || self.gateways[at].replica.has_ended(number) {
            self.visitors[index].holds = Holds::Nothing;
            self.visitors[index].done = self.calm;
            return;
        }
        if self.visitors[index].stays_until <= self.now {
            self.visitors[index].holds = Holds::Nothing;
            self.visitors[index].done = self.calm;
            if self.calm || self.rng.bool() {
                self.end(at, number);
            }
            return;
        }
        if until.since(self.now) + self.terms.pass / 10 < self.terms.pass {
            let until = self.now + self.terms.pass;
            self.gateways[at].gathered.renewals.push((number, until));
            self.visitors[index].holds = Holds::Pass { number, until };
        }
    }

    /// The pass is given back; whoever shared it holds nothing now.
    fn end(&mut self, at: usize, number: u64) {
        self.shadow.given_back.insert(number);
        self.gateways[at].replica.end(number);
        self.gateways[at].gathered.leaves.push(number);
        for visitor in &mut self.visitors {
            if matches!(visitor.holds, Holds::Pass { number: held, .. } if held == number) {
                visitor.holds = Holds::Nothing;
                visitor.done = self.calm;
            }
        }
    }
}

const JOIN: Join = Join {
    owner: None,
    otherwise: Otherwise::Wait,
    share: None,
};
