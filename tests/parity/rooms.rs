//! Rooms.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tidegate::base::clock::{ManualClock, Timestamp};
use tidegate::base::name::Name;
use tidegate::queue::earlier::{Return, Returned, Shows};
use tidegate::queue::lobby::{Draw, Ranks};
use tidegate::queue::log::{Change, Cursor};
use tidegate::queue::order::LOBBY_RANKS_PER_TURN;
use tidegate::queue::terms::{Mode, Order, Setting, Terms};
use tidegate::queue::turn::{Join, Joined, Otherwise, Share, Turn};
use tidegate::store::memory::rooms::MemoryRooms;
use tidegate::store::redis::rooms::RedisRooms;
use tidegate::store::rooms::{News, RoomReply, RoomStore, RoomTurn};

use super::limits;
use super::server::Redis;

/// Conversations, and turns in each: 30,000 turns.
const CONVERSATIONS: u64 = 75;
const TURNS: usize = 400;

pub(super) fn store(server: &Redis, prefix: &str) -> RedisRooms {
    limits::store(server, prefix).rooms()
}

/// An answer as a gateway understands it: what a turn changed is a set of numbers, in whatever order they were found.
pub(super) fn understood(mut reply: RoomReply) -> RoomReply {
    let sorted = |change: &mut Change| {
        for numbers in [
            &mut change.left,
            &mut change.unclaimed,
            &mut change.entered,
            &mut change.ended,
            &mut change.returned,
        ] {
            numbers.sort_unstable();
        }
    };
    reply.outcome.change.iter_mut().for_each(sorted);
    match &mut reply.news {
        News::Changes(changes) => {
            let read = changes.iter().map(|change| {
                let mut change = Change::clone(change);
                sorted(&mut change);
                Arc::new(change)
            });
            *changes = read.collect();
        }
        News::Snapshot(snapshot) => {
            snapshot.called.sort_unstable();
            snapshot.inside.sort_unstable();
        }
    }
    reply
}

/// Where the calls out of a lobby stand in [`Seen::all`].
const CALLED_OF_A_LOBBY: usize = 8;

/// What came to pass, so that a conversation about nothing is noticed.
#[derive(Debug, Default)]
struct Seen {
    called_after_waiting: usize,
    left: usize,
    unclaimed: usize,
    entered: usize,
    ended: usize,
    snapshots: usize,
    refused: usize,
    delayed_by_rate: usize,
    called_of_a_lobby: usize,
    returned: usize,
    unknown: usize,
    lobbies: usize,
    /// The last draw, to count them.
    draw: Option<Draw>,
}

impl Seen {
    fn note(&mut self, reply: &RoomReply) {
        let RoomReply { outcome, news, .. } = reply;
        if let Some(change) = &outcome.change {
            self.left += change.left.len();
            self.unclaimed += change.unclaimed.len();
            self.entered += change.entered.len();
            self.ended += change.ended.len();
            self.returned += change.returned.len();
        }
        let refused = |joined: &&Joined| matches!(joined, Joined::Refused(_));
        self.called_after_waiting += outcome.tally.waits.len();
        self.refused += outcome.joins.iter().filter(refused).count();
        let unknown = |returned: &&Returned| **returned == Returned::Unknown;
        self.unknown += outcome.returns.iter().filter(unknown).count();
        self.snapshots += usize::from(matches!(news, News::Snapshot(_)));
        self.delayed_by_rate += usize::from(outcome.tick_at.is_some());
        let draw = outcome.counts.draw;
        self.lobbies += usize::from(draw != self.draw);
        self.draw = draw;
        if draw.is_some_and(|draw| outcome.counts.frontier < draw.last()) {
            self.called_of_a_lobby += outcome.tally.waits.len();
        }
    }

    fn all(&self) -> [usize; 12] {
        [
            self.called_after_waiting,
            self.left,
            self.unclaimed,
            self.entered,
            self.ended,
            self.snapshots,
            self.refused,
            self.delayed_by_rate,
            self.called_of_a_lobby,
            self.returned,
            self.unknown,
            // A handful of lobbies is a lot of conversation.
            self.lobbies * 10,
        ]
    }
}

/// Both stores, several gateways, and the time.
pub(super) struct Conversation {
    pub(super) rng: Rng,
    pub(super) memory: MemoryRooms,
    pub(super) redis: RedisRooms,
    pub(super) room: Name,
    pub(super) now: Timestamp,
    /// Which server both stores say they are.
    pub(super) server: u64,
    /// The room listens; it has been told of the numbers up to this.
    pub(super) told: Option<u64>,
    terms: Terms,
    /// How far each gateway has followed the room.
    pub(super) cursors: Vec<Cursor>,
    pub(super) last: u64,
    /// Numbers that were given to people of an earlier life.
    returned: Vec<u64>,
    seen: Seen,
    /// The turn before, to be sent again.
    before: Option<(usize, RoomTurn)>,
}

impl Conversation {
    pub(super) async fn new(seed: u64, redis: RedisRooms) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = Timestamp::from_micros(1_700_000_000_000_000 + rng.u64(..1 << 45));
        let visitors = [None, Some(0), Some(1), Some(5), Some(40)][rng.usize(..5)];
        let rates = [
            "1/s",
            "3/s",
            "7/300ms",
            "40/2s",
            "600/min",
            "999999999999/day",
            "5/400d",
        ];
        let admit = (visitors.is_none() || rng.bool()).then(|| rates[rng.usize(..rates.len())].parse().unwrap());
        let terms = Terms {
            visitors,
            admit,
            pass: Duration::from_millis(rng.u64(1..20_000)),
            open: (rng.u8(..3) > 0).then(|| now + Duration::from_secs(rng.u64(..30))),
            order: [Order::Arrival, Order::Shuffle][rng.usize(..2)],
            abandon_after: Duration::from_millis(rng.u64(1_000..30_000)),
            claim_within: Duration::from_millis(rng.u64(200..10_000)),
            tick: Duration::from_millis(rng.u64(20..500)),
            max_waiting: [3, 100, 100_000][rng.usize(..3)],
            mode: Mode::Auto,
        };
        let mut conversation = Self {
            memory: MemoryRooms::on_server(ManualClock::at(now), 1),
            redis,
            server: 1,
            told: None,
            room: "concert".parse().unwrap(),
            now,
            terms,
            cursors: vec![Cursor::default(); rng.usize(1..5)],
            last: 0,
            returned: Vec::new(),
            seen: Seen::default(),
            before: None,
            rng,
        };
        conversation.begin().await;
        conversation
    }

    /// An epoch is the moment of the first turn in one, of the making in the other.
    pub(super) async fn begin(&mut self) {
        let turn = Turn::new(self.terms.clone(), 0);
        let cursor = Cursor::default();
        self.both(0, 0, &RoomTurn { turn, cursor }).await;
    }

    /// The last lobby that was drawn.
    pub(super) fn draw(&self) -> Option<Draw> {
        self.seen.draw
    }

    fn pass_time(&mut self) {
        let span = match self.rng.u16(..1_000) {
            0 => Duration::from_secs(self.rng.u64(..100)),
            1..=3 => Duration::from_millis(self.rng.u64(..8_000)),
            4..=20 => Duration::from_millis(self.rng.u64(..3_000)),
            21..=200 => Duration::ZERO,
            _ => Duration::from_micros(self.rng.u64(..400_000)),
        };
        self.now = self.now + span;
    }

    /// A number that was given, or nearly: mostly one of the last ones.
    fn number(&mut self) -> u64 {
        if !self.returned.is_empty() && self.rng.bool() {
            return self.returned[self.rng.usize(..self.returned.len())];
        }
        let back = match self.rng.u8(..4) {
            0 => self.rng.u64(..=self.last + 2),
            _ => self.rng.u64(..60).min(self.last),
        };
        self.last + 2 - back
    }

    fn numbers(&mut self, most: usize) -> Vec<u64> {
        let count = self.rng.usize(..=most);
        (0..count).map(|_| self.number()).collect()
    }

    fn setting(&mut self) -> Setting {
        match self.rng.u8(..12) {
            0 => Setting::Mode([Mode::Hold, Mode::Off, Mode::Drain][self.rng.usize(..3)]),
            1 => Setting::Mode(Mode::Auto),
            2 | 3 => Setting::Visitors(self.rng.u64(..50)),
            4 => Setting::Admit(
                ["1/s", "20/3s", "100/700ms", "9000/h"][self.rng.usize(..4)]
                    .parse()
                    .unwrap(),
            ),
            5 | 6 => Setting::Revoke(self.number()),
            7 | 8 => Setting::Measured {
                gateway: self.rng.u64(..4),
                rate: ["2/s", "90/min", "40/3s", "300/h"][self.rng.usize(..4)]
                    .parse()
                    .unwrap(),
            },
            9 | 10 => Setting::Written(1 + self.rng.u64(..3)),
            _ => Setting::AsWritten,
        }
    }

    fn join(&mut self) -> Join {
        let owner = self.rng.bool().then(|| 1 + self.rng.u128(..30));
        let otherwise = match self.rng.u8(..5) {
            0 => Otherwise::Refuse,
            _ => Otherwise::Wait,
        };
        Join {
            owner,
            otherwise,
            share: (self.rng.u8(..3) == 0).then(|| Share {
                network: self.rng.u64(..4),
                most: 1 + self.rng.u32(..12),
            }),
        }
    }

    /// Somebody of an earlier life: mostly of the same one, and around the same rank.
    fn comes_back(&mut self) -> Return {
        let ago = Duration::from_millis(match self.rng.u8(..10) {
            0 => self.rng.u64(..30_000_000),
            _ => self.rng.u64(..40_000),
        });
        let ahead = Duration::from_millis(self.rng.u64(..20_000));
        Return {
            epoch: *[0, 5, 6].get(self.rng.usize(..40)).unwrap_or(&9),
            rank: match self.rng.u8(..20) {
                0 => 0,
                1 => self.rng.u64(..1 << 40),
                _ => 3_000_000 + self.rng.u64(..150),
            },
            shows: match self.rng.u8(..4) {
                0 => Shows::Pass {
                    until: self.now + ahead - Duration::from_millis(500),
                },
                _ => Shows::Ticket { heard: self.now - ago },
            },
            owner: (self.rng.u8(..3) == 0).then(|| 1 + self.rng.u128(..30)),
        }
    }

    fn turn(&mut self) -> Turn {
        let rush = if self.rng.u8(..20) == 0 { 300 } else { 8 };
        let joins = (0..self.rng.usize(..=rush)).map(|_| self.join()).collect();
        let renewed = self.numbers(6).into_iter();
        let renewals = renewed.map(|number| {
            let ahead = Duration::from_millis(self.rng.u64(..20_000));
            (number, self.now + ahead - Duration::from_millis(500))
        });
        let renewals = renewals.collect();
        let returning = if self.rng.u8(..4) == 0 { 12 } else { 0 };
        Turn {
            renewals,
            returns: (0..self.rng.usize(..=returning)).map(|_| self.comes_back()).collect(),
            settings: (0..self.rng.usize(..30) / 28).map(|_| self.setting()).collect(),
            touches: self.numbers(30),
            enters: self.numbers(8),
            leaves: self.numbers(3),
            nonce: self.rng.u128(..),
            tick: self.rng.u8(..5) > 0,
            joins,
            ..Turn::new(self.terms.clone(), 0)
        }
    }

    /// A turn as a gateway might send it; sometimes one that was sent before.
    fn next(&mut self) -> (usize, RoomTurn) {
        if self.rng.u8(..15) == 0
            && let Some(before) = self.before.clone()
        {
            return before;
        }
        let who = self.rng.usize(..self.cursors.len());
        let cursor = match self.rng.u8(..25) {
            0 => Cursor::default(),
            1 => Cursor {
                sequence: self.cursors[who].sequence + 3,
                ..self.cursors[who]
            },
            _ => self.cursors[who],
        };
        let mut turn = self.turn();
        turn.epoch = cursor.epoch;
        turn.memory = self.remembers(cursor);
        (who, RoomTurn { turn, cursor })
    }

    async fn both(&mut self, number: usize, who: usize, request: &RoomTurn) {
        let here = understood(self.memory.turn_at(&self.room, request, self.now));
        let there = self.redis.turn_at(&self.room, request, self.now, self.server);
        let there = there.await;
        let there = understood(there.unwrap());
        assert_eq!(
            format!("{there:#?}"),
            format!("{here:#?}"),
            "turn {number} at {:?}: {request:?}",
            self.now
        );
        if here.outcome.restoring.is_some() {
            let told = self.told.unwrap_or(0);
            let to = request.turn.memory.as_ref().map_or(0, |memory| memory.to);
            self.told = Some(to.max(told));
            return;
        }
        self.told = None;
        self.last = here.outcome.counts.last;
        for returned in &here.outcome.returns {
            if let Returned::Place { number, .. } = returned {
                self.returned.push(*number);
            }
        }
        self.seen.note(&here);
        if self.rng.u8(..4) > 0 {
            self.cursors[who] = here.cursor;
        }
    }

    /// Now and then the operator announces another opening, or thinks better of it.
    fn announce(&mut self) {
        match self.rng.u8(..120) {
            0 => self.terms.open = Some(self.now + Duration::from_millis(self.rng.u64(..6_000))),
            1 => self.terms.order = [Order::Arrival, Order::Shuffle, Order::Shuffle][self.rng.usize(..3)],
            2 => self.terms.open = None,
            _ => {}
        }
    }

    pub(super) async fn go_on(&mut self, number: usize) {
        self.pass_time();
        self.announce();
        let (who, request) = self.next();
        self.both(number, who, &request).await;
        self.before = Some((who, request));
    }
}

#[tokio::test]
async fn random_conversations_about_a_room_go_the_same_way_in_memory_and_in_redis() {
    let Some(server) = Redis::start(&[]) else { return };
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let first = first.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let mut seen = [0; 12];
    for seed in first..first + CONVERSATIONS {
        eprintln!("SEED={seed}");
        let mut conversation = Conversation::new(seed, store(&server, &format!("run{seed}"))).await;
        for number in 0..TURNS {
            conversation.go_on(number).await;
        }
        for (sum, more) in seen.iter_mut().zip(conversation.seen.all()) {
            *sum += more;
        }
    }
    println!("{seen:?}");
    // Few lobbies are still being called from when a conversation ends; everything else comes up often.
    let enough = |(place, count): (usize, &usize)| *count > if place == CALLED_OF_A_LOBBY { 20 } else { 100 };
    assert!(seen.iter().enumerate().all(enough), "they had nothing to say: {seen:?}");
}

pub(super) fn terms(visitors: u64) -> Terms {
    Terms {
        visitors: Some(visitors),
        admit: None,
        pass: Duration::from_secs(600),
        open: None,
        order: Order::Arrival,
        abandon_after: Duration::from_secs(300),
        claim_within: Duration::from_secs(120),
        tick: Duration::from_millis(200),
        max_waiting: 10_000_000,
        mode: Mode::Auto,
    }
}

fn joins(count: u64, owned_from: Option<u64>) -> Vec<Join> {
    let hash = |number: u64| (u128::from(number) << 64) | u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let join = |number| Join {
        owner: owned_from.map(|first| hash(first + number)),
        otherwise: Otherwise::Wait,
        share: None,
    };
    (1..=count).map(join).collect()
}

/// A gateway of a test's own.
struct Bench {
    redis: RedisRooms,
    room: Name,
    terms: Terms,
    cursor: Cursor,
}

impl Bench {
    async fn new(server: &Redis, prefix: &str) -> Self {
        let mut bench = Self {
            redis: store(server, prefix),
            room: "concert".parse().unwrap(),
            terms: terms(0),
            cursor: Cursor::default(),
        };
        // A room that the server does not know listens first.
        while bench.turn(|_| ()).await.outcome.restoring.is_some() {}
        bench
    }

    async fn turn(&mut self, fill: impl FnOnce(&mut Turn)) -> RoomReply {
        let mut turn = Turn::new(self.terms.clone(), self.cursor.epoch);
        turn.tick = true;
        fill(&mut turn);
        let cursor = self.cursor;
        let reply = self.redis.room_turn(&self.room, RoomTurn { turn, cursor }).await;
        let reply = reply.unwrap();
        self.cursor = reply.cursor;
        reply
    }

    async fn fill(&mut self, visitors: u64, owned: bool) {
        for first in (0..visitors).step_by(256) {
            let count = (visitors - first).min(256);
            self.turn(|turn| turn.joins = joins(count, owned.then_some(first)))
                .await;
        }
    }
}

/// What a waiting visitor may cost a server, in bytes, and one of a room that gives one place per key.
const BYTES_PER_WAITER_MAX: u64 = 150;
const BYTES_PER_OWNER_MAX: u64 = 250;

#[tokio::test]
async fn every_key_of_a_room_has_a_time_to_live_and_a_waiting_visitor_costs_what_we_say() {
    for (owned, most) in [(false, BYTES_PER_WAITER_MAX), (true, BYTES_PER_OWNER_MAX)] {
        let Some(server) = Redis::start(&[]) else { return };
        let mut bench = Bench::new(&server, "cost").await;
        let before = limits::used_memory(&server);
        bench.fill(100_000, owned).await;
        let bytes = (limits::used_memory(&server) - before) / 100_000;
        println!("a waiting visitor costs {bytes} bytes, owned: {owned}");
        assert!(bytes <= most, "{bytes} bytes a waiting visitor");
        // Somebody enters, and somebody is called: now there is one of every key.
        bench.terms = terms(2);
        bench.turn(|_| ()).await;
        bench.turn(|turn| turn.enters = vec![1]).await;
        let mut connection = server.connection();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
        assert_eq!(keys.len(), if owned { 9 } else { 8 }, "{keys:?}");
        for key in keys {
            assert!(key.starts_with("cost:{room:concert}:"), "{key}");
            let ttl: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection).unwrap();
            assert!(ttl > 24 * 3_600_000, "{key} lives for {ttl} ms");
        }
    }
}

/// Turns that find as much to do as a turn may: they must end well within a gateway's patience.
async fn the_longest_turns(bench: &mut Bench, server: &Redis) {
    for what in ["2,000 calls", "2,000 calls given back", "2,000 silent visitors"] {
        server.order(&["CONFIG RESETSTAT"]);
        bench.terms = match what {
            "2,000 calls" => terms(10_000),
            "2,000 calls given back" => terms(0),
            _ => Terms {
                order: Order::Arrival,
                abandon_after: Duration::from_millis(1),
                ..terms(0)
            },
        };
        if what == "2,000 calls given back" {
            let called: Vec<u64> = (25..2_025).collect();
            bench.turn(|turn| turn.leaves = called).await;
        } else {
            bench.turn(|_| ()).await;
        }
        println!(
            "a turn of {what} takes {} us of the server",
            limits::usec_per_call(server)
        );
    }
}

/// What a turn costs the server does not depend on how many wait. The figures are in `lua/README.md`.
#[tokio::test]
async fn a_turn_costs_the_same_however_many_wait() {
    let mut costs = Vec::new();
    for waiting in [1_000, 300_000] {
        let Some(server) = Redis::start(&[]) else { return };
        let mut bench = Bench::new(&server, "speed").await;
        bench.fill(waiting, false).await;
        let mut figures = Vec::new();
        for what in ["nothing", "256 joins", "1,000 touches", "20 calls"] {
            server.order(&["CONFIG RESETSTAT"]);
            for round in 0..50 {
                bench.terms = terms(if what == "20 calls" { 20 * (round + 1) } else { 0 });
                let touched: Vec<u64> = (1..=1_000).map(|n| 1 + n * 7 % waiting).collect();
                bench
                    .turn(|turn| match what {
                        "256 joins" => turn.joins = joins(256, None),
                        "1,000 touches" => turn.touches = touched,
                        _ => (),
                    })
                    .await;
            }
            let cost: f64 = limits::usec_per_call(&server).parse().unwrap();
            println!("{waiting} waiting: a turn of {what} takes {cost} us of the server");
            figures.push(cost);
        }
        costs.push(figures);
        if waiting > 1_000 {
            the_longest_turns(&mut bench, &server).await;
        }
    }
    for (few, many) in costs[0].iter().zip(&costs[1]) {
        assert!(*many < 3.0 * few + 100.0, "{costs:?}");
    }
}

/// Nothing is moved at a draw, so a lobby of 300,000 opens as fast as one of three. The figures are in `lua/README.md`.
#[tokio::test]
async fn a_lobby_of_300_000_opens_and_is_called_without_holding_the_server() {
    let Some(server) = Redis::start(&[]) else { return };
    let mut bench = Bench::new(&server, "lobby").await;
    let ahead = Timestamp::from_secs(4_000_000_000);
    (bench.terms.order, bench.terms.open) = (Order::Shuffle, Some(ahead));
    bench.fill(300_000, false).await;
    bench.terms.open = Some(Timestamp::from_secs(1));
    server.order(&["CONFIG RESETSTAT"]);
    let opened = bench.turn(|turn| turn.nonce = 7).await;
    let draw = opened.outcome.counts.draw.unwrap();
    assert_eq!((draw.before, draw.size), (0, 300_000));
    assert!(matches!(&opened.news, News::Snapshot(all) if all.waiting.len() == 300_000));
    println!(
        "the turn that draws a lobby of 300,000 takes {} us",
        limits::usec_per_call(&server)
    );
    for (called, what) in [(20, "20 calls"), (2_000, "as many calls as a turn makes")] {
        bench.terms.visitors = Some(bench.terms.visitors.unwrap_or(0) + called);
        server.order(&["CONFIG RESETSTAT"]);
        let outcome = bench.turn(|_| ()).await.outcome;
        let cost = limits::usec_per_call(&server);
        println!("a turn of {what} out of the lobby takes {cost} us");
        let hurried = called > LOBBY_RANKS_PER_TURN;
        assert_eq!(
            outcome.change.unwrap().called,
            called.min(LOBBY_RANKS_PER_TURN),
            "{what}"
        );
        assert_eq!(outcome.tick_at, hurried.then_some(outcome.now), "{what}");
    }
    let ranks = Ranks::new(draw);
    let mut cursor = Cursor::default();
    std::mem::swap(&mut bench.cursor, &mut cursor);
    let News::Snapshot(order) = bench.turn(|turn| turn.tick = false).await.news else {
        panic!("a gateway that knows nothing starts over");
    };
    assert!(
        order
            .called
            .iter()
            .all(|number| ranks.rank(*number) <= order.called.len() as u64)
    );
}
