//! Rooms that were lost, or fell behind, and what gateways tell of them.

use tidegate::base::clock::{ManualClock, Timestamp};
use tidegate::queue::earlier::{Return, Shows};
use tidegate::queue::lobby::Draw;
use tidegate::queue::log::Cursor;
use tidegate::queue::restore::{GAP, Memory, RESTORE_WITHIN};
use tidegate::queue::shuffle::Seed;
use tidegate::queue::terms::{Mode, Setting};
use tidegate::queue::turn::Turn;
use tidegate::room::recall::NUMBERS_PER_TURN;
use tidegate::store::memory::rooms::MemoryRooms;
use tidegate::store::rooms::{News, RoomTurn};

use super::limits;
use super::rooms::{Conversation, store, terms};
use super::server::Redis;

const CONVERSATIONS: u64 = 20;
const TURNS: usize = 400;

/// What a room is kept in.
const PARTS: [&str; 11] = [
    "state", "queue", "bits", "joined", "called", "inside", "people", "owners", "log", "networks", "earlier",
];

impl Conversation {
    /// What a gateway might tell, and much that none would: all sorts of stages, ranges that overlap or leave some out.
    pub(super) fn remembers(&mut self, cursor: Cursor) -> Option<Memory> {
        let told = self.told?;
        if self.rng.u8(..3) == 0 {
            return None;
        }
        let from = match self.rng.u8(..8) {
            0 => 1,
            1 => 1 + self.rng.u64(..=self.last + 3),
            2 => told.saturating_sub(self.rng.u64(..20)) + 1,
            _ => told + 1,
        };
        let to = from + self.rng.u64(..100) - 1;
        let frontier = match self.rng.u8(..3) {
            0 => self.rng.u64(..=to),
            1 => to + 5,
            _ => self.last.saturating_sub(self.rng.u64(..50)),
        };
        let sort = self.rng.u8(..4);
        let draw = self.drew(frontier, to);
        let called = draw.filter(|draw| draw.before <= frontier && frontier < draw.last());
        let floor = called.map_or(frontier, |draw| draw.before);
        let mut memory = Memory {
            cursor: match self.rng.u8(..8) {
                0 => Cursor { epoch: 77, ..cursor },
                _ => cursor,
            },
            frontier,
            last: to + if self.rng.bool() { 0 } else { self.rng.u64(..200) },
            from,
            to,
            lobby: self.rng.bool(),
            draw,
            ..Memory::default()
        };
        for number in from..=to {
            let (waits, comes) = (self.rng.u8(..10) < 8, self.rng.u8(..6));
            match comes {
                _ if number > floor && (sort == 0 || waits) => memory.waiting.push(number),
                _ if number > floor && called.is_none() => (),
                0 | 1 => memory.called.push(number),
                2 | 3 => memory.inside.push(number),
                _ => (),
            }
        }
        if self.rng.bool() {
            memory.said = vec![Setting::Mode(Mode::Hold), Setting::Visitors(self.rng.u64(..9))];
        }
        if self.rng.u8(..3) == 0 {
            memory.said = vec![Setting::Visitors(50)];
        }
        if self.rng.bool() {
            memory.said.push(Setting::Written(1 + self.rng.u64(..3)));
        }
        Some(memory)
    }

    /// The lobby that was drawn, as the room knows it, or any other.
    fn drew(&mut self, frontier: u64, to: u64) -> Option<Draw> {
        let before = match self.rng.u8(..3) {
            0 => frontier.min(to),
            _ => self.rng.u64(..=frontier.min(to)),
        };
        match self.rng.u8(..4) {
            0 => None,
            1 => self.draw(),
            _ => Some(Draw {
                seed: Seed(self.rng.u128(..)),
                before,
                size: 1 + self.rng.u64(..=to - before),
                at: self.now,
            }),
        }
    }

    /// Both stores lose something, or move.
    async fn mishap(&mut self, server: &Redis, prefix: &str, number: usize, kept: &mut Option<(String, MemoryRooms)>) {
        match self.rng.u16(..200) {
            0 => self.move_on(self.memory.copied_to(self.server + 1)),
            1 | 2 => {
                let copy = format!("{prefix}-{number}");
                copy_room(server, &format!("{:?}", self.redis), &copy);
                *kept = Some((copy, self.memory.copied_to(self.server)));
            }
            3 => {
                if let Some((prefix, memory)) = kept.take() {
                    self.move_on(memory.copied_to(self.server + 1));
                    self.redis = store(server, &prefix);
                }
            }
            4 => {
                self.move_on(MemoryRooms::on_server(ManualClock::at(self.now), self.server + 1));
                self.redis = store(server, &format!("{prefix}-{number}"));
                self.told = Some(0);
                self.begin().await;
            }
            _ => (),
        }
    }

    fn move_on(&mut self, memory: MemoryRooms) {
        self.memory = memory;
        self.server += 1;
    }
}

fn copy_room(server: &Redis, from: &str, to: &str) {
    let from = from.trim_start_matches("RedisRooms(").trim_end_matches(')');
    for part in PARTS {
        let key = |prefix: &str| format!("{prefix}:{{room:concert}}:{part}");
        let mut connection = server.connection();
        let copied: i64 = redis::cmd("COPY")
            .arg(key(from))
            .arg(key(to))
            .query(&mut connection)
            .unwrap();
        assert!(copied <= 1);
    }
}

#[tokio::test]
async fn what_gateways_tell_of_a_lost_room_is_taken_in_the_same_way_in_memory_and_in_redis() {
    let Some(server) = Redis::start(&[]) else { return };
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let first = first.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let mut heard = 0;
    for seed in first..first + CONVERSATIONS {
        eprintln!("SEED={seed}");
        let prefix = format!("lost{seed}");
        let mut conversation = Conversation::new(seed, store(&server, &prefix)).await;
        let mut kept = None;
        for number in 1..=TURNS {
            conversation.go_on(number).await;
            heard += conversation.told.unwrap_or(0);
            conversation.mishap(&server, &prefix, number, &mut kept).await;
        }
    }
    println!("{heard} numbers told of");
    assert!(heard > 1_000, "nobody told anything");
}

/// What it costs a server to hear of a queue, told as a gateway tells it. The figures are in `lua/README.md`.
#[tokio::test]
async fn a_long_queue_is_told_in_turns_that_a_server_has_the_time_for() {
    const WAITING: u64 = 300_000;
    let Some(server) = Redis::start(&[]) else { return };
    let redis = store(&server, "long");
    let room = "concert".parse().unwrap();
    let cursor = Cursor { epoch: 5, sequence: 9 };
    let mut now = Timestamp::from_secs(1_700_000_000);
    for what in ["new", "known"] {
        server.order(&["CONFIG RESETSTAT"]);
        for from in (1..=WAITING).step_by(NUMBERS_PER_TURN as usize) {
            let to = WAITING.min(from + NUMBERS_PER_TURN - 1);
            let mut turn = Turn::new(terms(0), 5);
            turn.memory = Some(Memory {
                cursor,
                last: WAITING,
                from,
                to,
                waiting: (from..=to).collect(),
                ..Memory::default()
            });
            let told = redis.turn_at(&room, &RoomTurn { turn, cursor }, now, 1).await;
            assert!(told.unwrap().outcome.restoring.is_some());
        }
        println!(
            "{NUMBERS_PER_TURN} {what} numbers take {} us of the server",
            limits::usec_per_call(&server)
        );
    }
    now = now + RESTORE_WITHIN;
    let turn = Turn::new(terms(0), 5);
    let reply = redis.turn_at(&room, &RoomTurn { turn, cursor }, now, 1).await.unwrap();
    let counts = reply.outcome.counts;
    assert_eq!(
        (reply.outcome.epoch, counts.waiting, counts.last),
        (5, WAITING, WAITING + GAP)
    );
}

/// What it costs a server when a whole queue comes back by its tickets. The figures are in `lua/README.md`.
#[tokio::test]
async fn a_long_queue_comes_back_in_turns_that_a_server_has_the_time_and_the_memory_for() {
    const WAITING: u64 = 300_000;
    const TURN: u64 = 256;
    const BYTES_MAX: u64 = 150;
    let Some(server) = Redis::start(&[]) else { return };
    let redis = store(&server, "back");
    let room = "concert".parse().unwrap();
    let mut now = Timestamp::from_secs(1_700_000_000);
    let heard = now;
    let ticket = |rank: u64| Return {
        epoch: 5,
        rank,
        shows: Shows::Ticket { heard },
        owner: None,
    };
    let cursor = Cursor::default();
    let mut first = Turn::new(terms(0), 0);
    first.returns = vec![ticket(WAITING)];
    let turn = first.clone();
    let told = redis.turn_at(&room, &RoomTurn { turn, cursor }, now, 1).await.unwrap();
    assert!(told.outcome.restoring.is_some());
    now = now + RESTORE_WITHIN;
    let begun = redis
        .turn_at(&room, &RoomTurn { turn: first, cursor }, now, 1)
        .await
        .unwrap();
    let before = limits::used_memory(&server);
    server.order(&["CONFIG RESETSTAT"]);
    let mut cursor = begun.cursor;
    for part in 0..WAITING.div_ceil(TURN) {
        let mut turn = Turn::new(terms(0), cursor.epoch);
        // In an order that has nothing to do with their ranks.
        let ranks = (part * TURN..WAITING.min((part + 1) * TURN)).map(|at| 1 + at * 7_919 % WAITING);
        turn.returns = ranks.map(ticket).collect();
        cursor = redis
            .turn_at(&room, &RoomTurn { turn, cursor }, now, 1)
            .await
            .unwrap()
            .cursor;
    }
    println!(
        "{TURN} people who come back take {} us of the server",
        limits::usec_per_call(&server)
    );
    let bytes = (limits::used_memory(&server) - before) / WAITING;
    println!("somebody who came back and waits costs {bytes} bytes");
    assert!(bytes <= BYTES_MAX, "{bytes} bytes");
    let turn = Turn::new(terms(0), 0);
    let cursor = Cursor::default();
    let all = redis.turn_at(&room, &RoomTurn { turn, cursor }, now, 1).await.unwrap();
    assert_eq!(all.outcome.counts.waiting, WAITING);
    let News::Snapshot(order) = all.news else {
        panic!("who knows nothing starts over");
    };
    assert_eq!(order.waiting.len() as u64, WAITING);
}
