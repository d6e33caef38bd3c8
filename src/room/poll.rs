//! When a visitor who waits is told to ask again.
//!
//! Seldom, far from the front: what they would hear is hardly news, and there are many of them. Near the front, and
//! wherever the queue moves fast, so that nobody hears of the call long after it was made: until then the slot is
//! taken and nobody is inside. So where the wait is known, a visitor is told to come back within the later half of
//! it, and halves what is left each time.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::mix::mix;
use crate::queue::turn::Counts;

/// Polls are spread so: a visitor with so many more ahead asks so much later. With 10,000 waiting and none moving
/// that makes some 440 polls a second.
const PER_AHEAD: Duration = Duration::from_millis(15);

/// Nobody is asked to poll more often.
pub(super) const POLL_MIN: Duration = Duration::from_secs(1);

/// Nobody is asked to poll less often.
pub(super) const POLL_MAX: Duration = Duration::from_secs(60);

/// A place survives so many missed polls.
pub(super) const POLLS_PER_ABANDON: u32 = 4;

/// When to ask next: later the further back, and before the call where it is known when that comes. Never aligned with
/// the neighbours, and always several times before the place would be given up.
pub(super) fn next_poll(
    number: u64,
    ahead: u64,
    expected: Option<Duration>,
    abandon_after: Duration,
    now: Timestamp,
) -> Duration {
    let by_distance = PER_AHEAD.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX));
    let most = POLL_MAX.min(abandon_after / POLLS_PER_ABANDON);
    let known = expected.filter(|wait| *wait <= by_distance);
    let base = known.unwrap_or(by_distance).clamp(POLL_MIN.min(most), most);
    // In thousandths of it: before what must not be missed, or around it.
    let least = if known.is_some() { 500 } else { 750 };
    let spread = u32::try_from(mix(number ^ now.as_micros()) % 501).unwrap_or(0);
    base * (least + spread) / 1_000
}

/// How long until a visitor with so many ahead is called by a room that has not opened yet; none where that depends on
/// when others leave.
pub(super) fn until_called(ahead: u64, open: Timestamp, counts: &Counts, now: Timestamp) -> Option<Duration> {
    let taken = counts.called + counts.inside;
    let fits = counts
        .visitors
        .is_none_or(|visitors| taken.saturating_add(ahead) < visitors);
    let by_rate = counts.admit.map_or(0.0, |rate| {
        rate.window.as_secs_f64() * ahead as f64 / rate.count.get() as f64
    });
    let by_rate = Duration::try_from_secs_f64(by_rate).unwrap_or(Duration::MAX);
    fits.then(|| open.since(now).saturating_add(by_rate))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::num::NonZeroU64;

    use super::*;
    use crate::base::rate::Rate;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);
    const ABANDON: Duration = Duration::from_secs(300);

    #[test]
    fn polls_are_spread_and_bounded_and_always_several_within_the_time_a_place_is_kept() {
        for abandon_secs in [3, 60, 300, 3_600] {
            let abandon_after = Duration::from_secs(abandon_secs);
            for ahead in [0, 10, 1_000, 100_000, u64::MAX] {
                for expected in [None, Some(Duration::ZERO), Some(ABANDON), Some(Duration::MAX)] {
                    let poll = next_poll(ahead, ahead, expected, abandon_after, START);
                    assert!(poll <= POLL_MAX * 5 / 4 && poll * 3 < abandon_after, "{poll:?}");
                    assert!(poll >= POLL_MIN.min(abandon_after / 4) / 2, "{poll:?}");
                }
            }
        }
        let per_second = |ahead| 1.0 / next_poll(ahead, ahead, None, ABANDON, START).as_secs_f64();
        let polls_per_second: f64 = (0..10_000).map(per_second).sum();
        assert!(polls_per_second < 500.0, "{polls_per_second}");
        let spread: HashSet<_> = (0..100).map(|n| next_poll(n, 5_000, None, ABANDON, START)).collect();
        assert!(spread.len() > 50);
        let again = next_poll(9, 9_000, None, ABANDON, START);
        assert_eq!(next_poll(9, 9_000, None, ABANDON, START), again);
    }

    /// A room that opens in half a minute and calls 1,000 a second: how late visitors hear of it, and how often they ask.
    #[test]
    fn who_is_called_hears_of_it_within_a_second_and_asks_a_few_times_more() {
        const RATE: u64 = 1_000;
        let open = START + Duration::from_secs(30);
        let counts = Counts {
            admit: NonZeroU64::new(RATE).map(|count| Rate {
                count,
                window: Duration::from_secs(1),
            }),
            ..Counts::default()
        };
        let (mut late, mut polls, mut visitors) = (Duration::ZERO, 0, 0);
        for number in (1..100_000_u64).step_by(97) {
            let called = open + Duration::from_millis(number);
            let mut now = START;
            while now < called {
                let gone = now.since(open).as_millis() as u64;
                let ahead = number - gone - 1;
                let expected = match now < open {
                    true => until_called(ahead, open, &counts, now),
                    false => Some(Duration::from_millis(ahead)),
                };
                now = now + next_poll(number, ahead, expected, ABANDON, now);
                polls += 1;
            }
            assert!(now.since(called) <= POLL_MIN, "{number}: {:?}", now.since(called));
            late += now.since(called);
            visitors += 1;
        }
        assert!(late / visitors < Duration::from_millis(600), "{:?}", late / visitors);
        assert!(polls / visitors < 12, "{}", polls / visitors);
    }

    #[test]
    fn before_an_opening_nobody_is_promised_a_slot_that_is_taken() {
        let counts = Counts {
            visitors: Some(100),
            inside: 40,
            called: 10,
            ..Counts::default()
        };
        let open = START + Duration::from_secs(30);
        let promised = |ahead| until_called(ahead, open, &counts, START);
        assert_eq!(promised(49), Some(Duration::from_secs(30)));
        assert_eq!((promised(50), promised(u64::MAX)), (None, None));
    }
}
