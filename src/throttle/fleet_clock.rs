//! The store's clock, told without asking: one clock for the whole fleet, whatever each machine believes.
//!
//! Every answer of the store says what time it is there. Half-way between asking and hearing is the best guess of
//! when it was said, and the quicker the answer, the better the guess (as in NTP): so of the last few answers the
//! quickest counts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::{Clock, Timestamp};

/// Answers that are compared. At one a second a machine whose clock drifts is followed within seconds.
const SAMPLES: usize = 8;

/// Microseconds by which two clocks may part while so many are taken, and more: 200 millionths of 10 s.
const DRIFT_MAX: u64 = 2_000;

/// How far the store's clock is ahead of this machine's, as far as is known.
#[derive(Debug)]
pub(super) struct FleetClock {
    local: Arc<dyn Clock>,
    /// Microseconds.
    ahead: AtomicI64,
    /// Microseconds by which that may be wrong.
    wrong_by: AtomicU64,
    /// Microseconds that an answer took, and how far ahead it said the store is.
    samples: Mutex<VecDeque<(u64, i64)>>,
    /// Microseconds by which a server's clock was surely off lately, at most.
    parted: AtomicU64,
}

impl FleetClock {
    pub(super) fn new(local: Arc<dyn Clock>) -> Self {
        Self {
            local,
            ahead: AtomicI64::new(0),
            wrong_by: AtomicU64::new(0),
            samples: Mutex::default(),
            parted: AtomicU64::new(0),
        }
    }

    /// The time of the fleet.
    pub(super) fn now(&self) -> Timestamp {
        self.at(self.local.now())
    }

    /// This machine's time.
    pub(super) fn local(&self) -> Timestamp {
        self.local.now()
    }

    /// The time of the fleet when this machine's clock showed `local`.
    pub(super) fn at(&self, local: Timestamp) -> Timestamp {
        Timestamp::from_micros(
            local
                .as_micros()
                .saturating_add_signed(self.ahead.load(Ordering::Relaxed)),
        )
    }

    /// Takes in what time the store said it was, asked and answered at these moments of this machine's clock.
    pub(super) fn heard(&self, asked: Timestamp, answered: Timestamp, said: Timestamp) {
        let took = answered.since(asked).as_micros() as u64;
        let middle = asked.as_micros() + took / 2;
        let ahead = said.as_micros() as i64 - middle as i64;
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        // Answers that cannot both be right are of before and after the store's clock was set.
        samples.retain(|(other, said)| said.abs_diff(ahead) <= (other + took).div_ceil(2) + DRIFT_MAX);
        samples.push_back((took, ahead));
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
        if let Some((took, best)) = samples.iter().min_by_key(|(took, _)| *took) {
            self.ahead.store(*best, Ordering::Relaxed);
            self.wrong_by.store(took.div_ceil(2), Ordering::Relaxed);
        }
    }

    /// Compares with the time that another server of the store said it was: budgets and windows are in its time.
    pub(super) fn compare(&self, asked: Timestamp, answered: Timestamp, said: Timestamp) {
        let early = (self.at(asked) - self.uncertainty()).since(said);
        let late = said.since(self.at(answered) + self.uncertainty());
        self.parted
            .fetch_max(early.max(late).as_micros() as u64, Ordering::Relaxed);
    }

    /// By how much such times surely differed from the fleet's since this was last asked, at most.
    pub(super) fn take_parted(&self) -> Duration {
        Duration::from_micros(self.parted.swap(0, Ordering::Relaxed))
    }

    /// How far the fleet's time may be from what is told here: half of what the quickest answer took.
    pub(super) fn uncertainty(&self) -> Duration {
        Duration::from_micros(self.wrong_by.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;

    fn millis(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000 + millis * 1_000)
    }

    #[test]
    fn a_machine_that_is_an_hour_late_tells_the_fleets_time() {
        let clock = FleetClock::new(ManualClock::at(millis(0)));
        let hour = 3_600_000;
        clock.heard(millis(0), millis(10), millis(hour + 5));
        assert_eq!(clock.now(), millis(hour));
    }

    #[test]
    fn the_quickest_of_the_last_answers_counts() {
        let clock = FleetClock::new(ManualClock::at(millis(0)));
        clock.heard(millis(0), millis(2), millis(101));
        clock.heard(millis(10), millis(90), millis(180));
        assert_eq!(clock.now(), millis(100), "the slow one is a worse guess");
        for n in 0..8 {
            clock.heard(millis(100 + n), millis(104 + n), millis(202 + n + 50));
        }
        assert_eq!(clock.now(), millis(150), "what was true once is forgotten");
    }

    #[test]
    fn what_another_server_says_is_off_only_as_far_as_no_delay_explains_it() {
        let clock = FleetClock::new(ManualClock::at(millis(0)));
        clock.heard(millis(0), millis(2), millis(1));
        for (said, parted) in [(95, 4), (100, 0), (120, 0), (125, 4)] {
            clock.compare(millis(100), millis(120), millis(said));
            assert_eq!(clock.take_parted(), Duration::from_millis(parted), "{said}");
        }
    }

    #[test]
    fn a_clock_that_is_set_is_followed_with_the_next_answer() {
        let clock = FleetClock::new(ManualClock::at(millis(0)));
        for (asked, said) in [(0, 601), (10, 611), (20, 21)] {
            clock.heard(millis(asked), millis(asked + 2 + asked / 10), millis(said));
        }
        assert_eq!(clock.now(), millis(0) - Duration::from_millis(1));
    }
}
