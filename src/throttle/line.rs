//! Requests of one limit that are held until there is budget again: one line a key, first come, first served.
//!
//! Only the first of a line asks for budget; the others wait for their turn to be first. While a key has a line,
//! nobody spends past it. A place that is dropped is free at once, whoever dropped it: a request that was admitted,
//! one whose patience has ended, or one whose client went away.
//!
//! Nobody polls: the first wakes when the store has answered, when another request gives budget back, or when the wait
//! that was told has passed; the others when they become first, and all when their patience ends. What patience means is the caller's to say.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::Notify;

use crate::base::clock::Timestamp;
use crate::base::key::Key;

/// How long a request may be held, and among how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Longest, from the moment at which the request came.
    pub within: Duration,
    /// Most requests of the limit, of all its keys, that this gateway holds at once.
    pub queue: usize,
}

/// Everyone who is held by one limit.
#[derive(Debug)]
pub(super) struct Line {
    /// Of all keys. Requests of a limit that holds nobody look at this alone.
    held: AtomicUsize,
    keys: Mutex<HashMap<Key, Waiting>>,
    gauge: IntGauge,
}

/// Those of one key; never empty.
#[derive(Debug, Default)]
struct Waiting {
    /// Who came earliest is first; of those who came in the same moment, who joined first. So a request that another
    /// limit held meanwhile does not start at the end again.
    places: BTreeMap<(Timestamp, u64), Waiter>,
    next: u64,
    /// What all of them together want to spend.
    cost: u64,
    /// Before this moment there is nothing for the first of them, as far as is known.
    nothing_before: Timestamp,
}

#[derive(Debug)]
struct Waiter {
    cost: u64,
    first: Arc<Notify>,
}

/// What is known of a key's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ahead {
    /// What those in it want to spend.
    pub(super) cost: u64,
    /// Before this moment the first of them gets nothing.
    pub(super) nothing_before: Timestamp,
}

impl Line {
    pub(super) fn new(gauge: IntGauge) -> Self {
        Self {
            held: AtomicUsize::new(0),
            keys: Mutex::default(),
            gauge,
        }
    }

    /// Who is held for this key; none as a rule.
    pub(super) fn ahead(&self, key: Key) -> Option<Ahead> {
        if self.held.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.keys().get(&key).map(|waiting| Ahead {
            cost: waiting.cost,
            nothing_before: waiting.nothing_before,
        })
    }

    /// The place behind all who came before `came`; none when as many as `most` are held already.
    pub(super) fn join(&self, key: Key, cost: u64, came: Timestamp, most: usize) -> Option<Place<'_>> {
        let mut keys = self.keys();
        if self.held.load(Ordering::Relaxed) >= most {
            return None;
        }
        self.held.fetch_add(1, Ordering::AcqRel);
        self.gauge.inc();
        let waiting = keys.entry(key).or_default();
        let number = (came, waiting.next);
        waiting.next += 1;
        waiting.cost = waiting.cost.saturating_add(cost);
        let first = Arc::new(Notify::new());
        let waiter = Waiter {
            cost,
            first: Arc::clone(&first),
        };
        waiting.places.insert(number, waiter);
        Some(Place {
            line: self,
            key,
            number,
            first,
        })
    }

    /// Budget of the key has come back from somewhere else than the store: the first in line may have it.
    pub(super) fn wake(&self, key: Key) {
        if self.held.load(Ordering::Acquire) == 0 {
            return;
        }
        let keys = self.keys();
        if let Some(first) = keys.get(&key).and_then(|waiting| waiting.places.values().next()) {
            first.first.notify_one();
        }
    }

    /// How many are held.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<Key, Waiting>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a line. Dropping it leaves the line.
#[derive(Debug)]
pub struct Place<'l> {
    line: &'l Line,
    key: Key,
    number: (Timestamp, u64),
    first: Arc<Notify>,
}

impl Place<'_> {
    /// Ends when nobody is ahead any more.
    pub(super) async fn is_first(&self) {
        while !self.leads() {
            self.first.notified().await;
        }
    }

    /// Ends when there is a reason to look for budget that neither the store nor the clock gives.
    pub(super) async fn woken(&self) {
        self.first.notified().await;
    }

    /// Tells those who come now that the first in line gets nothing before `at`.
    pub(super) fn expect_nothing_before(&self, at: Timestamp) {
        if let Some(waiting) = self.line.keys().get_mut(&self.key) {
            waiting.nothing_before = at;
        }
    }

    /// Whether somebody in this line has been told that there is nothing yet.
    pub(super) fn has_waited(&self) -> bool {
        let keys = self.line.keys();
        let waiting = keys.get(&self.key);
        waiting.is_some_and(|waiting| waiting.nothing_before > Timestamp::default())
    }

    fn leads(&self) -> bool {
        let keys = self.line.keys();
        let first = keys.get(&self.key).and_then(|waiting| waiting.places.keys().next());
        first == Some(&self.number)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut keys = self.line.keys();
        let Some(waiting) = keys.get_mut(&self.key) else { return };
        if let Some(left) = waiting.places.remove(&self.number) {
            waiting.cost = waiting.cost.saturating_sub(left.cost);
            self.line.held.fetch_sub(1, Ordering::AcqRel);
            self.line.gauge.dec();
        }
        match waiting.places.values().next() {
            Some(next) => next.first.notify_one(),
            None => drop(keys.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests;
