//! How fast a room calls: what the expected wait is made of.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::clock::Timestamp;

/// Slices that each of the two memories keeps.
const SLICES: usize = 30;

/// Width of a slice of the short memory: it covers half a minute.
const SHORT_SLICE: Duration = Duration::from_secs(1);

/// Width of a slice of the long memory: it covers ten minutes.
const LONG_SLICE: Duration = Duration::from_secs(20);

/// Calls below which the short memory is too thin to be believed.
const SHORT_CALLS_MIN: u64 = 10;

/// The calls of the last half minute, and of the last ten minutes for rooms that call seldom.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    short: Memory,
    long: Memory,
}

#[derive(Debug, Clone)]
struct Memory {
    slice: Duration,
    slices: VecDeque<(u64, u64)>,
    since: Option<Timestamp>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            short: Memory::new(SHORT_SLICE),
            long: Memory::new(LONG_SLICE),
        }
    }

    /// Counts calls made at `now`.
    pub(super) fn note(&mut self, calls: u64, now: Timestamp) {
        if calls > 0 {
            self.short.note(calls, now);
            self.long.note(calls, now);
        }
    }

    /// Calls per second; none while nobody has been called for ten minutes.
    pub(super) fn per_second(&self, now: Timestamp) -> Option<f64> {
        let (calls, span) = self.short.sum(now);
        let (calls, span) = if calls >= SHORT_CALLS_MIN {
            (calls, span)
        } else {
            self.long.sum(now)
        };
        (calls > 0).then(|| calls as f64 / span.as_secs_f64())
    }
}

impl Memory {
    fn new(slice: Duration) -> Self {
        Self {
            slice,
            slices: VecDeque::with_capacity(SLICES + 1),
            since: None,
        }
    }

    fn index(&self, now: Timestamp) -> u64 {
        now.as_secs() / self.slice.as_secs()
    }

    fn note(&mut self, calls: u64, now: Timestamp) {
        self.since.get_or_insert(now);
        let index = self.index(now);
        match self.slices.back_mut() {
            Some((at, sum)) if *at >= index => *sum += calls,
            _ => self.slices.push_back((index, calls)),
        }
        if self.slices.len() > SLICES {
            self.slices.pop_front();
        }
    }

    /// Calls remembered, and how long the memory reaches back: never less than a slice.
    fn sum(&self, now: Timestamp) -> (u64, Duration) {
        let first = (self.index(now) + 1).saturating_sub(SLICES as u64);
        let calls = self
            .slices
            .iter()
            .filter(|(at, _)| *at >= first)
            .map(|(_, calls)| calls)
            .sum();
        let whole = self.slice * SLICES as u32;
        let span = self
            .since
            .map_or(whole, |since| now.since(since).clamp(self.slice, whole));
        (calls, span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    #[test]
    fn a_steady_room_is_measured_within_a_few_percent() {
        let mut pace = Pace::new();
        for tick in 0..300 {
            pace.note(20, at(0) + tick * Duration::from_millis(200));
        }
        let measured = pace.per_second(at(60)).unwrap();
        assert!((measured - 100.0).abs() < 5.0, "{measured}");
    }

    #[test]
    fn a_slow_room_is_measured_over_minutes_and_a_silent_one_not_at_all() {
        let mut pace = Pace::new();
        assert_eq!(pace.per_second(at(0)), None);
        for minute in 0..10 {
            pace.note(1, at(minute * 60));
        }
        let measured = pace.per_second(at(590)).unwrap();
        assert!((0.01..0.03).contains(&measured), "{measured}");
        assert_eq!(pace.per_second(at(3_600)), None);
    }

    #[test]
    fn a_room_that_has_just_begun_is_not_taken_for_slow() {
        let mut pace = Pace::new();
        for tick in 0..10 {
            pace.note(20, at(0) + tick * Duration::from_millis(200));
        }
        let measured = pace.per_second(at(2)).unwrap();
        assert!((90.0..=110.0).contains(&measured), "{measured}");
    }
}
