//! How much the shop can stand: a model of a service that grows slow when it is busy and fails when it is overrun.
//!
//! It counts visitors and not requests, because that is what a waiting room holds back. It reads no clock and waits for
//! nobody: the shop asks how long an answer takes and whether there is one, and does the rest.

use std::collections::HashSet;
use std::time::Duration;

use crate::base::clock::Timestamp;

/// A visitor who has not asked for one to two of these is gone.
const GENERATION: Duration = Duration::from_secs(5);

/// Most visitors that are remembered in a generation; the shop has long failed when there are so many.
const REMEMBERED_MAX: usize = 100_000;

/// What a page takes while hardly anybody is there.
const QUICK: Duration = Duration::from_millis(15);

/// How many times longer it takes when the shop is full.
const FULL_FACTOR: f64 = 10.0;

/// What each shop-full of visitors too many adds.
const CROWDED: Duration = Duration::from_secs(1);

/// The longest that anybody waits for an answer or a failure.
const SLOWEST: Duration = Duration::from_secs(4);

/// What becomes of a request, after it has taken so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// It is answered.
    Answered(Duration),
    /// It fails.
    Failed(Duration),
}

/// Who has been there lately, against how many the shop can stand.
#[derive(Debug)]
pub(super) struct Capacity {
    stands: u32,
    turned: Timestamp,
    current: HashSet<u64>,
    previous: HashSet<u64>,
    /// Failures that are due, as a fraction of one: they come evenly and not by chance.
    owed: f64,
}

impl Capacity {
    /// A shop that stands so many visitors at once; at least one.
    pub(super) fn new(stands: u32, now: Timestamp) -> Self {
        Self {
            stands: stands.max(1),
            turned: now,
            current: HashSet::new(),
            previous: HashSet::new(),
            owed: 0.0,
        }
    }

    /// A request of a visitor.
    pub(super) fn arrive(&mut self, visitor: u64, now: Timestamp) -> Service {
        self.turn(now);
        self.previous.remove(&visitor);
        if self.current.len() < REMEMBERED_MAX {
            self.current.insert(visitor);
        }
        let load = f64::from(self.visitors()) / f64::from(self.stands);
        let took = took(load);
        self.owed += (1.0 - 1.0 / load).max(0.0);
        if self.owed < 1.0 {
            return Service::Answered(took);
        }
        self.owed -= 1.0;
        Service::Failed(took)
    }

    /// Visitors of the last five to ten seconds.
    pub(super) fn visitors_at(&mut self, now: Timestamp) -> u32 {
        self.turn(now);
        self.visitors()
    }

    fn visitors(&self) -> u32 {
        u32::try_from(self.current.len() + self.previous.len()).unwrap_or(u32::MAX)
    }

    fn turn(&mut self, now: Timestamp) {
        let since = now.since(self.turned);
        if since < GENERATION {
            return;
        }
        self.previous = std::mem::take(&mut self.current);
        if since >= 2 * GENERATION {
            self.previous.clear();
        }
        self.turned = now;
    }
}

/// What a request takes at a load of 1.0 for a full shop: next to nothing until it is half full.
fn took(load: f64) -> Duration {
    let busy = 1.0 + (FULL_FACTOR - 1.0) * load.min(1.0).powi(4);
    let crowded = CROWDED.mul_f64((load - 1.0).clamp(0.0, SLOWEST.as_secs_f64()));
    (QUICK.mul_f64(busy) + crowded).min(SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_000);

    /// The last of the answers when so many visitors each ask `rounds` times, and how many of all failed.
    fn rush(capacity: &mut Capacity, visitors: u64, rounds: u64, now: Timestamp) -> (Service, u64) {
        let mut last = Service::Answered(Duration::ZERO);
        let mut failed = 0;
        for _ in 0..rounds {
            for visitor in 0..visitors {
                last = capacity.arrive(visitor, now);
                failed += u64::from(matches!(last, Service::Failed(_)));
            }
        }
        (last, failed)
    }

    #[test]
    fn a_shop_that_is_half_full_answers_everybody_quickly() {
        let mut capacity = Capacity::new(200, START);
        let (last, failed) = rush(&mut capacity, 100, 50, START);
        assert_eq!(failed, 0);
        assert!(matches!(last, Service::Answered(took) if took < 2 * QUICK), "{last:?}");
    }

    #[test]
    fn a_full_shop_is_slow_and_still_answers() {
        let mut capacity = Capacity::new(200, START);
        let (last, failed) = rush(&mut capacity, 200, 10, START);
        assert_eq!((last, failed), (Service::Answered(QUICK.mul_f64(FULL_FACTOR)), 0));
    }

    #[test]
    fn a_shop_with_twice_its_visitors_fails_half_of_them() {
        let mut capacity = Capacity::new(200, START);
        rush(&mut capacity, 400, 1, START);
        let (last, failed) = rush(&mut capacity, 400, 10, START);
        assert!((1_990..=2_010).contains(&failed), "{failed} of 4000");
        let (Service::Answered(took) | Service::Failed(took)) = last;
        assert!(took >= CROWDED, "{took:?}");
    }

    #[test]
    fn who_asks_again_is_not_another_visitor() {
        let mut capacity = Capacity::new(200, START);
        rush(&mut capacity, 30, 4, START);
        rush(&mut capacity, 30, 4, START + GENERATION);
        assert_eq!(capacity.visitors_at(START + GENERATION), 30);
    }

    #[test]
    fn who_has_gone_is_forgotten_and_the_shop_recovers() {
        let mut capacity = Capacity::new(200, START);
        rush(&mut capacity, 1_000, 1, START);
        assert_eq!(capacity.visitors_at(START + GENERATION), 1_000);
        assert_eq!(capacity.visitors_at(START + 2 * GENERATION), 0);
        rush(&mut capacity, 1_000, 1, START + 2 * GENERATION);
        assert_eq!(capacity.visitors_at(START + 9 * GENERATION), 0);
    }

    #[test]
    fn no_load_takes_longer_than_the_longest() {
        assert_eq!(took(1e9), SLOWEST);
        assert!(took(0.0) >= QUICK);
    }

    #[test]
    fn memory_is_bounded_by_visitors_remembered() {
        let mut capacity = Capacity::new(1, START);
        for visitor in 0..REMEMBERED_MAX as u64 + 10 {
            capacity.arrive(visitor, START);
        }
        assert_eq!(capacity.visitors_at(START), REMEMBERED_MAX as u32);
    }
}
