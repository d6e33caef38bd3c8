//! All rooms of a gateway. A reload prepares; only its commit changes anything.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Room;
use super::page::Page;
use super::rule::Rule;
use crate::base::clock::Clock;
use crate::base::misfit::Misfit;
use crate::base::name::Name;
use crate::base::resume::after_panics;
use crate::base::secret::Keyring;
use crate::store::rooms::RoomStore;

/// How alike a room's name must be to be suggested: 0 to 1.
const ALIKE_MIN: f64 = 0.7;

/// The room that a part of a plan names.
///
/// # Errors
/// When the plan has none of the name.
pub fn find(rooms: &HashMap<Name, Arc<Room>>, name: &Name) -> Result<Arc<Room>, Misfit> {
    if let Some(room) = rooms.get(name) {
        return Ok(Arc::clone(room));
    }
    let likeness = |known: &&Name| strsim::jaro_winkler(known.as_str(), name.as_str());
    let nearest = rooms.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Err(Misfit::new(
        match nearest.filter(|nearest| likeness(nearest) >= ALIKE_MIN) {
            Some(nearest) => format!("there is no room `{name}`; did you mean `{nearest}`?"),
            None => format!("there is no room `{name}`: describe it under `rooms`"),
        },
    ))
}

/// The rooms, by name. They outlive plans: a reload that names a room again keeps its queue.
pub struct Rooms {
    store: Arc<dyn RoomStore>,
    clock: Arc<dyn Clock>,
    keyring: Arc<Keyring>,
    rooms: ArcSwap<HashMap<Name, Arc<Room>>>,
    changed: Notify,
}

impl Rooms {
    /// No rooms yet.
    pub fn new(store: Arc<dyn RoomStore>, clock: Arc<dyn Clock>, keyring: Arc<Keyring>) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            keyring,
            rooms: ArcSwap::default(),
            changed: Notify::new(),
        })
    }

    /// The rooms in force.
    pub fn all(&self) -> Arc<HashMap<Name, Arc<Room>>> {
        self.rooms.load_full()
    }

    /// Whether no room is in force.
    pub fn are_none(&self) -> bool {
        self.rooms.load().is_empty()
    }

    /// A room in force.
    pub fn get(&self, name: &str) -> Option<Arc<Room>> {
        self.rooms.load().get(name).cloned()
    }

    /// Brings the metrics up to date that time alone changes.
    pub fn show(&self) {
        self.rooms.load().values().for_each(|room| room.show());
    }

    /// Starts a reload. Dropping it changes nothing.
    pub fn begin(self: &Arc<Self>) -> Reload {
        Reload {
            rooms: Arc::clone(self),
            staged: HashMap::new(),
        }
    }

    /// Drives all rooms, those that later reloads bring included, until `shutdown` comes. To be spawned once.
    pub async fn drive(&self, shutdown: impl Future<Output = ()>) {
        let mut drivers = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            for room in self.rooms.load().values() {
                if !room.driven.swap(true, Ordering::AcqRel) {
                    drivers.spawn(drive(Arc::clone(room)));
                }
            }
            tokio::select! {
                () = &mut shutdown => break,
                () = self.changed.notified() => {}
                Some(_) = drivers.join_next() => {}
            }
        }
        // Dropping the set ends the drivers. A turn that is in flight is lost like one whose answer was.
    }
}

/// Turns a room for as long as it is in use, whatever becomes of a turn.
async fn drive(room: Arc<Room>) {
    let what = format!("room {}", room.name());
    after_panics(&what, || {
        let room = Arc::clone(&room);
        async move { room.drive().await }
    })
    .await;
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.rooms.load().keys()).finish()
    }
}

/// The rooms of a plan in the making.
#[derive(Debug)]
pub struct Reload {
    rooms: Arc<Rooms>,
    staged: HashMap<Name, Staged>,
}

#[derive(Debug)]
struct Staged {
    room: Arc<Room>,
    /// What an existing room becomes with the commit; a new one was made with it.
    update: Option<(Rule, Page)>,
}

impl Reload {
    /// The room that will follow `rule`: the one that has its name, unchanged as yet, or a new one.
    pub fn room(&mut self, rule: Rule, page: Page) -> Arc<Room> {
        let name = rule.name.clone();
        let staged = match self.rooms.get(name.as_str()) {
            Some(room) => Staged {
                room,
                update: Some((rule, page)),
            },
            None => {
                let Rooms {
                    store, clock, keyring, ..
                } = &*self.rooms;
                let room = Room::new(rule, Arc::clone(store), Arc::clone(clock), Arc::clone(keyring), page);
                Staged { room, update: None }
            }
        };
        let room = Arc::clone(&staged.room);
        self.staged.insert(name, staged);
        room
    }

    /// From now on these rooms, under these rules. Rooms that were not named are not driven any more; their queues
    /// stay in the store.
    pub fn commit(mut self) {
        let before = self.rooms.all();
        let gone = before.iter().filter(|(name, _)| !self.staged.contains_key(*name));
        gone.for_each(|(_, room)| room.retire());
        let staged = std::mem::take(&mut self.staged);
        let entries = staged.into_iter().map(|(name, Staged { room, update })| {
            if let Some((rule, page)) = update {
                room.update(rule, page);
            }
            (name, room)
        });
        let after: HashMap<_, _> = entries.collect();
        self.rooms.rooms.store(Arc::new(after));
        self.rooms.changed.notify_one();
    }
}

impl Drop for Reload {
    /// Rooms that were made for a plan that came to nothing.
    fn drop(&mut self) {
        let new = self.staged.values().filter(|staged| staged.update.is_none());
        new.for_each(|staged| staged.room.retire());
    }
}
