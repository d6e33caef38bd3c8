//! What operators see of their limits: how full the hot table is, what is asked of the store, what came of it, and which
//! keys are the hottest. A key shows as a fingerprint of its keyed hash, never as the value that it came from.
//!
//! Requests pay two additions for it at most. Everything else is done when somebody asks, within a bound.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counter::Counter;
use super::{Limit, Throttles};
use crate::base::clock::Timestamp;
use crate::base::key::Key;

/// Most keys that are looked at for one answer, of all limits together: some milliseconds.
const SCANNED_MAX: usize = 100_000;

/// Most keys that are shown of a limit.
const HOTTEST: usize = 10;

/// Rates are told over at least so long; who asks more often gets the time since an earlier question.
const RATE_OVER: Duration = Duration::from_secs(1);

/// One limit, as this gateway sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LimitView {
    /// Its name.
    pub name: String,
    /// How much, in how long, for each key: `100/min`.
    pub limit: String,
    /// Largest overshoot, as a share of it.
    pub tolerance: f64,
    /// Keys with an exact entry.
    pub hot_keys: usize,
    /// How many there can be.
    pub hot_keys_max: usize,
    /// Budget drawn and not spent yet, of the keys that were looked at.
    pub budget_held: u64,
    /// Messages to the store a second, since somebody last asked.
    pub draws_per_second: f64,
    /// Requests admitted, since the process started.
    pub admitted: u64,
    /// Requests refused or handed to a room, since then.
    pub refused: u64,
    /// Budget granted by the store, since the limit exists.
    pub granted: u64,
    /// The share of all grants that was neither spent nor given back, 0 to 1; of answers that were lost, at most.
    pub stranded_share: f64,
    /// Requests held until there is budget.
    pub held: usize,
    /// Requests that wait for the store's answer.
    pub drawing: usize,
    /// Keys that were looked at for this answer: fewer than `hot_keys` where there are very many.
    pub scanned: usize,
    /// The keys with the most demand, most first.
    pub hottest: Vec<HotView>,
}

/// A hot key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HotView {
    /// The beginning of its keyed hash: tells keys apart, says nothing of the client. New with every start.
    pub fingerprint: String,
    /// What is asked of it a second, admitted or not.
    pub demand_per_second: u64,
    /// Budget that is held for it.
    pub budget: u64,
}

/// What a limit counts for its operator alone.
#[derive(Debug, Default)]
pub(super) struct Seen {
    turns: AtomicU64,
    granted: AtomicU64,
    /// When somebody last asked, and how many turns there had been.
    asked: Mutex<(Timestamp, u64)>,
}

impl Seen {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            asked: Mutex::new((now, 0)),
            ..Self::default()
        }
    }

    pub(super) fn note_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_granted(&self, budget: u64) {
        self.granted.fetch_add(budget, Ordering::Relaxed);
    }

    fn turns_per_second(&self, now: Timestamp) -> f64 {
        let turns = self.turns.load(Ordering::Relaxed);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.since(asked.0);
        let rate = turns.saturating_sub(asked.1) as f64 / since.max(RATE_OVER).as_secs_f64();
        if since >= RATE_OVER {
            *asked = (now, turns);
        }
        rate
    }
}

impl Throttles {
    /// Every limit of the plan that runs, by name.
    pub fn view(&self) -> Vec<LimitView> {
        let mut active = self.active();
        active.sort_by(|a, b| a.rule().name.cmp(&b.rule().name));
        let scanned_max = SCANNED_MAX / active.len().max(1);
        active.iter().map(|limit| limit.view(scanned_max)).collect()
    }
}

impl Limit {
    fn view(&self, scanned_max: usize) -> LimitView {
        let (rule, counter, tally) = (self.rule(), self.counter(), self.tally());
        let now = counter.now();
        let granted = counter.seen.granted.load(Ordering::Relaxed);
        // What was granted in answers that nobody heard.
        let stranded = counter.stranded.get();
        let scan = Scan::of(counter, scanned_max, now);
        LimitView {
            name: rule.name.to_string(),
            limit: rule.rate.to_string(),
            tolerance: rule.tolerance,
            hot_keys: counter.hot_count.load(Ordering::Relaxed),
            hot_keys_max: counter.settings.hot_keys,
            budget_held: scan.budget,
            draws_per_second: counter.seen.turns_per_second(now),
            admitted: tally.allowed.get(),
            refused: tally.limited.get() + tally.to_room.get(),
            granted,
            stranded_share: stranded as f64 / (granted + stranded).max(1) as f64,
            held: counter.line.held(),
            drawing: counter.drawing(),
            scanned: scan.keys,
            hottest: scan.hottest(),
        }
    }
}

/// One look through a hot table.
#[derive(Default)]
struct Scan {
    keys: usize,
    budget: u64,
    /// The least of the hottest on top.
    hottest: BinaryHeap<Reverse<(u64, Key, u64)>>,
}

impl Scan {
    fn of(counter: &Counter, keys_max: usize, now: Timestamp) -> Self {
        let mut scan = Self::default();
        for (key, entry) in counter.hot.pin().iter().take(keys_max) {
            let budget = entry.budget(now);
            scan.keys += 1;
            scan.budget += budget;
            scan.hottest
                .push(Reverse((entry.demand().per_second(now), *key, budget)));
            if scan.hottest.len() > HOTTEST {
                scan.hottest.pop();
            }
        }
        scan
    }

    fn hottest(self) -> Vec<HotView> {
        let sorted = self.hottest.into_sorted_vec().into_iter();
        let view = |Reverse((demand_per_second, key, budget)): Reverse<(u64, Key, u64)>| HotView {
            fingerprint: key.fingerprint().map(char::from).iter().collect(),
            demand_per_second,
            budget,
        };
        sorted.map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::tests::{Scene, small};

    fn key(number: u128) -> Key {
        Key(number << 96 | number << 64 | number)
    }

    #[test]
    fn the_hottest_keys_are_shown_by_fingerprint_and_no_more_than_ten() {
        let scene = Scene::new("1000/min", 0.0, small());
        for round in 0..1_000 {
            for number in (1..=20_u128).filter(|number| round < 500 + 20 * *number) {
                scene.request(key(number));
            }
            if round % 50 == 0 {
                scene.wait(Duration::from_millis(50));
            }
        }
        let view = scene.limit.view(1_000);
        assert_eq!(
            (view.hot_keys, view.scanned, view.hot_keys_max),
            (20, 20, small().hot_keys)
        );
        assert_eq!(view.hottest.len(), HOTTEST);
        let demands: Vec<_> = view.hottest.iter().map(|hot| hot.demand_per_second).collect();
        assert!(demands.is_sorted_by(|a, b| a >= b) && demands[0] > 0, "{demands:?}");
        assert!(
            view.hottest.iter().all(|hot| hot.fingerprint.len() == 8),
            "{:?}",
            view.hottest
        );
        assert_eq!(view.budget_held, scene.limit.view(1_000).budget_held);
        assert!(view.granted > 0 && view.stranded_share <= 1.0);
        assert_eq!(scene.limit.view(5).scanned, 5, "the scan is bounded");
    }

    #[test]
    fn the_rate_of_draws_is_told_since_somebody_last_asked() {
        let start = Timestamp::from_secs(1_000);
        let seen = Seen::new(start);
        (0..60).for_each(|_| seen.note_turn());
        assert_eq!(seen.turns_per_second(start + Duration::from_secs(30)), 2.0);
        assert_eq!(seen.turns_per_second(start + Duration::from_secs(31)), 0.0);
        (0..10).for_each(|_| seen.note_turn());
        assert_eq!(
            seen.turns_per_second(start + Duration::from_millis(31_001)),
            10.0,
            "over a second at least"
        );
        assert_eq!(seen.turns_per_second(start + Duration::from_secs(36)), 2.0);
    }
}
