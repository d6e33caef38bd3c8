//! Limits in Redis or Valkey: what a fleet of gateways shares.
//!
//! Every call is one script that is applied whole, at the server's clock. This file says which script a call of the
//! contract is and under which keys it works; `wire` packs and unpacks; `link` keeps one connection and its deadlines;
//! `servers` knows how the servers belong together. What happens while the store does not answer is decided above, in
//! `throttle/`: here such a call just fails, at once where it can.

pub mod address;
mod check;
mod fault;
mod link;
pub mod rooms;
mod script;
pub mod servers;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::link::Link;
use self::rooms::RedisRooms;
use self::script::{Script, Turns};
use self::servers::Servers;
use crate::base::clock::{Clock, Timestamp};
use crate::store::limits::{Fleet, GatewayId, LimitReply, LimitStore, LimitTurn, StoreFault};

/// With what all keys begin, unless told otherwise.
pub const PREFIX: &str = "tidegate";

/// The store of a fleet.
pub struct RedisLimits {
    link: Arc<Link>,
    prefix: String,
    turns: Turns,
    alive: Script,
}

impl RedisLimits {
    /// A store that is not connected yet: its first call begins that. Keys begin with `prefix`; no call takes longer
    /// than `timeout`.
    pub fn new(servers: Servers, prefix: &str, timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            link: Arc::new(Link::new(servers, timeout, clock)),
            prefix: prefix.to_owned(),
            turns: Turns::new(),
            alive: Script::alive(),
        }
    }

    /// A store of rooms on the same servers, over the same connection and within the same time.
    pub fn rooms(&self) -> RedisRooms {
        RedisRooms::new(Arc::clone(&self.link), &self.prefix)
    }

    /// Applies one turn at a given moment instead of the server's, so that it can be compared with another store.
    ///
    /// # Errors
    /// Those of [`LimitStore::limit_turn`].
    pub async fn apply_at(&self, turn: &LimitTurn, now: Timestamp) -> Result<LimitReply, StoreFault> {
        self.apply(turn, &now.as_micros().to_string()).await
    }

    /// Notes a sign of life at a given moment instead of the server's, so that it can be compared with another store.
    ///
    /// # Errors
    /// Those of [`LimitStore::alive`].
    pub async fn note_alive_at(&self, gateway: GatewayId, knew: &Fleet, now: Timestamp) -> Result<Fleet, StoreFault> {
        self.note_alive(gateway, knew, &now.as_micros().to_string()).await
    }

    async fn apply(&self, turn: &LimitTurn, now: &str) -> Result<LimitReply, StoreFault> {
        let script = self.turns.of(turn.terms.algorithm);
        let call = script.call(self.keys(turn), &[&wire::turn(turn), now.as_bytes()]);
        let asked = turn.keys.len();
        self.link.ask(&call, |answer| wire::read_reply(answer, asked)).await
    }

    async fn note_alive(&self, gateway: GatewayId, knew: &Fleet, now: &str) -> Result<Fleet, StoreFault> {
        let key = format!("{}:{{fleet}}", self.prefix);
        let args: [&[u8]; 3] = [&gateway.0.to_be_bytes(), &wire::fleet(knew), now.as_bytes()];
        let call = self.alive.call([key], &args);
        self.link.connected().await;
        self.link.ask(&call, wire::read_fleet).await
    }

    /// The keys of a partition. Counts mean something else when the way of counting changes, so that is part of the name.
    fn keys(&self, turn: &LimitTurn) -> [String; 4] {
        let (prefix, limit, partition) = (&self.prefix, &turn.limit, turn.partition);
        let shape = turn.terms.shape();
        ["state", "pooled", "use", "log"].map(|part| format!("{prefix}:{{{limit}/{partition}}}:{shape}:{part}"))
    }
}

impl fmt::Debug for RedisLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisLimits({})", self.prefix)
    }
}

#[async_trait]
impl LimitStore for RedisLimits {
    async fn limit_turn(&self, turn: &LimitTurn) -> Result<LimitReply, StoreFault> {
        self.apply(turn, "").await
    }

    async fn alive(&self, gateway: GatewayId, knew: &Fleet) -> Result<Fleet, StoreFault> {
        self.note_alive(gateway, knew, "").await
    }
}
