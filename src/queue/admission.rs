//! How many may be called now, by a rate: never more than its count in any trailing window, and evenly within it.
//!
//! Two guards, both pure arithmetic. The **window** guard keeps calls in cells of a hundredth of the window and
//! counts a partly covered cell whole, so it can only err towards fewer: at most one part in a hundred is lost.
//! The **pace** guard is a bucket that holds one call and what a tick is worth (a late tick: up to two ticks), so
//! that a window's count is not spent at its beginning.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::rate::Rate;

/// Cells of a window. More of them lose less and remember more.
const CELLS_PER_WINDOW: u32 = 100;

/// A tick that comes late may spend what the time since the last one is worth, up to so many ticks.
const LATE_TICKS_MAX: u32 = 2;

/// The calls of the last window, and the credit of the pace.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    cells: VecDeque<Cell>,
    in_window: u64,
    /// In units of `1 / window in microseconds` of a call: exact, whatever the rate.
    credit: u128,
    /// The window of these units, in microseconds; 0 before there are any.
    unit: u128,
    refilled: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    /// The first moment after the cell. Kept as a moment, so that a changed window keeps its meaning.
    end: Timestamp,
    calls: u64,
}

impl Admission {
    /// How many may be called at `now`.
    pub fn free(&mut self, rate: &Rate, tick: Duration, now: Timestamp) -> u64 {
        self.forget(rate, now);
        self.convert(rate);
        self.refill(rate, tick, now);
        let by_window = rate.count.get().saturating_sub(self.in_window);
        let by_pace = u64::try_from(self.credit / window_micros(rate)).unwrap_or(u64::MAX);
        by_window.min(by_pace)
    }

    /// Counts `calls` made at `now`; they must have been free.
    pub fn spend(&mut self, rate: &Rate, calls: u64, now: Timestamp) {
        if calls == 0 {
            return;
        }
        self.credit = self.credit.saturating_sub(u128::from(calls) * window_micros(rate));
        self.in_window += calls;
        let end = cell_end(rate, now);
        match self.cells.back_mut() {
            Some(cell) if cell.end >= end => cell.calls += calls,
            _ => self.cells.push_back(Cell { end, calls }),
        }
    }

    /// When the window has room again, should it be full now: a tick that comes earlier is in vain, and one that
    /// comes much later loses what the window would have allowed.
    pub fn window_reopens(&self, rate: &Rate) -> Option<Timestamp> {
        let oldest = self.cells.front()?;
        (self.in_window >= rate.count.get()).then(|| oldest.end + rate.window)
    }

    fn forget(&mut self, rate: &Rate, now: Timestamp) {
        while let Some(oldest) = self.cells.front()
            && oldest.end + rate.window <= now
        {
            self.in_window -= oldest.calls;
            self.cells.pop_front();
        }
        // A cell of a longer window may end far ahead; its calls were made by now.
        let end = cell_end(rate, now);
        let ahead = self.cells.iter_mut().rev().take_while(|cell| cell.end > end);
        ahead.for_each(|cell| cell.end = end);
    }

    /// A credit is worth as many calls under another window as it was.
    fn convert(&mut self, rate: &Rate) {
        let (before, unit) = (self.unit.max(1), window_micros(rate));
        if before != unit {
            let (calls, rest) = (self.credit / before, self.credit % before);
            self.credit = calls
                .saturating_mul(unit)
                .saturating_add(rest.saturating_mul(unit) / before);
            self.unit = unit;
        }
    }

    fn refill(&mut self, rate: &Rate, tick: Duration, now: Timestamp) {
        let full = LATE_TICKS_MAX * tick;
        let elapsed = self.refilled.map_or(full, |then| now.since(then).min(full));
        // One call on top, or a rate of less than one a tick would lose the fraction that is left of every tick.
        let cap = worth(rate, elapsed.max(tick)) + window_micros(rate);
        self.credit = (self.credit + worth(rate, elapsed)).min(cap);
        self.refilled = Some(now);
    }
}

/// What `span` earns, in units of `1 / window` of a call.
fn worth(rate: &Rate, span: Duration) -> u128 {
    u128::from(rate.count.get()) * span.as_micros()
}

fn window_micros(rate: &Rate) -> u128 {
    rate.window.as_micros().max(1)
}

/// The first moment after the cell of `now`.
fn cell_end(rate: &Rate, now: Timestamp) -> Timestamp {
    let micros = u64::try_from(rate.window.as_micros()).unwrap_or(u64::MAX);
    let width = (micros / u64::from(CELLS_PER_WINDOW)).max(1);
    Timestamp::from_micros((now.as_micros() / width + 1).saturating_mul(width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICK: Duration = Duration::from_millis(200);

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    /// Calls all it may at each of `moments`, in microseconds after a start.
    fn greedy(rate: &Rate, moments: &[u64]) -> Vec<(Timestamp, u64)> {
        let mut admission = Admission::default();
        let mut calls = Vec::new();
        for &moment in moments {
            let now = Timestamp::from_secs(1_000_000) + Duration::from_micros(moment);
            let free = admission.free(rate, TICK, now);
            admission.spend(rate, free, now);
            calls.push((now, free));
        }
        calls
    }

    fn worst_window(rate: &Rate, calls: &[(Timestamp, u64)]) -> u64 {
        let ends = calls.iter().map(|(end, _)| *end);
        ends.map(|end| {
            let inside = calls
                .iter()
                .filter(|(at, _)| *at <= end && end.since(*at) < rate.window);
            inside.map(|(_, n)| n).sum()
        })
        .max()
        .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn no_trailing_window_holds_more_than_the_count(
            count in 1u64..5_000,
            window_ms in 1u64..5_000,
            gaps in prop::collection::vec(0u64..700_000, 1..200),
        ) {
            let rate = Rate { count: count.try_into().unwrap(), window: Duration::from_millis(window_ms) };
            let moments: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            prop_assert!(worst_window(&rate, &greedy(&rate, &moments)) <= count);
        }
    }

    #[test]
    fn a_driver_that_heeds_the_reopening_loses_at_most_a_hundredth() {
        for text in ["1000/s", "10/s", "600/min", "20/50ms", "7/3s"] {
            let rate = rate(text);
            let mut admission = Admission::default();
            let start = Timestamp::from_secs(1_000_000);
            let end = start + 20 * rate.window.max(Duration::from_secs(1));
            let (mut now, mut called) = (start, 0);
            while now < end {
                let free = admission.free(&rate, TICK, now);
                admission.spend(&rate, free, now);
                called += free;
                let next = now + TICK;
                now = admission
                    .window_reopens(&rate)
                    .map_or(next, |at| at.min(next))
                    .max(now + Duration::from_millis(1));
            }
            let fair = rate.per_second() * end.since(start).as_secs_f64();
            assert!(called as f64 >= 0.97 * fair, "{text}: {called} of {fair}");
        }
    }

    #[test]
    fn a_rate_with_a_shorter_window_is_used_up_from_now_on() {
        for (before, after) in [("10000/day", "50/s"), ("36000/h", "50/s"), ("600/min", "40/2s")] {
            let (before, after) = (rate(before), rate(after));
            let mut admission = Admission::default();
            let mut now = Timestamp::from_secs(1_000_000);
            for _ in 0..50 {
                let free = admission.free(&before, TICK, now);
                admission.spend(&before, free, now);
                now = now + TICK;
            }
            let changed = now;
            let mut calls = Vec::new();
            while now < changed + Duration::from_secs(10) {
                let free = admission.free(&after, TICK, now);
                admission.spend(&after, free, now);
                calls.push((now, free));
                let reopens = admission.window_reopens(&after);
                now = reopens.map_or(now + TICK, |at| at.min(now + TICK).max(now + Duration::from_millis(1)));
            }
            let called: u64 = calls.iter().map(|(_, n)| n).sum();
            assert!(
                called as f64 >= 9.0 * after.per_second(),
                "{before}, then {after}: {called}"
            );
            assert!(worst_window(&after, &calls) <= after.count.get());
        }
    }

    #[test]
    fn a_rate_allows_the_same_however_its_window_is_written() {
        for (before, after) in [("1000/s", "60000/min"), ("60000/min", "1000/s"), ("7/s", "25200/h")] {
            let (before, after) = (rate(before), rate(after));
            for late in (0..40).map(|step| Duration::from_millis(10 * step)) {
                let now = Timestamp::from_secs(1_000_000);
                let mut admission = Admission::default();
                admission.spend(&before, 1, now);
                admission.free(&before, TICK, now);
                let mut other = admission.clone();
                let free = admission.free(&before, TICK, now + late);
                assert_eq!(other.free(&after, TICK, now + late), free, "{before}, then {after}");
            }
        }
    }

    #[test]
    fn a_window_is_spent_evenly() {
        let moments: Vec<u64> = (0..50).map(|tick| tick * 200_000).collect();
        for (_, calls) in greedy(&rate("600/min"), &moments).into_iter().skip(1) {
            assert!(calls <= 2, "{calls}");
        }
        let idle_then_rush = greedy(&rate("1000/s"), &[0, 60_000_000]);
        assert!(
            idle_then_rush[1].1 <= 400,
            "a long idle room lets two ticks' worth in at once"
        );
    }

    #[test]
    fn a_rate_below_one_a_tick_still_admits() {
        let moments: Vec<u64> = (0..100).map(|tick| tick * 200_000).collect();
        let total: u64 = greedy(&rate("1/s"), &moments).iter().map(|(_, n)| n).sum();
        assert!((16..=20).contains(&total), "{total}");
    }

    #[test]
    fn memory_is_bounded_by_the_cells() {
        let mut admission = Admission::default();
        let rate = rate("1000000/s");
        for step in 0..100_000u64 {
            let now = Timestamp::from_micros(1_000_000_000 + step * 100);
            let free = admission.free(&rate, TICK, now).min(1);
            admission.spend(&rate, free, now);
            assert!(admission.cells.len() <= CELLS_PER_WINDOW as usize + 1);
        }
    }
}
