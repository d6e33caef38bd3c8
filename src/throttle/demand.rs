//! How much of a pooled key is wanted at this gateway, and so how much to ask for.
//!
//! What was wanted since the last turn says how a key fares now, and little about one that is asked for a few times in a
//! life of budget. So there is also a mean over some lives, which ends in steps as a key goes quiet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::clock::Timestamp;

/// A key that had no turn for so long is as hot as what was asked for since, and no longer as it was before.
const LATELY_OVER: Duration = Duration::from_secs(1);

/// The mean is over so many times what is looked ahead while much remains.
pub(super) const USUAL_OVER: u32 = 4;

/// Many requests in a very short while say little about the next turn: at most so many times as many are expected.
const SURGE: u64 = 16;

/// Budget is kept for a key of which so many thousandths of a request are expected while it lasts.
const WORTH_KEEPING: u64 = 250;

/// Beyond what is expected, so many times its standard deviation if requests come by chance.
const DEVIATIONS: u64 = 2;

/// How much was wanted, admitted or not.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// Since the last turn.
    wanted: AtomicU64,
    since: AtomicU64,
    /// In a second, as of the last turn.
    lately: AtomicU64,
    /// In a thousand seconds, on average.
    usual: AtomicU64,
}

/// What a gateway goes by when it asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlook {
    /// How long what is asked for is to last.
    pub(super) ahead: Duration,
    /// What is usual is the mean over so long, however short `ahead` is just now.
    pub(super) usual_over: Duration,
    /// Most to ask for where no more is wanted now, and most in any case.
    pub(super) most: u64,
    pub(super) capacity: u64,
    /// What may be held for requests that perhaps come; `None` where only those count that came.
    pub(super) stock: Option<Stock>,
}

/// Budget that is held ahead of requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stock {
    /// At most so much beyond what is expected by the requests that came since the last turn.
    pub(super) margin: u64,
    /// Only of keys of which more than this is wanted in a thousand seconds.
    pub(super) above: u64,
}

impl Demand {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            since: AtomicU64::new(now.as_micros()),
            ..Self::default()
        }
    }

    /// A request wants so much.
    pub(super) fn note(&self, cost: u64) {
        self.wanted.fetch_add(cost, Ordering::Relaxed);
    }

    /// How much to have, and begins to count anew.
    pub(super) fn expect(&self, outlook: &Outlook, now: Timestamp) -> u64 {
        let since = self.since.swap(now.as_micros(), Ordering::Relaxed);
        let wanted = self.wanted.swap(0, Ordering::Relaxed);
        let (past, ahead) = (now.as_micros().saturating_sub(since).max(1), micros(outlook.ahead));
        self.lately.store(rate(wanted, past, 1), Ordering::Relaxed);
        let usual = self.blend(wanted, past, micros(outlook.usual_over));
        let going_on = (u128::from(wanted) * u128::from(ahead)).div_ceil(u128::from(past)) as u64;
        let expected = going_on.min(wanted.saturating_mul(SURGE)).max(wanted);
        let kept = outlook.stock.map_or(0, |stock| stock.keep(expected, usual, ahead));
        expected.max(kept).min(outlook.most).max(wanted).min(outlook.capacity)
    }

    fn blend(&self, wanted: u64, past: u64, over: u64) -> u64 {
        let all = past.saturating_add(over);
        let before = u128::from(self.usual.load(Ordering::Relaxed)) * u128::from(over) / u128::from(all);
        let usual = (before as u64).saturating_add(rate(wanted, all, 1_000));
        self.usual.store(usual, Ordering::Relaxed);
        usual
    }

    /// What was wanted in a second, as of the last turn.
    pub(super) fn lately(&self) -> u64 {
        self.lately.load(Ordering::Relaxed)
    }

    /// What is wanted in a second: since the last turn if that was a while ago, else until then.
    pub(super) fn per_second(&self, now: Timestamp) -> u64 {
        let since = now.since(Timestamp::from_micros(self.since.load(Ordering::Relaxed)));
        if since < LATELY_OVER {
            return self.lately();
        }
        rate(self.wanted.load(Ordering::Relaxed), micros(since), 1)
    }
}

impl Stock {
    /// How much of a key to have in stock of which so much is expected by what was wanted just now, and so much is usual.
    fn keep(&self, expected: u64, usual: u64, ahead: u64) -> u64 {
        let thousandths = (u128::from(usual) * u128::from(ahead) / 1_000_000) as u64;
        if usual <= self.above || thousandths < WORTH_KEEPING {
            return 0;
        }
        let likely = expected.max(thousandths.div_ceil(1_000));
        expected + (likely - expected + DEVIATIONS * likely.isqrt()).min(self.margin)
    }
}

const fn micros(span: Duration) -> u64 {
    span.as_micros() as u64
}

/// So many in so many microseconds, for each of so many seconds.
const fn rate(count: u64, past: u64, seconds: u64) -> u64 {
    let past = if past == 0 { 1 } else { past };
    (count as u128 * seconds as u128 * 1_000_000 / past as u128) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn outlook(stock: Option<Stock>) -> Outlook {
        Outlook {
            ahead: Duration::from_secs(1),
            usual_over: Duration::from_secs(4),
            most: 500,
            capacity: 1_000,
            stock,
        }
    }

    fn keeping() -> Outlook {
        outlook(Some(Stock { margin: 100, above: 0 }))
    }

    /// Expectations of a demand that had so many requests in each of these seconds.
    fn expectations(outlook: &Outlook, seconds: &[u64]) -> Vec<u64> {
        let demand = Demand::new(Timestamp::default());
        let each = |(number, wanted): (usize, &u64)| {
            demand.note(*wanted);
            demand.expect(outlook, Timestamp::from_micros((number as u64 + 1) * SECOND))
        };
        seconds.iter().enumerate().map(each).collect()
    }

    #[test]
    fn without_a_stock_what_came_is_what_is_expected() {
        assert_eq!(expectations(&outlook(None), &[5, 0, 7, 2]), [5, 0, 7, 2]);
    }

    #[test]
    fn a_stock_outlasts_a_pause_and_ends_when_a_key_goes_quiet() {
        let mut seconds = vec![4; 20];
        seconds.extend([0; 20]);
        let expected = expectations(&keeping(), &seconds);
        assert_eq!(expected[19], 8, "four and twice its root");
        assert_eq!(expected[20], 8, "it may only have paused");
        assert_eq!(expected[39], 0, "nobody comes any more");
        assert!(expected[20..].is_sorted_by(|a, b| a >= b), "{expected:?}");
    }

    #[test]
    fn a_key_that_is_seldom_asked_for_is_not_kept() {
        let mut seconds = vec![0; 20];
        seconds[0] = 1;
        assert_eq!(expectations(&keeping(), &seconds)[5..], [0; 15]);
        let above = Stock {
            margin: 100,
            above: 5_000,
        };
        assert_eq!(expectations(&outlook(Some(above)), &[4, 4, 0]), [4, 4, 0]);
    }

    #[test]
    fn a_surge_counts_a_few_times_at_most() {
        let demand = Demand::new(Timestamp::default());
        demand.note(3);
        assert_eq!(demand.expect(&outlook(None), Timestamp::from_micros(10)), 3 * SURGE);
        demand.note(100);
        assert_eq!(
            demand.expect(&outlook(None), Timestamp::from_micros(20)),
            500,
            "half of what remains"
        );
        demand.note(900);
        assert_eq!(
            demand.expect(&outlook(None), Timestamp::from_micros(30)),
            900,
            "they are there"
        );
        demand.note(2_000);
        assert_eq!(demand.expect(&outlook(None), Timestamp::from_micros(40)), 1_000);
    }

    #[test]
    fn what_is_usual_is_the_same_mean_however_little_remains() {
        let scarce = Outlook {
            ahead: Duration::from_millis(12),
            ..outlook(None)
        };
        let demand = Demand::new(Timestamp::default());
        demand.note(10);
        demand.expect(&scarce, Timestamp::from_micros(10_000));
        let kept = demand.expect(&keeping(), Timestamp::from_micros(20_000));
        assert!(
            kept <= 6,
            "ten in four seconds are no two and a half a hundredth of a second: {kept}"
        );
    }

    #[test]
    fn what_one_gateway_may_hold_in_vain_is_bounded() {
        let stock = Stock { margin: 3, above: 0 };
        let mut seconds = vec![40; 20];
        seconds.push(0);
        let expected = expectations(&outlook(Some(stock)), &seconds);
        assert_eq!(expected[19..], [43, 3]);
    }

    #[test]
    fn what_is_wanted_in_a_second_is_told_from_before_or_since_the_last_turn() {
        let demand = Demand::new(Timestamp::default());
        demand.note(10);
        demand.expect(&outlook(None), Timestamp::from_micros(SECOND / 2));
        assert_eq!(demand.per_second(Timestamp::from_micros(SECOND)), 20);
        assert_eq!(demand.per_second(Timestamp::from_micros(3 * SECOND)), 0);
    }
}
