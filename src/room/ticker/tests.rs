use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use tokio::time::{Instant, interval, sleep};

use super::*;
use crate::base::clock::Clock;
use crate::base::name::Name;
use crate::base::secret::Keyring;
use crate::queue::turn::{Join, Joined, Otherwise};
use crate::room::gather::{CALLER_GAP_MIN, CALLERS_PER_TURN, TURN_GAP_MIN};
use crate::room::page::Page;
use crate::room::registry::Rooms;
use crate::room::rule::{Capacity, Rule};
use crate::store::memory::rooms::MemoryRooms;
use crate::store::rooms::RoomStore;

const JOIN: Join = Join {
    owner: None,
    otherwise: Otherwise::Wait,
    share: None,
};

/// A clock that follows the runtime's, which is paused and runs ahead whenever all tasks wait.
#[derive(Debug)]
struct Virtual(Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

/// The runtime's clock stands still but for this.
async fn passes(span: Duration) {
    drop(timeout(span, std::future::pending::<()>()).await);
}

/// A store that takes its time and counts its calls.
#[derive(Debug)]
struct Counting {
    memory: MemoryRooms,
    takes_ms: AtomicU64,
    calls: AtomicUsize,
    /// So many calls break whoever makes them.
    breaks: AtomicUsize,
}

#[async_trait::async_trait]
impl RoomStore for Counting {
    async fn room_turn(&self, room: &Name, turn: RoomTurn) -> Result<RoomReply, RoomFault> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let left = self.breaks.load(Ordering::SeqCst);
        self.breaks.store(left.saturating_sub(1), Ordering::SeqCst);
        assert_eq!(left, 0, "it breaks");
        let reply = self.memory.room_turn(room, turn).await;
        passes(Duration::from_millis(self.takes_ms.load(Ordering::SeqCst))).await;
        reply
    }
}

/// A driven room for one visitor, which has been heard of and has a queue.
struct Bench {
    room: Arc<Room>,
    store: Arc<Counting>,
}

impl Bench {
    async fn open(takes: Duration) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(Virtual(Instant::now()));
        let store = Arc::new(Counting {
            memory: MemoryRooms::new(Arc::clone(&clock)),
            takes_ms: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            breaks: AtomicUsize::new(0),
        });
        let rooms = Rooms::new(Arc::<Counting>::clone(&store), clock, Arc::new(Keyring::random()));
        let capacity = Capacity {
            visitors: Some(1),
            admit: None,
            pass: Duration::from_secs(86_400),
        };
        let mut rule = Rule::new("concert".parse().unwrap(), capacity);
        rule.terms.max_waiting = 1_000_000;
        let mut reload = rooms.begin();
        let room = reload.room(rule, Page::builtin());
        reload.commit();
        drop(tokio::spawn(
            async move { rooms.drive(std::future::pending::<()>()).await },
        ));
        let bench = Self { room, store };
        bench.takes(takes);
        bench.join().await;
        bench.join().await;
        bench
    }

    async fn join(&self) -> Duration {
        let asked = Instant::now();
        let joined = self.room.join(JOIN).await;
        assert!(matches!(joined, Ok(Joined::Place { .. })), "{joined:?}");
        asked.elapsed()
    }

    /// So long the store takes from now on.
    fn takes(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).unwrap();
        self.store.takes_ms.store(ms, Ordering::SeqCst);
    }

    /// Somebody asks while the store is so slow that nobody waits for it, and it answers after all.
    async fn asks_too_slow_a_store(&self, join: Join) {
        self.takes(4 * STORE_TIMEOUT);
        assert_eq!(self.room.join(join).await, Err(RoomFault::Timeout));
        assert_eq!(self.counts(), (1, 2), "nothing was heard yet");
        self.takes(Duration::ZERO);
        passes(8 * STORE_TIMEOUT).await;
    }

    /// How many wait, and the last number that was given.
    fn counts(&self) -> (u64, u64) {
        let replica = self.room.replica();
        (replica.counts().waiting, replica.counts().last)
    }

    fn calls(&self) -> usize {
        self.store.calls.load(Ordering::SeqCst)
    }

    /// Calls of the store within `span`, while `per_ms` visitors join in every millisecond of it.
    async fn calls_under_rush(&self, per_ms: usize, span: Duration) -> usize {
        let before = self.calls();
        let (begun, mut beats) = (Instant::now(), interval(Duration::from_millis(1)));
        while begun.elapsed() < span {
            for _ in 0..per_ms {
                let room = Arc::clone(&self.room);
                drop(tokio::spawn(async move { room.join(JOIN).await }));
            }
            beats.tick().await;
        }
        self.calls() - before
    }
}

/// Timers of the runtime are a millisecond coarse.
const COARSE: Duration = Duration::from_millis(2);

#[tokio::test(start_paused = true)]
async fn a_lone_join_in_a_room_with_a_queue_waits_for_nothing_but_the_store() {
    let takes = Duration::from_millis(3);
    let bench = Bench::open(takes).await;
    for pause_ms in [21, 50, 77, 120] {
        sleep(Duration::from_millis(pause_ms)).await;
        // It may meet a tick under way, and then it is in the one after that.
        let waited = bench.join().await;
        assert!(
            waited <= 2 * takes + CALLER_GAP_MIN + COARSE,
            "{waited:?} after {pause_ms} ms"
        );
    }
    let mut waits = Vec::new();
    for _ in 0..100 {
        sleep(Duration::from_millis(37)).await;
        waits.push(bench.join().await);
    }
    waits.sort();
    assert!(waits[50] <= takes + COARSE, "{:?}", waits[50]);
}

#[tokio::test(start_paused = true)]
async fn joins_one_after_the_other_take_the_short_gap_each() {
    let bench = Bench::open(Duration::from_millis(1)).await;
    let begun = Instant::now();
    for _ in 0..1_000 {
        bench.join().await;
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rush_costs_the_store_a_bounded_number_of_calls_however_many_come() {
    let second = Duration::from_secs(1);
    for takes in [Duration::ZERO, Duration::from_millis(1)] {
        let few = Bench::open(takes).await.calls_under_rush(1, second).await;
        let by_gap = (second.as_millis() / CALLER_GAP_MIN.as_millis()) as usize;
        assert!((by_gap / 2..=by_gap + 1).contains(&few), "{few} calls for 1,000 joins");

        let many = Bench::open(takes).await.calls_under_rush(20, second).await;
        let full = 20_000 / CALLERS_PER_TURN;
        assert!(many <= full + by_gap + 1, "{many} calls for 20,000 joins");

        let flood = Bench::open(takes).await.calls_under_rush(100, second).await;
        let most = (second.as_millis() / TURN_GAP_MIN.as_millis()) as usize;
        assert!(flood <= most + 1, "{flood} calls for 100,000 joins");
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_goes_on_after_turns_that_panicked() {
    let bench = Bench::open(Duration::ZERO).await;
    bench.store.breaks.store(2, Ordering::SeqCst);
    let before = bench.calls();
    assert_eq!(bench.room.join(JOIN).await, Err(RoomFault::Timeout));
    passes(Duration::from_secs(3)).await;
    assert!(bench.calls() - before < 200, "it rests in between");
    bench.join().await;
}

#[tokio::test(start_paused = true)]
async fn a_place_given_to_somebody_who_was_told_that_there_was_no_answer_is_given_back_when_it_comes() {
    let bench = Bench::open(Duration::ZERO).await;
    bench.asks_too_slow_a_store(JOIN).await;
    assert_eq!(bench.counts(), (1, 3), "number 3 was given and does not wait");
    bench.join().await;
    assert_eq!(bench.counts(), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_given_late_stays_its_owners() {
    let bench = Bench::open(Duration::ZERO).await;
    let owned = Join { owner: Some(7), ..JOIN };
    bench.asks_too_slow_a_store(owned).await;
    assert_eq!(bench.counts(), (2, 3));
    let again = bench.room.join(owned).await;
    assert!(matches!(again, Ok(Joined::Place { number: 3, .. })), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn who_goes_while_a_turn_is_under_way_leaves_no_place_behind_and_who_goes_before_it_gets_none() {
    let bench = Bench::open(Duration::from_millis(50)).await;
    let short = Duration::from_millis(30);
    sleep(Duration::from_secs(1)).await;
    assert!(timeout(short, bench.room.join(JOIN)).await.is_err());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.counts(), (1, 3), "it was under way");
    let first = Arc::clone(&bench.room);
    drop(tokio::spawn(async move { first.join(JOIN).await }));
    sleep(Duration::from_millis(10)).await;
    assert!(timeout(short, bench.room.join(JOIN)).await.is_err());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.counts(), (2, 4), "only the first of the two was ever asked for");
}
