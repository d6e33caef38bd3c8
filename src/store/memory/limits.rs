//! Limits in memory: the same protocol as across a fleet, so that one gateway behaves as one of many, and so that
//! a simulation can put many gateways in front of it.

pub mod fleet;
pub mod partition;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use self::fleet::Members;
use self::partition::Partition;
use crate::base::clock::{Clock, Timestamp};
use crate::base::name::Name;
use crate::store::limits::{Fleet, GatewayId, LimitReply, LimitStore, LimitTurn, StoreFault};

/// Most partitions of all limits together: a bound on what configuration can make this store hold.
const PARTITIONS_MAX: usize = 65_536;

/// A partition of which nobody has spoken for two frames and so long is forgotten when a place for another is needed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The embedded store's limits. It forgets everything when the process ends.
#[derive(Debug)]
pub struct MemoryLimits {
    clock: Arc<dyn Clock>,
    /// Held for the length of one turn; no call waits for anything else.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: Members,
    /// By limit, number, and how it counts: counts mean something else when that changes.
    partitions: HashMap<(Name, u16, String), Kept>,
}

#[derive(Debug)]
struct Kept {
    partition: Partition,
    /// Until when it is kept though nobody speaks of it: nothing that it counts matters by then.
    until: Timestamp,
}

impl MemoryLimits {
    /// An empty store inside the gateway that uses it, which tells the time by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let members = Members::embedded();
        let partitions = HashMap::new();
        Self {
            clock,
            state: Mutex::new(State { members, partitions }),
        }
    }

    /// An empty store for a fleet: one that knows nothing may have forgotten. For simulations.
    pub fn shared(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    /// Forgets everything, as a store does that was restarted empty.
    pub fn forget(&self) {
        *self.locked() = State::default();
    }

    /// Applies one turn at once; what the contract's call does without waiting.
    ///
    /// # Errors
    /// `Unavailable` when there are more partitions than this store holds.
    pub fn apply(&self, turn: &LimitTurn) -> Result<LimitReply, StoreFault> {
        let now = self.clock.now();
        self.apply_at(turn, now)
    }

    /// The same at a given moment, so that it can be compared with another store.
    ///
    /// # Errors
    /// Those of [`MemoryLimits::apply`].
    pub fn apply_at(&self, turn: &LimitTurn, now: Timestamp) -> Result<LimitReply, StoreFault> {
        let partitions = &mut self.locked().partitions;
        let key = place(turn);
        let until = now + turn.terms.frames().length() * 2 + FORGOTTEN_AFTER;
        if !partitions.contains_key(&key) {
            partitions.retain(|_, kept| now <= kept.until);
            if partitions.len() >= PARTITIONS_MAX {
                return Err(StoreFault::Unavailable);
            }
        }
        let fresh = || Kept {
            partition: Partition::new(now),
            until,
        };
        let kept = partitions.entry(key).or_insert_with(fresh);
        kept.until = until;
        Ok(kept.partition.apply(turn, now))
    }

    /// Notes that a gateway is alive; what the contract's call does without waiting.
    pub fn note_alive(&self, gateway: GatewayId, knew: &Fleet) -> Fleet {
        let now = self.clock.now();
        self.note_alive_at(gateway, knew, now)
    }

    /// The same at a given moment, so that it can be compared with another store.
    pub fn note_alive_at(&self, gateway: GatewayId, knew: &Fleet, now: Timestamp) -> Fleet {
        self.locked().members.alive(gateway, knew, now)
    }

    /// Use and reserves of a key at this moment: what must never pass the limit. For tests of exactly that. Nothing is
    /// kept back for gateways that joined in this frame or the one before: of a key that was pooled earlier they use
    /// nothing.
    pub fn count(&self, turn: &LimitTurn, key: crate::base::key::Key) -> u64 {
        let now = self.clock.now();
        let state = self.locked();
        let kept = state.partitions.get(&place(turn));
        kept.map_or(0, |kept| kept.partition.count(key, turn, now))
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(turn: &LimitTurn) -> (Name, u16, String) {
    (turn.limit.clone(), turn.partition, turn.terms.shape())
}

#[async_trait]
impl LimitStore for MemoryLimits {
    async fn limit_turn(&self, turn: &LimitTurn) -> Result<LimitReply, StoreFault> {
        self.apply(turn)
    }

    async fn alive(&self, gateway: GatewayId, knew: &Fleet) -> Result<Fleet, StoreFault> {
        Ok(self.note_alive(gateway, knew))
    }
}

#[cfg(test)]
mod tests;
