//! A share of a limit's keys, which talks to the store in one message, and what requests leave for its next turn.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::counter::{Counter, Path, WAITING_MAX, spent};
use super::hot::HotKey;
use super::limit::Decision;
use super::turn::Link;
use crate::base::clock::Timestamp;
use crate::base::key::Key;

/// Most keys that wait to be announced in a partition's next turn; the next one is announced by a later request.
const ANNOUNCED_MAX: usize = 4_096;

/// A share of the keys, which talks to the store in one message.
#[derive(Debug, Default)]
pub(super) struct Partition {
    pub(super) inbox: Mutex<Inbox>,
    pub(super) link: Mutex<Link>,
    /// All keys that were pooled until then are in the hot table or shunned, in microseconds of the store's time.
    pub(super) caught_up: AtomicU64,
    /// Keys that were pooled before this gateway joined, in this frame or the one before, and that the hot table has no
    /// place for: of these nothing was kept back for it. At most as many as the store pools in a partition (65,536).
    shunned: Mutex<HashSet<Key>>,
    /// A turn is under way.
    pub(super) busy: AtomicBool,
    turned: Notify,
}

/// What requests leave for a partition's next turn.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Keys to be pooled: those past half of their free share here, which need budget (`true`), and those that
    /// another gateway has pooled.
    pub(super) announced: BTreeMap<Key, bool>,
    /// Hot keys that need budget or have something to report.
    pub(super) touched: Vec<Key>,
    /// Keys for which the hot table has no place, with what is wanted of them now.
    pub(super) single: Vec<(Key, u64)>,
    /// What the store granted to keys without an entry, until the next turn.
    pub(super) coupons: HashMap<Key, Coupon>,
    /// Somebody waits.
    pub(super) urgent: bool,
}

/// What the store granted to a key without an entry.
#[derive(Debug, Default)]
pub(super) struct Coupon {
    pub(super) granted: u64,
    pub(super) valid_until: Timestamp,
    /// When something will be left again.
    pub(super) free_at: Timestamp,
}

impl Counter {
    pub(super) fn partition_of(&self, key: Key) -> usize {
        ((key.0 >> 64) % self.partitions.len() as u128) as usize
    }

    pub(super) fn partition(&self, key: Key) -> &Partition {
        &self.partitions[self.partition_of(key)]
    }

    pub(super) fn announce(&self, key: Key) {
        if self.hot_count.load(Ordering::Relaxed) < self.settings.hot_keys {
            let mut inbox = self.partition(key).inbox();
            if inbox.announced.len() < ANNOUNCED_MAX {
                inbox.announced.insert(key, true);
            }
        }
    }

    pub(super) fn touch(&self, key: Key, hot: &HotKey) {
        if hot.queue() {
            self.partition(key).inbox().touched.push(key);
        }
    }

    /// Has the key's partition ask the store as soon as it may.
    pub(super) fn want_draw(&self, key: Key, cost: u64) {
        let hot = self.hot.pin().get(&key).cloned();
        if let Some(hot) = &hot {
            self.touch(key, hot);
        }
        let mut inbox = self.partition(key).inbox();
        if hot.is_none() {
            let room = self.hot_count.load(Ordering::Relaxed) < self.settings.hot_keys;
            if room && inbox.announced.len() < ANNOUNCED_MAX {
                inbox.announced.insert(key, true);
            } else if inbox.single.len() < WAITING_MAX {
                inbox.single.push((key, cost));
            }
        }
        inbox.urgent = true;
        drop(inbox);
        self.urgent.notify_one();
    }

    /// Spends what the store granted to a key that has no entry here.
    pub(super) fn spend_coupon(&self, key: Key, cost: u64, now: Timestamp) -> Option<Decision> {
        let mut inbox = self.partition(key).inbox();
        let coupon = inbox.coupons.get_mut(&key)?;
        if coupon.granted >= cost && coupon.valid_until > now {
            coupon.granted -= cost;
            return Some(spent(Path::Uncounted, &self.frame(now).terms, 0, now));
        }
        Some(Decision::Limited {
            retry_after: coupon.free_at.since(now),
        })
    }

    /// Ends when the key's partition has next heard from the store, or has failed to.
    pub(super) fn next_turn(&self, key: Key) -> Notified<'_> {
        self.partition(key).turned.notified()
    }

    /// Whether the store owes an answer: to a turn of the key's partition, or to this gateway's first sign of life.
    pub(super) fn awaits_answer(&self, key: Key, first: bool) -> bool {
        self.partition(key).link().awaits_answer(first) || self.fleet.load().timeline.is_empty()
    }
}

impl Partition {
    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shunned(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) {
        self.turned.notify_waiters();
    }
}
