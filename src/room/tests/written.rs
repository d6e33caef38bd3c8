//! What operators said, and rule files that reach gateways one by one.

use std::sync::Mutex;

use super::*;
use crate::queue::restore::RESTORE_MAX;

/// A store that can be unplugged, and lost.
#[derive(Debug)]
struct Lossy {
    clock: Arc<ManualClock>,
    memory: Mutex<MemoryRooms>,
    out: AtomicBool,
}

#[async_trait::async_trait]
impl RoomStore for Lossy {
    async fn room_turn(&self, room: &Name, turn: RoomTurn) -> Result<RoomReply, RoomFault> {
        if self.out.load(Ordering::SeqCst) {
            return Err(RoomFault::Unavailable);
        }
        Ok(self.memory.lock().unwrap().turn_at(room, &turn, self.clock.now()))
    }
}

struct Fleet {
    clock: Arc<ManualClock>,
    store: Arc<Lossy>,
}

impl Fleet {
    fn new() -> Self {
        let clock = ManualClock::at(START);
        let memory = Mutex::new(MemoryRooms::on_server(Arc::<ManualClock>::clone(&clock), 1));
        let store = Arc::new(Lossy {
            clock: Arc::clone(&clock),
            memory,
            out: AtomicBool::new(false),
        });
        Self { clock, store }
    }

    /// A gateway that has started and heard of the room.
    async fn gateway(&self, file: Rule) -> Arc<Room> {
        let (store, clock) = (Arc::<Lossy>::clone(&self.store), Arc::<ManualClock>::clone(&self.clock));
        let room = Room::new(file, store, clock, Arc::new(Keyring::random()), Page::builtin());
        self.listened(&[&room]).await;
        room
    }

    /// Time passes, as long as a room listens at most.
    async fn listened(&self, gateways: &[&Room]) {
        for _ in 0..=RESTORE_MAX.as_secs() {
            for room in gateways {
                room.turn().await;
                room.turn().await;
            }
            self.clock.advance(Duration::from_secs(1));
        }
    }

    fn lose(&self, server: u64) {
        let clock = Arc::<ManualClock>::clone(&self.clock);
        *self.store.memory.lock().unwrap() = MemoryRooms::on_server(clock, server);
    }
}

fn file(visitors: u64) -> Rule {
    let mut rule = rule("concert");
    rule.terms.visitors = Some(visitors);
    rule
}

async fn says(room: &Room, mode: Mode) {
    let _heard = room.gather().set(vec![Setting::Mode(mode)]);
    room.turn().await;
}

async fn reads(room: &Room, file: Rule) {
    room.update(file, Page::builtin());
    room.turn().await;
}

async fn mode(room: &Room) -> Mode {
    room.turn().await;
    room.mode()
}

#[tokio::test]
async fn a_file_takes_back_what_was_said_before_it_and_nothing_that_was_said_since_at_a_gateway_that_has_it() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.gateway(file(1)).await, fleet.gateway(file(1)).await);
    says(&one, Mode::Drain).await;
    assert_eq!(mode(&two).await, Mode::Drain);
    reads(&one, file(2)).await;
    assert_eq!(mode(&two).await, Mode::Auto);
    says(&one, Mode::Hold).await;
    fleet.store.out.store(true, Ordering::SeqCst);
    reads(&two, file(2)).await;
    fleet.store.out.store(false, Ordering::SeqCst);
    assert_eq!(mode(&two).await, Mode::Hold, "it was cut off and comes back");
    assert_eq!(mode(&one).await, Mode::Hold);
    reads(&two, file(3)).await;
    assert_eq!((mode(&one).await, mode(&two).await), (Mode::Auto, Mode::Auto));
}

#[tokio::test]
async fn a_file_that_comes_with_a_start_counts_like_one_that_comes_with_a_reload() {
    let fleet = Fleet::new();
    let before = fleet.gateway(file(1)).await;
    says(&before, Mode::Hold).await;
    let again = fleet.gateway(file(1)).await;
    assert_eq!(mode(&again).await, Mode::Hold);
    let after = fleet.gateway(file(2)).await;
    assert_eq!(mode(&after).await, Mode::Auto);
    says(&before, Mode::Hold).await;
    assert_eq!(
        mode(&after).await,
        Mode::Hold,
        "the file of the other is not told twice"
    );
}

#[tokio::test]
async fn a_room_that_was_lost_knows_again_under_which_file_operators_spoke() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.gateway(file(1)).await, fleet.gateway(file(1)).await);
    says(&one, Mode::Hold).await;
    two.turn().await;
    fleet.lose(2);
    fleet.listened(&[&one, &two]).await;
    assert_eq!(mode(&one).await, Mode::Hold);
    reads(&one, file(2)).await;
    assert_eq!(mode(&two).await, Mode::Auto);
    says(&one, Mode::Hold).await;
    reads(&two, file(2)).await;
    assert_eq!(mode(&two).await, Mode::Hold);
    // A file that is read while the store is away.
    fleet.lose(3);
    one.update(file(5), Page::builtin());
    two.update(file(5), Page::builtin());
    fleet.listened(&[&one, &two]).await;
    assert_eq!(mode(&one).await, Mode::Auto);
    assert_eq!(one.snapshot().capacity.visitors, Some(5));
}
