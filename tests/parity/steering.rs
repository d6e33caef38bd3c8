//! What operators and rule files say to a room, turn by turn, in both stores.

use std::time::Duration;

use tidegate::base::clock::{ManualClock, Timestamp};
use tidegate::base::name::Name;
use tidegate::queue::log::Cursor;
use tidegate::queue::restore::RESTORE_WITHIN;
use tidegate::queue::terms::{Mode, Setting, Terms};
use tidegate::queue::turn::{Join, Otherwise, Outcome, Turn};
use tidegate::store::memory::rooms::MemoryRooms;
use tidegate::store::redis::rooms::RedisRooms;
use tidegate::store::rooms::RoomTurn;

use super::rooms::{store, terms, understood};
use super::server::Redis;

const TICK: Duration = Duration::from_millis(200);

/// One gateway, and both stores, which must say the same.
struct Desk {
    memory: MemoryRooms,
    redis: RedisRooms,
    room: Name,
    terms: Terms,
    cursor: Cursor,
    now: Timestamp,
}

impl Desk {
    async fn open(server: &Redis, prefix: &str, terms: Terms) -> Self {
        let now = Timestamp::from_secs(1_700_000_000);
        let mut desk = Self {
            memory: MemoryRooms::on_server(ManualClock::at(now), 1),
            redis: store(server, prefix),
            room: "concert".parse().unwrap(),
            terms,
            cursor: Cursor::default(),
            now,
        };
        desk.turn(|_| ()).await;
        desk.now = desk.now + RESTORE_WITHIN;
        desk
    }

    async fn turn(&mut self, fill: impl FnOnce(&mut Turn)) -> Outcome {
        let mut turn = Turn::new(self.terms.clone(), self.cursor.epoch);
        turn.tick = true;
        fill(&mut turn);
        let request = RoomTurn {
            turn,
            cursor: self.cursor,
        };
        let here = understood(self.memory.turn_at(&self.room, &request, self.now));
        let there = self.redis.turn_at(&self.room, &request, self.now, 1).await;
        let there = understood(there.unwrap());
        assert_eq!(format!("{there:#?}"), format!("{here:#?}"));
        self.cursor = here.cursor;
        here.outcome
    }

    async fn says(&mut self, setting: Setting) -> Outcome {
        self.turn(|turn| turn.settings.push(setting)).await
    }

    /// Turns every tick, and when the rate's window reopens; how many were called.
    async fn called_within(&mut self, span: Duration) -> u64 {
        let (end, mut called) = (self.now + span, 0);
        while self.now < end {
            let outcome = self.turn(|_| ()).await;
            called += outcome.tally.called;
            let next = self.now + TICK;
            let reopens = outcome.tick_at.map(|at| at.max(self.now + Duration::from_millis(1)));
            self.now = reopens.map_or(next, |at| at.min(next));
        }
        called
    }
}

#[tokio::test]
async fn a_rate_with_a_shorter_window_is_used_up_from_now_on() {
    let Some(server) = Redis::start(&[]) else { return };
    for (before, after, fair) in [("10000/day", "50/s", 500), ("36000/h", "600/min", 100)] {
        let written = Terms {
            visitors: None,
            admit: Some(before.parse().unwrap()),
            ..terms(0)
        };
        let mut desk = Desk::open(&server, after, written).await;
        let join = Join {
            owner: None,
            otherwise: Otherwise::Wait,
            share: None,
        };
        desk.turn(|turn| turn.joins = vec![join; 2_000]).await;
        desk.called_within(Duration::from_secs(20)).await;
        desk.says(Setting::Admit(after.parse().unwrap())).await;
        let called = desk.called_within(Duration::from_secs(10)).await;
        assert!(
            (fair * 9 / 10..=fair * 11 / 10).contains(&called),
            "{before}, then {after}: {called} called"
        );
    }
}

#[tokio::test]
async fn what_operators_said_before_rule_files_were_remembered_is_read_and_holds() {
    /// A mode, and three numbers.
    const BYTES_BEFORE: usize = 1 + 3 * 8;
    let Some(server) = Redis::start(&[]) else { return };
    let mut desk = Desk::open(&server, "before", terms(5)).await;
    desk.says(Setting::Mode(Mode::Hold)).await;
    let mut connection = server.connection();
    let key = "before:{room:concert}:state";
    let said: Vec<u8> = redis::cmd("HGET").arg(key).arg("said").query(&mut connection).unwrap();
    assert_eq!(said.len(), BYTES_BEFORE, "it is written as before until a file is read");
    assert_eq!(desk.says(Setting::Written(1)).await.counts.mode, Mode::Hold);
    let said: Vec<u8> = redis::cmd("HGET").arg(key).arg("said").query(&mut connection).unwrap();
    assert_eq!(said.len(), BYTES_BEFORE + 8);
    assert_eq!(desk.says(Setting::Written(1)).await.counts.mode, Mode::Hold);
    assert_eq!(desk.says(Setting::Written(2)).await.counts.mode, Mode::Auto);
}
