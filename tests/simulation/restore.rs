//! A waiting room whose store is lost again and again: frozen, restarted, taken over by a replica that lagged, emptied;
//! with gateways that die, start without a memory, come and go, have clocks an hour apart, and lose answers.
//!
//! After every step:
//!
//! * Q1, Q3 the frontier never goes back, no number is told twice, and nobody who goes on polling loses the place;
//! * Q2 nobody is called while more would be called and inside than fit, by the store's count and by the passes held;
//! * Q4 no number enters twice, whoever tries its ticket;
//! * Q5 the position that a gateway shows never grows;
//! * Q8 who waits sees where, and nobody inside is thrown out, while the store is away or is being restored;
//! * Q6 in the end everybody got in.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tidegate::base::clock::{ManualClock, Timestamp};
use tidegate::base::name::Name;
use tidegate::queue::restore::Memory;
use tidegate::queue::terms::{Mode, Order, Terms};
use tidegate::queue::turn::{Entered, Join, Joined, Otherwise, Stage, Turn};
use tidegate::room::recall::Recall;
use tidegate::room::replica::{Place, Replica};
use tidegate::store::memory::rooms::MemoryRooms;
use tidegate::store::rooms::{RoomReply, RoomTurn};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const STEP: Duration = Duration::from_millis(50);
const CROWD: usize = 80;
const TROUBLE: Duration = Duration::from_secs(120);
const SETTLE: Duration = Duration::from_secs(900);
const SEEDS: u64 = 200;

/// Between two mishaps: all gateways have caught up by then, so that what one knows that dies is known to another.
const RESPITE: Duration = Duration::from_secs(9);

/// A replica lags by no more.
const LAG_MAX: Duration = Duration::from_secs(2);

const JOIN: Join = Join {
    owner: None,
    otherwise: Otherwise::Wait,
    share: None,
};

#[test]
fn a_room_whose_store_is_lost_keeps_its_order_and_loses_nobody() {
    let seeds = crate::seeds(SEEDS);
    let swept = seeds.len() as u64 >= SEEDS;
    let mut total = [0; 8];
    for seed in seeds {
        let figures = Sim::new(seed).run();
        total.iter_mut().zip(figures).for_each(|(sum, more)| *sum += more);
    }
    println!("frozen, restarted, lagged, emptied, killed, come, gone; told: {total:?}");
    assert!(
        !swept || total.iter().all(|count| *count > 50),
        "the adversary did not try hard: {total:?}"
    );
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Holds {
    Nothing,
    Asked,
    Ticket(u64),
    Entering(u64),
    Pass { number: u64, until: Timestamp },
    Done,
}

#[derive(Debug, Clone)]
struct Visitor {
    holds: Holds,
    acts_at: Timestamp,
    stays_until: Timestamp,
}

#[derive(Debug, Default)]
struct Gathered {
    renewals: Vec<(u64, Timestamp)>,
    touches: Vec<u64>,
    leaves: Vec<u64>,
    enters: Vec<(usize, u64)>,
    joins: Vec<usize>,
}

#[derive(Debug)]
struct Flight {
    arrives: Timestamp,
    /// None when the turn or its answer was lost.
    reply: Option<RoomReply>,
    asked: Gathered,
    memory: Option<Memory>,
}

#[derive(Debug, Default)]
struct Gateway {
    replica: Replica,
    recall: Option<Recall>,
    gathered: Gathered,
    flight: Option<Flight>,
    turns_at: Timestamp,
    /// Its clock is so much ahead.
    skew: Duration,
    shown: HashMap<u64, u64>,
}

struct Sim {
    _seed: crate::Seed,
    rng: fastrand::Rng,
    now: Timestamp,
    room: Name,
    terms: Terms,
    store: MemoryRooms,
    server: u64,
    frozen_until: Timestamp,
    copies: Vec<(Timestamp, MemoryRooms)>,
    mishap_at: Timestamp,
    gateways: Vec<Gateway>,
    visitors: Vec<Visitor>,
    told: HashSet<u64>,
    entered: HashSet<u64>,
    frontier: u64,
    figures: [u64; 8],
    calm: bool,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let visitors = [Some(1), Some(4), Some(15), None][rng.usize(..4)];
        let rates = ["3/s", "2/s", "10/2s"];
        let admit = (visitors.is_none() || rng.bool()).then(|| rates[rng.usize(..3)].parse().expect("a rate"));
        let terms = Terms {
            visitors,
            admit,
            pass: Duration::from_secs(rng.u64(15..25)),
            open: None,
            order: Order::Arrival,
            abandon_after: Duration::from_secs(rng.u64(20..30)),
            claim_within: Duration::from_secs(10),
            tick: Duration::from_millis(200),
            max_waiting: 1_000,
            mode: Mode::Auto,
        };
        let visitors = (0..CROWD).map(|_| Visitor {
            holds: Holds::Nothing,
            acts_at: START + Duration::from_millis(rng.u64(0..60_000)),
            stays_until: START,
        });
        let visitors = visitors.collect();
        let mut sim = Self {
            _seed: crate::Seed(seed),
            now: START,
            room: "concert".parse().expect("a name"),
            terms,
            store: MemoryRooms::on_server(ManualClock::at(START), 1),
            server: 1,
            frozen_until: START,
            copies: Vec::new(),
            mishap_at: START + RESPITE,
            gateways: Vec::new(),
            visitors,
            told: HashSet::new(),
            entered: HashSet::new(),
            frontier: 0,
            figures: [0; 8],
            calm: false,
            rng,
        };
        for _ in 0..sim.rng.usize(1..9) {
            sim.start_gateway();
        }
        sim
    }

    fn run(mut self) -> [u64; 8] {
        while self.now < START + TROUBLE {
            self.step();
            if self.mishap_at <= self.now {
                self.mishap();
            }
        }
        self.calm = true;
        while self.now < START + TROUBLE + SETTLE && !self.settled() {
            self.step();
        }
        assert!(
            self.settled(),
            "stuck: {:?}",
            self.visitors.iter().map(|v| v.holds).collect::<Vec<_>>()
        );
        self.figures
    }

    fn settled(&self) -> bool {
        self.visitors.iter().all(|visitor| visitor.holds == Holds::Done)
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        self.copies.retain(|(at, _)| self.now.since(*at) <= LAG_MAX);
        if self.rng.u8(..4) == 0 && !self.calm {
            self.copies.push((self.now, self.store.copied_to(0)));
        }
        for index in 0..self.gateways.len() {
            self.land(index);
            self.launch(index);
        }
        for index in 0..self.visitors.len() {
            if self.visitors[index].acts_at <= self.now {
                self.act(index);
            }
        }
    }

    // What the adversary does.

    fn mishap(&mut self) {
        self.mishap_at = self.now + RESPITE + Duration::from_millis(self.rng.u64(..4_000));
        let what = self.rng.usize(..7);
        match what {
            0 => self.freeze(),
            1 => self.move_to(|_, store, server| store.copied_to(server)),
            2 => self.move_to(|sim, store, server| {
                let copy = sim.rng.usize(..sim.copies.len().max(1));
                sim.copies.get(copy).map_or(store, |(_, copy)| copy).copied_to(server)
            }),
            3 => self.move_to(|sim, _, server| MemoryRooms::on_server(ManualClock::at(sim.now), server)),
            4 if self.gateways.len() > 1 => {
                let index = self.rng.usize(..self.gateways.len());
                self.kill(index);
                self.start_gateway();
            }
            5 if self.gateways.len() < 8 => self.start_gateway(),
            6 if self.gateways.len() > 1 => {
                let index = self.rng.usize(..self.gateways.len());
                self.kill(index);
            }
            _ => return,
        }
        self.figures[what] += 1;
    }

    fn freeze(&mut self) {
        let span = Duration::from_millis(self.rng.u64(500..8_000));
        self.frozen_until = self.now + span;
        self.mishap_at = self.mishap_at + span;
    }

    fn move_to(&mut self, next: impl FnOnce(&mut Self, &MemoryRooms, u64) -> MemoryRooms) {
        self.server += 1;
        let before = self.store.copied_to(self.server);
        self.store = next(self, &before, self.server);
        self.copies.clear();
        if self.rng.bool() {
            self.freeze();
        }
    }

    fn start_gateway(&mut self) {
        let skew = Duration::from_secs([0, 1, 3_600][self.rng.usize(..3)]);
        self.gateways.push(Gateway {
            skew,
            ..Gateway::default()
        });
    }

    /// Whoever asked it asks again elsewhere.
    fn kill(&mut self, index: usize) {
        let gateway = self.gateways.swap_remove(index);
        let asked = gateway.flight.into_iter().map(|flight| flight.asked);
        for asked in asked.chain([gateway.gathered]) {
            self.turn_away(asked.joins, asked.enters);
        }
    }

    fn turn_away(&mut self, joins: Vec<usize>, enters: Vec<(usize, u64)>) {
        for visitor in joins {
            self.visitors[visitor].holds = Holds::Nothing;
        }
        for (visitor, number) in enters {
            if self.visitors[visitor].holds == Holds::Entering(number) {
                self.visitors[visitor].holds = Holds::Ticket(number);
            }
        }
    }

    // What gateways do.

    fn launch(&mut self, index: usize) {
        let gateway = &mut self.gateways[index];
        if gateway.flight.is_some() || gateway.turns_at > self.now {
            return;
        }
        gateway.turns_at = self.now + Duration::from_millis(self.rng.u64(50..300));
        let memory = gateway
            .recall
            .and_then(|recall| recall.next(&gateway.replica, &self.terms));
        let asked = match gateway.recall {
            Some(_) => Gathered::default(),
            None => std::mem::take(&mut gateway.gathered),
        };
        let cursor = gateway.replica.cursor();
        let turn = Turn {
            renewals: asked.renewals.clone(),
            touches: asked.touches.clone(),
            leaves: asked.leaves.clone(),
            enters: asked.enters.iter().map(|(_, number)| *number).collect(),
            tick: true,
            joins: vec![JOIN; asked.joins.len()],
            memory: memory.clone(),
            ..Turn::new(self.terms.clone(), cursor.epoch)
        };
        let lost = !self.calm && self.rng.u8(..50) == 0;
        let frozen = self.now < self.frozen_until;
        let reply = (!frozen).then(|| self.store.turn_at(&self.room, &RoomTurn { turn, cursor }, self.now));
        reply.iter().for_each(|reply| self.audit(reply));
        let lag = Duration::from_millis(self.rng.u64(0..400));
        self.gateways[index].flight = Some(Flight {
            arrives: self.now + lag,
            reply: reply.filter(|_| !lost),
            asked,
            memory,
        });
    }

    fn audit(&mut self, reply: &RoomReply) {
        let outcome = &reply.outcome;
        if outcome.restoring.is_some() {
            return;
        }
        let counts = &outcome.counts;
        assert!(
            counts.frontier >= self.frontier,
            "Q3: the frontier went back from {} to {}",
            self.frontier,
            counts.frontier
        );
        let called = outcome.change.as_ref().map_or(0, |change| change.called);
        if let Some(most) = counts.visitors
            && called > 0
        {
            let now = self.now;
            let holds = |visitor: &&Visitor| matches!(visitor.holds, Holds::Pass { until, .. } if until > now);
            let passes = self.visitors.iter().filter(holds).count() as u64;
            assert!(passes <= most, "Q2: {passes} inside of {most}");
            assert!(counts.called + counts.inside <= most, "Q2: by its own count");
        }
    }

    fn land(&mut self, index: usize) {
        let gateway = &mut self.gateways[index];
        let Some(flight) = gateway.flight.take_if(|flight| flight.arrives <= self.now) else {
            return;
        };
        let Flight {
            reply, asked, memory, ..
        } = flight;
        let Some(reply) = reply else {
            return self.keep(index, asked);
        };
        if let Some(answer) = &reply.outcome.restoring {
            self.figures[7] += u64::from(memory.is_some());
            gateway.recall = Some(Recall::after(gateway.recall, memory.as_ref(), answer));
            return self.keep(index, asked);
        }
        gateway.recall = None;
        gateway.replica.follow(&reply, self.terms.pass, self.now + gateway.skew);
        self.frontier = self.frontier.max(gateway.replica.counts().frontier);
        for ((visitor, number), entered) in asked.enters.iter().zip(&reply.outcome.enters) {
            self.told_entered(*visitor, *number, *entered);
        }
        for (visitor, joined) in asked.joins.iter().zip(&reply.outcome.joins) {
            self.told_joined(*visitor, *joined);
        }
    }

    /// Signs of life are kept, callers are turned away.
    fn keep(&mut self, index: usize, asked: Gathered) {
        let gathered = &mut self.gateways[index].gathered;
        gathered.renewals.extend(asked.renewals);
        gathered.touches.extend(asked.touches);
        gathered.leaves.extend(asked.leaves);
        self.turn_away(asked.joins, asked.enters);
    }

    // What visitors do.

    fn told_joined(&mut self, visitor: usize, joined: Joined) {
        let stays_until = self.stay();
        let Joined::Place { number, stage, .. } = joined else {
            panic!("nobody is refused: {joined:?}");
        };
        assert!(self.told.insert(number), "{number} was given twice");
        self.visitors[visitor].stays_until = stays_until;
        self.visitors[visitor].holds = match stage {
            Stage::Inside { until } => {
                assert!(self.entered.insert(number), "Q4: {number} entered twice");
                Holds::Pass { number, until }
            }
            Stage::Waiting | Stage::Called => Holds::Ticket(number),
        };
    }

    fn told_entered(&mut self, visitor: usize, number: u64, entered: Entered) {
        let stays_until = self.stay();
        if let Entered::Now { .. } = entered {
            assert!(self.entered.insert(number), "Q4: {number} entered twice");
        }
        let visitor = &mut self.visitors[visitor];
        let honest = visitor.holds == Holds::Entering(number);
        match entered {
            Entered::Now { until } | Entered::Already { until, .. } if honest => {
                visitor.stays_until = stays_until;
                visitor.holds = Holds::Pass { number, until };
            }
            Entered::NotYet if honest => visitor.holds = Holds::Ticket(number),
            Entered::Gone if honest => panic!("Q3: {number} lost its place when it came to enter"),
            Entered::Now { .. } => panic!("Q4: an accomplice got the pass of {number}"),
            Entered::Already { .. } | Entered::NotYet | Entered::Gone => (),
        }
    }

    fn stay(&mut self) -> Timestamp {
        let most = if self.calm { 1_000 } else { 15_000 };
        self.now + Duration::from_millis(self.rng.u64(500..most))
    }

    fn act(&mut self, index: usize) {
        self.visitors[index].acts_at = self.now + Duration::from_millis(self.rng.u64(300..1_500));
        let at = self.rng.usize(..self.gateways.len());
        match self.visitors[index].holds {
            Holds::Nothing => {
                self.gateways[at].gathered.joins.push(index);
                self.visitors[index].holds = Holds::Asked;
            }
            Holds::Ticket(number) => self.poll(index, at, number),
            Holds::Pass { number, until } => self.browse(index, at, (number, until)),
            Holds::Asked | Holds::Entering(_) | Holds::Done => {}
        }
    }

    fn poll(&mut self, index: usize, at: usize, number: u64) {
        let gateway = &mut self.gateways[at];
        if gateway.replica.heard().is_none() {
            return;
        }
        match gateway.replica.place(number) {
            Place::Waiting { ahead, .. } => {
                let shown = gateway.shown.entry(number).or_insert(ahead);
                assert!(
                    ahead <= *shown,
                    "Q5: the position of {number} grew from {shown} to {ahead}"
                );
                *shown = ahead;
                gateway.gathered.touches.push(number);
            }
            Place::Called | Place::Inside => {
                gateway.gathered.enters.push((index, number));
                self.visitors[index].holds = Holds::Entering(number);
            }
            Place::Gone => panic!("Q3: {number} lost its place at gateway {at}"),
        }
    }

    fn browse(&mut self, index: usize, at: usize, (number, until): (u64, Timestamp)) {
        let gateway = &mut self.gateways[at];
        if gateway.replica.heard().is_none() {
            return;
        }
        let now = gateway.replica.store_time(self.now + gateway.skew);
        assert!(
            now.since(self.now) < RESPITE && self.now.since(now) < RESPITE,
            "the clock"
        );
        assert!(
            until <= self.now || !gateway.replica.has_ended(number),
            "Q8: {number} was thrown out"
        );
        if self.visitors[index].stays_until <= self.now || until <= self.now {
            gateway.replica.end(number);
            gateway.gathered.leaves.push(number);
            self.visitors[index].holds = Holds::Done;
            return;
        }
        let until = self.now + self.terms.pass;
        gateway.gathered.renewals.push((number, until));
        self.visitors[index].holds = Holds::Pass { number, until };
    }
}
