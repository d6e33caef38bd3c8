//! Limits in memory: the same protocol as across a fleet, so that one gateway behaves as one of many, and so that
//! a simulation can put many gateways in front of it.

pub mod fleet;
mod partition;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use self::fleet::Members;
use self::partition::Partition;
use crate::base::clock::Clock;
use crate::base::name::Name;
use crate::store::limits::{Fleet, GatewayId, LimitReply, LimitStore, LimitTurn, StoreFault};

/// Most partitions of all limits together: a bound on what configuration can make this store hold.
const PARTITIONS_MAX: usize = 65_536;

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
    partitions: HashMap<(Name, u16), Partition>,
}

impl MemoryLimits {
    /// An empty store that tells the time by `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    /// Applies one turn at once; what the contract's call does without waiting.
    ///
    /// # Errors
    /// `Unavailable` when there are more partitions than this store holds.
    pub fn apply(&self, turn: &LimitTurn) -> Result<LimitReply, StoreFault> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { members, partitions } = &mut *state;
        if partitions.len() >= PARTITIONS_MAX && !partitions.contains_key(&(turn.limit.clone(), turn.partition)) {
            return Err(StoreFault::Unavailable);
        }
        let partition = partitions.entry((turn.limit.clone(), turn.partition)).or_default();
        Ok(partition.apply(turn, members, now))
    }

    /// Notes that a gateway is alive; what the contract's call does without waiting.
    pub fn note_alive(&self, gateway: GatewayId) -> Fleet {
        let now = self.clock.now();
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .members
            .alive(gateway, now)
    }

    /// Use and reserves of a key at this moment: what must never pass the limit. For tests of exactly that.
    pub fn count(&self, turn: &LimitTurn, key: crate::base::key::Key) -> u64 {
        let now = self.clock.now();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let partition = state.partitions.get(&(turn.limit.clone(), turn.partition));
        partition.map_or(0, |partition| partition.count(key, turn, &state.members, now))
    }
}

#[async_trait]
impl LimitStore for MemoryLimits {
    async fn limit_turn(&self, turn: &LimitTurn) -> Result<LimitReply, StoreFault> {
        self.apply(turn)
    }

    async fn alive(&self, gateway: GatewayId) -> Result<Fleet, StoreFault> {
        Ok(self.note_alive(gateway))
    }
}
