//! What every key used of its free share, in fixed memory, however many keys there are.
//!
//! A count-min sketch (Cormode and Muthukrishnan, 2005) from `pingora_limits`: keys that collide in every row are
//! counted together, so it over-counts and never under-counts. It therefore says "surely within its share" and
//! never decides to reject. With 4 rows of 262,144 slots a new key among a million is misread by about 2.
//!
//! In a flood of keys every slot is in use, and then small counts say nothing about a key. How bad it is can be
//! measured: a few probe keys that no client has are read like any other, and what they show is [`noise`]. While
//! most of them show none, counts are taken as they are. When most show some, the largest is taken off every count:
//! a client is not refused for what others did. The price is stated with the protocol: in such a window a key may get
//! as many more as the noise is uneven, a handful.
//!
//! [`noise`]: Sketch::noise
//!
//! Three estimators stand for the window, the one before it, and the one to come; the third is what lets a window
//! end by moving an index, with the clearing left to the ticker. Seeds are drawn per process, so a collision that
//! someone found does not outlive a restart. Counters do not overflow before 2^63 of one key in one window.

use std::sync::atomic::{Ordering, fence};

use pingora_limits::estimator::Estimator;

use crate::limiter::window::Counts;

/// Rows of the sketch; the chance that a key is misread at all falls with each.
const ROWS: usize = 4;

/// Keys that no client has (keys are keyed hashes), read to learn how much of a count is noise.
const PROBES: u128 = 32;

/// Counts of all keys in a window and in the one before.
pub struct Sketch {
    slots: [Estimator; 3],
}

impl Sketch {
    /// A sketch with so many slots a row: 96 bytes each, in all.
    pub fn new(slots: usize) -> Self {
        Self {
            slots: std::array::from_fn(|_| Estimator::new(ROWS, slots)),
        }
    }

    fn slot(&self, index: u64) -> &Estimator {
        &self.slots[(index % 3) as usize]
    }

    /// Adds a cost to a key in window `index` and gives what the key has used, that cost included. Of threads that meet
    /// on a key at least one is told of all of them; what is loaded after this is at least as new as the count.
    pub fn add(&self, key: u128, cost: u64, index: u64) -> Counts {
        self.slot(index).incr(key, as_count(cost));
        // What a row holds while others are still added to may miss, in each row, another one of those who meet. Whoever is
        // the last to have added to all of them finds everybody in all of them.
        fence(Ordering::SeqCst);
        self.read(key, index)
    }

    /// Takes back what was added in window `index`.
    pub fn take_back(&self, key: u128, cost: u64, index: u64) {
        self.slot(index).decr(key, as_count(cost));
    }

    /// What a key has used, at most.
    pub fn read(&self, key: u128, index: u64) -> Counts {
        Counts {
            index,
            prev: self.prev(key, index),
            cur: from_count(self.slot(index).get(key)),
        }
    }

    fn prev(&self, key: u128, index: u64) -> u64 {
        index
            .checked_sub(1)
            .map_or(0, |before| from_count(self.slot(before).get(key)))
    }

    /// What to take off the counts of window `index` and of the one before, because it is others' use.
    pub fn noise(&self, index: u64) -> Counts {
        let of = |index: u64| {
            let shown = (1..=PROBES).map(|probe| from_count(self.slot(index).get(probe)));
            let (some, most) = shown.fold((0, 0), |(some, most), seen| {
                (some + u128::from(seen > 0), most.max(seen))
            });
            if some * 2 > PROBES { most } else { 0 }
        };
        Counts {
            index,
            prev: index.checked_sub(1).map_or(0, of),
            cur: of(index),
        }
    }

    /// Makes the slots of window `index` empty. One store for each slot: about a millisecond for the default size.
    pub fn clear(&self, index: u64) {
        self.slot(index).reset();
    }
}

impl std::fmt::Debug for Sketch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sketch").finish_non_exhaustive()
    }
}

fn as_count(cost: u64) -> isize {
    isize::try_from(cost).unwrap_or(isize::MAX)
}

fn from_count(count: isize) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_taken_back_was_never_there() {
        let sketch = Sketch::new(64);
        sketch.add(7, 5, 1);
        sketch.take_back(7, 2, 1);
        assert_eq!(sketch.read(7, 1).cur, 3);
    }

    #[test]
    fn threads_that_meet_on_a_key_are_never_all_told_of_too_little() {
        const CROWD: usize = 4;
        let (sketch, gate) = (Sketch::new(64), std::sync::Barrier::new(CROWD));
        let within = std::sync::atomic::AtomicU64::new(0);
        let rush = || {
            for round in 1..=2_000 {
                gate.wait();
                for _ in 0..5 {
                    within.fetch_add((sketch.add(round, 1, 1).cur <= 10).into(), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|threads| (0..CROWD).for_each(|_| drop(threads.spawn(rush))));
        assert!(within.into_inner() <= 2_000 * 10);
    }

    #[test]
    fn a_window_becomes_the_one_before_by_counting_on() {
        let sketch = Sketch::new(64);
        sketch.add(7, 5, 1);
        assert_eq!(
            sketch.read(7, 2),
            Counts {
                index: 2,
                prev: 5,
                cur: 0
            }
        );
        sketch.clear(3);
        assert_eq!(
            sketch.read(7, 3),
            Counts {
                index: 3,
                prev: 0,
                cur: 0
            }
        );
    }

    #[test]
    fn a_few_keys_make_no_noise_and_a_flood_makes_as_much_as_a_newcomer_is_misread_by() {
        let sketch = Sketch::new(256);
        (1000..1064).for_each(|key| {
            sketch.add(key, 1, 1);
        });
        assert_eq!(sketch.noise(1).cur, 0);
        (1000..11_000).for_each(|key| {
            sketch.add(key, 1, 1);
        });
        let noise = sketch.noise(1).cur;
        let misread = sketch.read(u128::MAX, 1).cur;
        assert!(
            (20..=60).contains(&noise) && misread <= noise + 10,
            "noise {noise}, a newcomer shows {misread}"
        );
        assert_eq!(sketch.noise(2).prev, noise);
    }

    proptest! {
        #[test]
        fn no_key_is_ever_under_counted(keys in proptest::collection::vec(0u128..500, 1..400)) {
            let sketch = Sketch::new(16);
            let mut truth = std::collections::HashMap::new();
            for key in keys {
                sketch.add(key, 1, 1);
                *truth.entry(key).or_insert(0u64) += 1;
            }
            for (key, count) in truth {
                prop_assert!(sketch.read(key, 1).cur >= count);
            }
        }
    }
}
