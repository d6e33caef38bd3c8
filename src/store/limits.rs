//! The contract of a store of limits: what a gateway tells it and asks of it, one message for each partition of a
//! limit and turn, whatever that message carries.
//!
//! The store's clock rules. A call may fail or time out, and then nobody knows whether it was applied; so every
//! turn is numbered, and a number that comes again is answered without being applied again.

use std::collections::{BTreeMap, BTreeSet};
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

/// Most entries of the log in one answer, so that a gateway which has all of it to read does not hold the store.
pub const LOG_READ_MAX: usize = 2_000;

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
    /// Keys that were pooled (`true`) or released (`false`) since the cursor, in order. At most [`LOG_READ_MAX`].
    pub log: Vec<(Key, bool)>,
    /// The cursor for the next turn.
    pub cursor: u64,
    /// The log goes on behind that. What it says of a key may be outdated until it has been read to its end.
    pub more: bool,
    /// The log no longer reached back to the cursor, so it is read from its beginning. Whatever key it does not name by
    /// its end is not pooled.
    pub missed: bool,
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
    /// How long until one more would be granted; zero if it would be now. Hardly more than a second while something is kept back
    /// for a gateway that is alive and has not said what it used.
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

    /// The changes that matter to turns under these terms: since the window before the present one began, and the one
    /// that was in force then. One window more is counted, because the servers of a cluster have clocks of their own.
    pub fn lately(&self, terms: &Terms) -> &[(Timestamp, Vec<GatewayId>)] {
        let frames = terms.frames();
        let oldest = frames.start(frames.index(self.now).saturating_sub(2 + terms.lag()));
        let later = self.timeline.iter().skip(1);
        let skipped = later.take_while(|(from, _)| *from <= oldest).count();
        self.timeline.get(skipped..).unwrap_or_default()
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

    /// A gateway's free shares in frame `index`, the one before and the next.
    pub fn shares(&self, gateway: GatewayId, terms: &Terms, index: u64) -> Shares {
        self.all_shares(terms, index).remove(&gateway).unwrap_or_default()
    }

    /// The free shares of everyone who has one in frame `index`, the one before or the next.
    pub fn all_shares(&self, terms: &Terms, index: u64) -> BTreeMap<GatewayId, Shares> {
        let mut shares: BTreeMap<GatewayId, Shares> = BTreeMap::new();
        for free in self.free_in(terms, index) {
            shares.entry(free.gateway).or_default().cur = free.amount;
        }
        if let Some(before) = index.checked_sub(1) {
            for free in self.free_in(terms, before) {
                shares.entry(free.gateway).or_default().prev = free.amount;
            }
        }
        if terms.lag() > 0 {
            for free in self.free_in(terms, index + 1) {
                shares.entry(free.gateway).or_default().next = free.amount;
            }
        }
        shares
    }

    /// From when on a gateway has its free share in frame `index`, if it came while the frame was under way. Keys that
    /// were pooled before that moment are none of its business: nothing of them was kept back for it.
    pub fn joined(&self, gateway: GatewayId, terms: &Terms, index: u64) -> Option<Timestamp> {
        let free = self.free_in(terms, index);
        free.into_iter().find(|free| free.gateway == gateway)?.since
    }

    /// Who has which free share in a frame; nobody while it is not sure. The members at its start divide what the terms
    /// let them ([`Terms::free`] less [`Terms::spare`]). Of the spare part each who comes later has a piece, and pieces
    /// halve with every so many as there were members, so the spare part is never used up and never exceeded. If there
    /// was nobody at the start, the first to come are the members.
    fn free_in(&self, terms: &Terms, index: u64) -> Vec<FreeShare> {
        let frames = terms.frames();
        let index = index.saturating_sub(terms.lag());
        let (start, end) = (frames.start(index), frames.start(index + 1));
        if start > self.sure_until {
            return Vec::new();
        }
        let spare = terms.spare();
        let mut to_come = self.timeline.iter().skip(1).filter(|(from, members)| {
            spare > 0 && *from > start && *from < end && *from <= self.sure_until && !members.is_empty()
        });
        let mut since = None;
        let mut members = self.members(start);
        if members.is_empty()
            && let Some((from, founders)) = to_come.next()
        {
            (since, members) = (Some(*from), founders);
        }
        let count = members.len() as u64;
        let steady = |gateway: &GatewayId| FreeShare {
            gateway: *gateway,
            amount: (terms.free() - spare) / count,
            since,
        };
        let mut free: Vec<_> = members.iter().map(steady).collect();
        let mut seen: BTreeSet<_> = members.iter().copied().collect();
        for (from, members) in to_come {
            for gateway in members.iter().filter(|gateway| seen.insert(**gateway)) {
                let round = (free.len() as u64 / count) as u32;
                free.push(FreeShare {
                    gateway: *gateway,
                    amount: spare.checked_shr(round).unwrap_or(0) / count,
                    since: Some(*from),
                });
            }
        }
        free
    }

    /// The size of the fleet, at least 1: now, or when the changes that were noticed have taken effect, if it is larger
    /// then.
    pub fn size(&self) -> u64 {
        let to_come = self.timeline.iter().filter(|(from, _)| *from > self.now);
        let sizes = to_come.map(|(_, members)| members.len());
        sizes.fold(self.members(self.now).len(), usize::max).max(1) as u64
    }
}

/// What one gateway may give a key in a frame without asking.
#[derive(Debug, Clone, Copy)]
struct FreeShare {
    gateway: GatewayId,
    amount: u64,
    /// From when on, if not from the start of the frame.
    since: Option<Timestamp>,
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
    /// The keys are on their way from one server of a cluster to another; those of other partitions are where they were.
    Moving,
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
            Self::Moving => "moving",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::terms::Algorithm;
    use crate::limiter::window::Window;
    use proptest::prelude::*;

    const OLD: GatewayId = GatewayId(1);
    const NEW: GatewayId = GatewayId(2);

    fn per_minute(allows: u64, algorithm: Algorithm) -> Terms {
        Terms {
            allows,
            window: Window::new(Duration::from_secs(60)),
            algorithm,
        }
    }

    fn fleet(timeline: Vec<(u64, Vec<u64>)>, sure_until: u64) -> Fleet {
        let entry =
            |(from, ids): (u64, Vec<u64>)| (Timestamp::from_secs(from), ids.into_iter().map(GatewayId).collect());
        Fleet {
            timeline: timeline.into_iter().map(entry).collect(),
            sure_until: Timestamp::from_secs(sure_until),
            now: Timestamp::from_secs(sure_until),
        }
    }

    fn free(fleet: &Fleet, gateway: GatewayId, terms: &Terms) -> (u64, Option<Timestamp>) {
        let index = terms.frames().index(Timestamp::from_secs(60));
        (
            fleet.shares(gateway, terms, index).cur,
            fleet.joined(gateway, terms, index),
        )
    }

    #[test]
    fn who_comes_in_the_middle_of_a_window_has_a_piece_of_the_spare_part() {
        let terms = per_minute(80, Algorithm::SlidingWindow);
        let restarted = fleet(
            vec![(0, vec![1]), (70, vec![1, 2]), (80, vec![2]), (85, vec![2, 3])],
            100,
        );
        assert_eq!(free(&restarted, OLD, &terms), (60, None));
        assert_eq!(free(&restarted, NEW, &terms), (10, Some(Timestamp::from_secs(70))));
        assert_eq!(
            free(&restarted, GatewayId(3), &terms),
            (5, Some(Timestamp::from_secs(85)))
        );
        let unsure = Fleet {
            sure_until: Timestamp::from_secs(69),
            ..restarted
        };
        assert_eq!(free(&unsure, NEW, &terms), (0, None));
    }

    #[test]
    fn the_first_of_all_need_not_wait_for_the_next_window() {
        let terms = per_minute(80, Algorithm::FixedWindow);
        let founded = fleet(vec![(0, vec![]), (70, vec![1, 2])], 100);
        let since = Some(Timestamp::from_secs(70));
        assert_eq!(free(&founded, OLD, &terms), (30, since));
        assert_eq!(free(&founded, NEW, &terms), (30, since));
    }

    #[test]
    fn logs_and_buckets_have_shares_of_whole_frames_only() {
        for algorithm in [Algorithm::SlidingLog, Algorithm::TokenBucket { burst: 80 }] {
            let terms = per_minute(80, algorithm);
            let restarted = fleet(vec![(0, vec![1]), (70, vec![1, 2])], 100);
            assert_eq!(free(&restarted, OLD, &terms), (40, None));
            assert_eq!(free(&restarted, NEW, &terms), (0, None));
        }
    }

    proptest! {
        #[test]
        fn free_shares_of_a_frame_are_together_no_more_than_is_free(
            allows in 1u64..1_000,
            changes in proptest::collection::vec((0u64..180, proptest::collection::vec(1u64..12, 0..6)), 0..8),
            sure_until in 0u64..180,
        ) {
            let mut timeline = changes;
            timeline.sort();
            timeline.iter_mut().for_each(|(_, ids)| {
                ids.sort_unstable();
                ids.dedup();
            });
            let fleet = fleet(timeline, sure_until);
            for algorithm in [Algorithm::SlidingWindow, Algorithm::SlidingLog] {
                let terms = per_minute(allows, algorithm);
                for index in 0..4 {
                    let shares = fleet.all_shares(&terms, index);
                    let together: u64 = shares.values().map(|shares| shares.cur).sum();
                    prop_assert!(together <= terms.free(), "{shares:?}");
                }
            }
        }
    }
}
