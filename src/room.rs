//! Floor 3: waiting rooms: a replica of the queue, the queue API and the page, in front of a store.
//!
//! A [`Room`] is what a gateway knows and does about one room of the fleet. Its visitors are served from the
//! [`replica`]: whether a pass is good, and where a ticket stands, costs the store nothing. What changes something
//! (a join, an enter) is gathered, and [`ticker`] hands it over in turns, one at a time.
//!
//! Not decided here: who is called and when (`queue/`), and how answers reach the wire (`proxy/`).

pub mod api;
pub mod bypass;
pub mod cookie;
pub mod document;
mod due;
pub mod events;
mod gather;
pub mod guard;
pub mod holder;
mod late;
pub mod lobby;
pub mod measure;
mod meters;
pub mod openapi;
mod pace;
pub mod page;
mod poll;
pub mod price;
pub mod recall;
mod reception;
mod regain;
pub mod registry;
pub mod replica;
mod revoke;
pub mod rule;
pub mod snapshot;
pub mod standing;
pub mod ticker;
mod written;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use self::cookie::CookieNames;
use self::due::Due;
use self::gather::{Beat, Gather};
use self::late::{Joining, Late};
use self::measure::Measure;
use self::meters::Meters;
use self::page::Page;
use self::poll::POLL_MIN;
use self::replica::{Place, Replica};
use self::rule::{OnStoreFault, Rule};
use self::standing::{Notice, Standing, State};
use crate::base::clock::{Clock, Timestamp};
use crate::base::exchange::RoomPlace;
use crate::base::name::Name;
use crate::base::secret::{Keyring, random_bytes};
use crate::queue::earlier::{Return, Returned};
use crate::queue::terms::{Mode, Setting};
use crate::queue::turn::{Entered, Join, Joined};
use crate::queue::work::Spent;
use crate::store::rooms::{RoomFault, RoomStore};

/// A next poll may come so much later than it was asked for and still find its connection.
const POLL_SLACK: Duration = Duration::from_secs(1);

/// A gateway's number is this much shorter than its type: a script of a store has doubles, which end at 2^53.
const GATEWAY_UNUSED_BITS: u32 = 16;

/// One room at one gateway. It lives as long as rule files name it, whatever else is reloaded.
#[derive(Debug)]
pub struct Room {
    name: Name,
    rule: ArcSwap<Rule>,
    page: ArcSwap<Page>,
    store: Arc<dyn RoomStore>,
    clock: Arc<dyn Clock>,
    keyring: Arc<Keyring>,
    cookies: CookieNames,
    meters: Meters,
    due: Due,
    /// Under which number this gateway proposes rates: drawn anew by each, so that no two share one.
    gateway: u64,
    measure: Measure,
    replica: RwLock<Replica>,
    gather: Mutex<Gather>,
    late: Mutex<Late>,
    /// Solutions that were taken here.
    spent: Mutex<Spent>,
    /// Held for the length of a turn, so that no two of a room's turns are ever in flight.
    beat: tokio::sync::Mutex<Beat>,
    wake: Notify,
    driven: AtomicBool,
    retired: AtomicBool,
}

impl Room {
    /// A room that has heard nothing of its queue yet. Somebody must drive it: [`registry::Rooms::drive`].
    pub fn new(
        rule: Rule,
        store: Arc<dyn RoomStore>,
        clock: Arc<dyn Clock>,
        keyring: Arc<Keyring>,
        page: Page,
    ) -> Arc<Self> {
        let mut gather = Gather::default();
        gather.read(written::hash(&rule.terms));
        Arc::new(Self {
            name: rule.name.clone(),
            cookies: CookieNames::new(&rule.name),
            meters: Meters::new(&rule.name),
            due: Due::new(),
            gateway: u64::from_le_bytes(random_bytes()) >> GATEWAY_UNUSED_BITS,
            measure: Measure::default(),
            rule: ArcSwap::from_pointee(rule),
            page: ArcSwap::from_pointee(page),
            store,
            clock,
            keyring,
            replica: RwLock::default(),
            gather: Mutex::new(gather),
            late: Mutex::default(),
            spent: Mutex::default(),
            beat: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            driven: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        })
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The rule in force at this gateway.
    pub fn rule(&self) -> Arc<Rule> {
        self.rule.load_full()
    }

    /// The waiting page.
    pub fn page(&self) -> Arc<Page> {
        self.page.load_full()
    }

    /// From the next request on, this rule and this page. A mode or capacity that the rule files changed takes the
    /// place of what operators said to the running room before the fleet heard of it, from whichever gateway.
    fn update(&self, rule: Rule, page: Page) {
        let file = written::hash(&rule.terms);
        self.rule.store(Arc::new(rule));
        self.page.store(Arc::new(page));
        self.gather().read(file);
        self.wake.notify_one();
    }

    /// Says something to the running room, wherever in the fleet it is heard. It holds until a gateway reads another mode
    /// or capacity in its rule files than the room has heard of, by a reload or a start. Answers once the room has heard,
    /// or not within the store's deadline.
    pub async fn set(&self, setting: Setting) -> Result<(), RoomFault> {
        self.set_all(vec![setting]).await
    }

    /// The same of several things, in this order and at one moment: nobody is called on the terms of a part of them.
    pub async fn set_all(&self, settings: Vec<Setting>) -> Result<(), RoomFault> {
        let heard = self.gather().set(settings)?;
        self.answered(heard).await
    }

    /// The mode in force, as last heard.
    pub fn mode(&self) -> Mode {
        let replica = self.replica();
        replica
            .heard()
            .map_or_else(|| self.rule.load().terms.mode, |_| replica.counts().mode)
    }

    /// Whether everyone passes, uncounted: the room is off, or the store is away and the rule admits.
    fn is_open_to_all(&self) -> bool {
        self.mode() == Mode::Off
            || (self.rule.load().on_store_fault == OnStoreFault::Admit && self.gather().fault().is_some())
    }

    /// A visitor comes. Waits for a turn, within the store's deadline and a tick.
    pub(crate) async fn join(&self, join: Join) -> Result<Joined, RoomFault> {
        let answer = self.gather().join(join)?;
        let mut joining = Joining {
            room: self,
            join,
            answer,
        };
        self.answered(&mut joining.answer).await
    }

    /// Somebody shows a slip of an earlier life of the room. Waits for a turn, as a join does.
    async fn come_back(&self, shown: Return) -> Result<Returned, RoomFault> {
        let answer = self.gather().come_back(shown)?;
        self.answered(answer).await
    }

    /// A called visitor comes. Waits for a turn, as a join does.
    pub(crate) async fn enter(&self, number: u64) -> Result<Entered, RoomFault> {
        let answer = self.gather().enter(number)?;
        self.answered(answer).await
    }

    /// Returns once the room has been heard of, which is at once in all but the first instant of a gateway's life.
    pub(crate) async fn heard_of(&self) -> Result<(), RoomFault> {
        if self.epoch().is_some() {
            return Ok(());
        }
        self.caught_up().await
    }

    /// Returns once a turn more has been heard.
    pub(crate) async fn caught_up(&self) -> Result<(), RoomFault> {
        let heard = self.gather().set(Vec::new())?;
        self.answered(heard).await
    }

    /// A visitor with this number gave a sign of life.
    pub(crate) fn touch(&self, number: u64) {
        self.gather().touch(number);
    }

    /// A visitor gives back the place or the pass.
    pub(crate) fn leave(&self, number: u64) {
        if self.replica().place(number) == Place::Inside {
            self.replica_mut().end(number);
        }
        self.gather().leave(number);
        self.wake.notify_one();
    }

    /// A place, for the access log.
    fn place(&self, number: u64) -> RoomPlace {
        let room = self.name.clone();
        RoomPlace { room, number }
    }

    /// The life of the queue that is followed; none before it was heard of.
    pub(crate) fn epoch(&self) -> Option<u64> {
        let replica = self.replica();
        replica.heard().map(|_| replica.cursor().epoch)
    }

    /// A moment of this gateway's clock by the store's.
    pub(crate) fn store_time(&self, now: Timestamp) -> Timestamp {
        self.replica().store_time(now)
    }

    /// Where `number` stands; none when its place or pass is gone.
    pub fn standing(&self, number: u64, now: Timestamp) -> Option<Standing> {
        let place = self.replica().place(number);
        match place {
            Place::Waiting { ahead, behind } => Some(self.waiting(number, (ahead, behind), now)),
            Place::Called => Some(self.arrived(State::Called, now)),
            Place::Inside => Some(self.arrived(State::Inside, now)),
            Place::Gone => None,
        }
    }

    /// The standing of someone who need not wait any more.
    pub(crate) fn arrived(&self, state: State, now: Timestamp) -> Standing {
        let replica = self.replica();
        Standing {
            state,
            ahead: 0,
            behind: replica.counts().waiting,
            eta: Some(Duration::ZERO),
            eta_range: Some((Duration::ZERO, Duration::ZERO)),
            next_poll: POLL_MIN,
            notice: Notice::Moving,
            since: None,
            as_of: replica.heard().unwrap_or(now),
        }
    }

    fn waiting(&self, number: u64, (ahead, behind): (u64, u64), now: Timestamp) -> Standing {
        let rule = self.rule.load();
        let replica = self.replica();
        // An opening is a moment of the store's clock.
        let clock = replica.store_time(now);
        let notice = match rule.terms.open {
            open if replica.counts().lobby => Notice::Lobby {
                opens: open.unwrap_or(clock),
                size: replica.counts().waiting,
            },
            Some(open) if open > clock => Notice::OpensAt(open),
            _ if replica.counts().mode == Mode::Hold => Notice::Held,
            _ => Notice::Moving,
        };
        let eta = match notice {
            Notice::Moving => replica.eta(ahead, now),
            Notice::OpensAt(_) | Notice::Lobby { .. } | Notice::Held => None,
        };
        let abandon_after = rule.terms.abandon_after;
        let next_poll = match notice {
            Notice::Lobby { opens, size } => lobby::next_poll(number, opens, size, &rule, clock),
            Notice::OpensAt(open) => {
                let expected = poll::until_called(ahead, open, replica.counts(), clock);
                poll::next_poll(number, ahead, expected, abandon_after, now)
            }
            Notice::Moving | Notice::Held => {
                let expected = eta.map(|eta| eta.expected);
                poll::next_poll(number, ahead, expected, abandon_after, now)
            }
        };
        Standing {
            state: State::Waiting,
            ahead,
            behind,
            eta: eta.map(|eta| eta.expected),
            eta_range: eta.map(|eta| (eta.low, eta.high)),
            next_poll,
            notice,
            since: None,
            as_of: replica.heard().unwrap_or(now),
        }
    }

    /// How long the connection is kept of someone who was told to stand here: of one who waits, until the next poll, if
    /// the rule has that much patience; else it is not kept. Of all others as long as any.
    pub(crate) fn kept(&self, standing: &Standing) -> Option<Duration> {
        let keepalive = self.rule.load().keepalive;
        let due = standing.next_poll + POLL_SLACK;
        let kept = if due <= keepalive { keepalive } else { Duration::ZERO };
        (standing.state == State::Waiting).then_some(kept)
    }

    fn replica(&self) -> RwLockReadGuard<'_, Replica> {
        self.replica.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn replica_mut(&self) -> RwLockWriteGuard<'_, Replica> {
        self.replica.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn gather(&self) -> MutexGuard<'_, Gather> {
        self.gather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn late(&self) -> MutexGuard<'_, Late> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self) {
        self.meters.show_lag(self.replica().heard(), self.clock.now());
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.meters.remove();
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
