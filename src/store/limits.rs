//! The contract of a store of limits: what a gateway tells it and asks of it, one message for each partition of a
//! limit and turn, whatever that message carries.
//!
//! The store's clock rules. A call may fail or time out, and then nobody knows whether it was applied; so every
//! turn is numbered, and a number that comes again is answered without being applied again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::clock::Timestamp;
use crate::base::key::Key;
use crate::base::name::Name;
use crate::limiter::share::Shares;
use crate::limiter::terms::Terms;
use crate::limiter::window::Counts;

/// A running gateway: a number drawn when it started, so a restarted one is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub u64);

/// One gateway's turn at one partition of one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitTurn {
    /// Who.
    pub gateway: GatewayId,
    /// Greater with each new turn of this gateway at this partition, and at least 1.
    pub sequence: u64,
    /// Which limit.
    pub limit: Name,
    /// What it allows, and how that is counted.
    pub terms: Terms,
    /// Which of its partitions.
    pub partition: u16,
    /// The life of the partition that the gateway last heard of; 0 for none. A store that lost its contents begins
    /// another life.
    pub epoch: u64,
    /// With this turn the gateway has said all it knows of its keys in that life.
    pub said_all: bool,
    /// How far this gateway has read the log of pooled keys of that life.
    pub cursor: u64,
    /// Who the gateway was last told is alive. The newest that a partition hears of tells it whose shares to keep
    /// back.
    pub fleet: Arc<Fleet>,
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
    /// The lot of budget it has not spent ([`Terms::lot`]), and how much.
    pub give_back: Option<(u64, u64)>,
    /// What it expects to spend until its next turn; 0 asks for nothing.
    pub ask: u64,
}

/// The store's answer to a turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LimitReply {
    /// The store's time.
    pub now: Timestamp,
    /// The partition's life. If it is not the one the turn named, the gateway has to say again what it knows of all
    /// its keys. As long as a member of the fleet has not, a young partition grants nothing.
    pub epoch: u64,
    /// One answer for each key of the turn, in its order. Empty when the turn had been applied before, or was meant
    /// for another life: then it is not applied.
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
    /// By how much the count is above the limit; 0 when all overdraft is covered.
    pub excess: u64,
    /// How the store sees this gateway's free share of the key.
    pub standing: Standing,
}

/// How the store sees a gateway's free share of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Given up, and what was used of it is counted.
    Reported,
    /// Kept back for the gateway, because the store has not heard, or has forgotten, what was used of it. The
    /// gateway should report.
    Unreported,
    /// The key is not pooled, because there is no place for it: every gateway has its share of it, and no more.
    NotPooled,
}

/// Who is in the fleet, for windows that begin from some moment on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fleet {
    /// From when on these are the members, oldest first; the first reaches back for ever.
    pub timeline: Vec<(Timestamp, Vec<GatewayId>)>,
    /// Until when this is sure: no change takes effect before.
    pub sure_until: Timestamp,
    /// The store's time when it said so.
    pub now: Timestamp,
}

impl Fleet {
    /// The members of windows that begin at `start`. Nobody, before anything is known.
    pub fn members(&self, start: Timestamp) -> &[GatewayId] {
        let at_start = self.timeline.iter().rev().find(|(from, _)| *from <= start);
        at_start
            .or(self.timeline.first())
            .map_or(&[], |(_, members)| members.as_slice())
    }

    /// A gateway's part of an amount that the members of windows that begin at `start` share; none while it is not
    /// sure who they are.
    pub fn share(&self, gateway: GatewayId, amount: u64, start: Timestamp) -> u64 {
        let members = self.members(start);
        if start > self.sure_until || !members.contains(&gateway) {
            return 0;
        }
        amount / members.len() as u64
    }

    /// A gateway's shares of an amount in frame `index`, the one before and the next.
    pub fn shares(&self, gateway: GatewayId, amount: u64, terms: &Terms, index: u64) -> Shares {
        let frames = terms.frames();
        let in_frame = |index: u64| self.share(gateway, amount, frames.start(index.saturating_sub(terms.lag())));
        Shares {
            prev: index.checked_sub(1).map_or(0, in_frame),
            cur: in_frame(index),
            next: if terms.lag() > 0 { in_frame(index + 1) } else { 0 },
        }
    }

    /// The shares of everyone who has one in frame `index`, the one before or the next.
    pub fn all_shares(&self, amount: u64, terms: &Terms, index: u64) -> BTreeMap<GatewayId, Shares> {
        let frames = terms.frames();
        let first = index.saturating_sub(1 + terms.lag());
        let members = (first..=index).flat_map(|index| self.members(frames.start(index)));
        members
            .map(|gateway| (*gateway, self.shares(*gateway, amount, terms, index)))
            .collect()
    }

    /// The size of the fleet, at least 1: now, or when the changes that were noticed have taken effect, if it is larger
    /// then.
    pub fn size(&self) -> u64 {
        let to_come = self.timeline.iter().filter(|(from, _)| *from > self.now);
        let sizes = to_come.map(|(_, members)| members.len());
        sizes.fold(self.members(self.now).len(), usize::max).max(1) as u64
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
    /// The store has no memory left.
    OutOfMemory,
    /// The store takes no writes: it follows another, or cannot save.
    ReadOnly,
    /// The store is starting, or waits for the one that it follows.
    Loading,
    /// The store does not know this gateway, or does not let it do this.
    Auth,
    /// The servers of a cluster do not agree on who has the keys.
    ClusterDown,
    /// The store runs a script that does not end.
    Busy,
    /// The store says no, for a reason that none of these names.
    Refused,
}

impl StoreFault {
    /// As a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Garbled => "garbled",
            Self::OutOfMemory => "out_of_memory",
            Self::ReadOnly => "read_only",
            Self::Loading => "loading",
            Self::Auth => "auth",
            Self::ClusterDown => "cluster_down",
            Self::Busy => "busy",
            Self::Refused => "refused",
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

    /// Says that a gateway is alive and learns who else is. Membership takes effect a lease later, so that
    /// nobody who was told otherwise can still count on it by then. A store that has forgotten the fleet takes over
    /// what the gateway `knew`.
    ///
    /// # Errors
    /// Of the kinds of [`StoreFault`]; the gateway goes on with what it knew.
    async fn alive(&self, gateway: GatewayId, knew: &Fleet) -> Result<Fleet, StoreFault>;
}
