//! The contract of a store of limits: what a gateway tells it and asks of it, one message for each partition of a
//! limit and turn, whatever that message carries.
//!
//! The store's clock rules. A call may fail or time out, and then nobody knows whether it was applied; so every
//! turn is numbered, and a number that comes again is answered without being applied again.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::clock::Timestamp;
use crate::base::key::Key;
use crate::base::name::Name;
use crate::limiter::share::Shares;
use crate::limiter::window::{Counts, Window};

/// A running gateway. A restarted one is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub u128);

/// One gateway's turn at one partition of one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitTurn {
    /// Who.
    pub gateway: GatewayId,
    /// Counted up by one with each new turn of this gateway at this partition, from 1.
    pub sequence: u64,
    /// Which limit.
    pub limit: Name,
    /// How much it allows in a window, for each key.
    pub allows: u64,
    /// Its window.
    pub window: Window,
    /// Which of its partitions.
    pub partition: u16,
    /// How far this gateway has read the log of pooled keys.
    pub cursor: u64,
    /// What it says and asks of single keys.
    pub keys: Vec<KeyTurn>,
}

/// What a gateway says and asks of one key. All of it is applied, in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTurn {
    /// The key.
    pub key: Key,
    /// What the gateway used of its free share, given up with this message.
    pub report: Option<Counts>,
    /// What it admitted ahead of any grant since its last turn.
    pub overdraft: u64,
    /// Budget it has not spent, and the window it was granted in.
    pub give_back: Option<(u64, u64)>,
    /// What it expects to spend until its next turn; 0 asks for nothing.
    pub ask: u64,
}

/// The store's answer to a turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LimitReply {
    /// The store's time.
    pub now: Timestamp,
    /// One answer for each key of the turn, in its order. Empty when the turn had been applied before.
    pub keys: Vec<KeyReply>,
    /// Keys that were pooled (`true`) or released (`false`) since the cursor, in order.
    pub log: Vec<(Key, bool)>,
    /// The cursor for the next turn.
    pub cursor: u64,
    /// The log no longer reached back to the cursor: it now lists every pooled key, and only those.
    pub from_the_start: bool,
}

/// What the store says of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyReply {
    /// Budget granted, already counted.
    pub granted: u64,
    /// Until when it may be spent.
    pub valid_until: Timestamp,
    /// What is left of the limit after the grant.
    pub remaining: u64,
    /// How long until one more would be granted; zero if it would be now.
    pub wait: Duration,
    /// The count is within the limit: all overdraft is covered.
    pub covered: bool,
    /// The store knows that this gateway has given up its free share. If not, it keeps that share back, and the
    /// gateway should report again.
    pub reported: bool,
}

/// How many gateways there are, for windows that begin from some moment on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// `(from, size, whether the asking gateway is one of them)`, oldest first; the first reaches back for ever.
    pub timeline: Vec<(Timestamp, u64, bool)>,
    /// Until when this is sure: no change takes effect before.
    pub sure_until: Timestamp,
    /// The store's time.
    pub now: Timestamp,
}

impl Fleet {
    /// This gateway's free share of a limit in the window that begins at `start`; none while it cannot be sure.
    pub fn share(&self, allows: u64, start: Timestamp) -> u64 {
        if start > self.sure_until {
            return 0;
        }
        let at_start = self.timeline.iter().rev().find(|(from, ..)| *from <= start);
        at_start
            .or(self.timeline.first())
            .map_or(0, |(_, size, member)| if *member { allows / (*size).max(1) } else { 0 })
    }

    /// The shares in window `index` and the one before.
    pub fn shares(&self, allows: u64, window: Window, index: u64) -> Shares {
        let cur = self.share(allows, window.start(index));
        let prev = index
            .checked_sub(1)
            .map_or(0, |before| self.share(allows, window.start(before)));
        Shares { prev, cur }
    }

    /// The size of the fleet now, at least 1.
    pub fn size(&self) -> u64 {
        let current = self.timeline.iter().rev().find(|(from, ..)| *from <= self.now);
        current.map_or(1, |(_, size, _)| *size).max(1)
    }
}

/// Why a call of the store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// No answer in time; the call may have been applied.
    Timeout,
    /// The store cannot be reached, or says that it cannot serve.
    Unavailable,
    /// The answer makes no sense.
    Garbled,
}

impl StoreFault {
    /// As a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Garbled => "garbled",
        }
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for StoreFault {}

/// A store of limits. No call may take longer than the deadline the store was made with.
#[async_trait]
pub trait LimitStore: fmt::Debug + Send + Sync {
    /// Applies one turn, whole or not at all.
    ///
    /// # Errors
    /// Of the kinds of [`StoreFault`]; the same turn is then sent again.
    async fn limit_turn(&self, turn: &LimitTurn) -> Result<LimitReply, StoreFault>;

    /// Says that a gateway is alive and learns how many are. Membership takes effect a lease later, so that
    /// nobody who was told the old number can still count on it by then.
    ///
    /// # Errors
    /// Of the kinds of [`StoreFault`]; the gateway goes on with what it knew.
    async fn alive(&self, gateway: GatewayId) -> Result<Fleet, StoreFault>;
}
