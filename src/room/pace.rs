//! How fast a room calls: what the expected wait is made of, and how far it may be off.
//!
//! The range is made of two doubts. Which pace: half a minute may tell another than ten minutes do, and the wait may turn
//! out by either. And chance: calls that come at a steady pace still come in clusters. So the time that `n` of them take is
//! off by a factor of up to about `exp(2 / sqrt(n))`, nineteen times out of twenty, and so is a pace that was measured by
//! `n` calls. Where calls come more evenly than by chance, the range is wider than it need be. What it cannot know is what
//! the operator does next.

use std::collections::VecDeque;
use std::time::Duration;

use super::standing::Eta;
use crate::base::clock::Timestamp;

/// Slices that each of the two memories keeps.
const SLICES: usize = 30;

/// Width of a slice of the short memory: it covers half a minute.
const SHORT_SLICE: Duration = Duration::from_secs(1);

/// Width of a slice of the long memory: it covers ten minutes.
const LONG_SLICE: Duration = Duration::from_secs(20);

/// Calls below which the short memory is too thin to be believed.
const SHORT_CALLS_MIN: u64 = 10;

/// How many standard deviations the range reaches to either side: it holds nineteen times out of twenty.
const DEVIATIONS: f64 = 2.0;

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
        let measured = self.measured(now);
        (measured.0 > 0).then(|| rate(measured))
    }

    /// How long until `count` more are called; none while nobody has been called for ten minutes.
    pub(super) fn wait(&self, count: u64, now: Timestamp) -> Option<Eta> {
        let measured = self.measured(now);
        if measured.0 == 0 {
            return None;
        }
        let paces = [measured, self.long.sum(now)].map(rate);
        let (slow, fast) = (paces[0].min(paces[1]), paces[0].max(paces[1]));
        let count = count.max(1) as f64;
        let doubt = (DEVIATIONS * (scatter(count) + scatter(measured.0 as f64)).sqrt()).exp();
        let secs = |secs: f64| Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX);
        Some(Eta {
            expected: secs(count / paces[0]),
            low: secs(count / fast / doubt),
            high: secs(count / slow * doubt),
        })
    }

    /// The calls that count, and over how long.
    fn measured(&self, now: Timestamp) -> (u64, Duration) {
        let short = self.short.sum(now);
        if short.0 >= SHORT_CALLS_MIN {
            short
        } else {
            self.long.sum(now)
        }
    }
}

/// The variance of the logarithm of the time that so many calls take, which come by chance: nearly that of a gamma
/// distribution.
fn scatter(calls: f64) -> f64 {
    1.0 / calls + 0.5 / (calls * calls)
}

fn rate((calls, span): (u64, Duration)) -> f64 {
    calls as f64 / span.as_secs_f64()
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
    use proptest::prelude::*;

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
        assert_eq!(pace.wait(1, at(0)), None);
        for minute in 0..10 {
            pace.note(1, at(minute * 60));
        }
        let measured = pace.per_second(at(590)).unwrap();
        assert!((0.01..0.03).contains(&measured), "{measured}");
        assert_eq!(pace.wait(1, at(3_600)), None);
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

    #[test]
    fn a_room_that_has_slowed_down_says_that_it_may_take_longer_or_shorter() {
        let mut pace = Pace::new();
        for second in 0..540 {
            pace.note(100, at(second));
        }
        for second in 540..570 {
            pace.note(10, at(second));
        }
        let eta = pace.wait(10_000, at(569)).unwrap();
        assert!((900.0..1_100.0).contains(&eta.expected.as_secs_f64()), "{eta:?}");
        assert!(eta.low.as_secs_f64() < 110.0, "if it goes on as before: {eta:?}");
        assert!(eta.high.as_secs_f64() > 1_000.0, "{eta:?}");
    }

    /// Calls that come by chance at `per_second` on average: how many seconds until `count` have come.
    fn time_for(count: u64, per_second: f64, dice: &mut impl FnMut() -> f64) -> f64 {
        (0..count).map(|_| -dice().ln() / per_second).sum()
    }

    #[test]
    fn nineteen_waits_in_twenty_lie_within_the_range() {
        let mut seed = 7_u64;
        let mut dice = || {
            seed = crate::base::mix::mix(seed);
            ((seed >> 11) as f64 + 1.0) / (1u64 << 53) as f64
        };
        for (rate, count) in [(0.5, 5), (5.0, 40), (50.0, 1_000)] {
            let held = (0..200).filter(|_| {
                let (mut pace, mut elapsed) = (Pace::new(), 0.0);
                while elapsed < 60.0 {
                    elapsed += time_for(1, rate, &mut dice);
                    pace.note(1, at(0) + Duration::from_secs_f64(elapsed));
                }
                let eta = pace.wait(count, at(0) + Duration::from_secs_f64(elapsed)).unwrap();
                let took = Duration::from_secs_f64(time_for(count, rate, &mut dice));
                (eta.low..=eta.high).contains(&took)
            });
            let held = held.count();
            assert!(held >= 184, "{held} of 200 at {rate}/s, seed 7");
        }
    }

    proptest! {
        #[test]
        fn what_is_expected_lies_in_the_range_whatever_was_seen(
            calls in proptest::collection::vec((0u64..2_000, 0u64..50_000), 1..80),
            count in 0u64..u64::MAX,
        ) {
            let (mut pace, mut now) = (Pace::new(), at(0));
            for (millis, called) in calls {
                now = now + Duration::from_millis(millis * 10);
                pace.note(called, now);
                if let Some(Eta { expected, low, high }) = pace.wait(count, now) {
                    prop_assert!(low <= expected && expected <= high, "{low:?} {expected:?} {high:?}");
                }
            }
        }
    }
}
