//! How a limit counts, as operators write it, and which of it goes together.

use std::num::NonZeroU64;
use std::time::Duration;

use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::clock::micros;
use crate::base::misfit::Misfit;
use crate::base::rate::{Quota, RATE_COUNT_MAX, Rate};
use crate::limiter::ratio;
use crate::limiter::terms;
use crate::throttle::{Calendar, Counting, Patience, Period};

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Algorithm {
    /// This window's count, and of the one before it the share that still overlaps the trailing window. With `slices`,
    /// whole slices of the trailing window instead.
    #[default]
    SlidingWindow,
    /// This window's count alone: it starts afresh with every window.
    FixedWindow,
    /// The trailing window exactly. Costs the store more than the others.
    SlidingLog,
    /// A bucket of `burst` tokens that fills at the limit's rate; a request takes one.
    TokenBucket,
    /// Requests are held and let go at the limit's rate, evenly to a tenth of a second; as many as `burst` may wait, and
    /// who finds the bucket full is refused.
    LeakyBucket,
}

/// Whose days or months windows are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CalendarConfig {
    /// A time zone of the IANA database, as `Asia/Seoul` or `UTC`.
    pub zone: String,
}

/// All that is written about how a limit counts.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) algorithm: Algorithm,
    pub(super) burst: Option<u64>,
    pub(super) slices: Option<u64>,
    pub(super) calendar: Option<CalendarConfig>,
    /// What requests cost is known only afterwards.
    pub(super) debits: bool,
}

/// Slices of a sliding window.
const SLICES: std::ops::RangeInclusive<u64> = 2..=64;

/// A bucket fills in at most so long: a year, and a month to be generous.
const FILL_MAX: Duration = Duration::from_secs(400 * 86_400);

/// A request waits in a leaky bucket for at most so long.
const LEAK_MAX: Duration = Duration::from_secs(300);

/// Most requests that one gateway holds in the leaky buckets of a limit, of all keys. Each keeps its connection.
const HELD_MAX: usize = 10_000;

/// How evenly a leaky bucket lets go: what the rate brings in so long may go at once, and one always may. Gateways and
/// store talk no more often than some twenty times a second, so a finer grain would let less go than the rate.
const DRIP: Duration = Duration::from_millis(100);

/// A calendar's day, as it is written in a rate.
const DAY: Duration = Duration::from_secs(86_400);

impl Written {
    /// What runs, or everything that does not go together.
    pub(super) fn build(&self, quota: Quota) -> Result<Counting, Vec<Misfit>> {
        let faults = [
            self.check_burst(quota),
            self.check_leak(quota),
            self.check_slices(),
            self.check_month(quota),
        ];
        let mut misfits: Vec<Misfit> = faults.into_iter().flatten().collect();
        let calendar = self.calendar(quota).unwrap_or_else(|misfit| {
            misfits.push(misfit);
            None
        });
        if misfits.is_empty() {
            let algorithm = self.algorithm(quota);
            Ok(Counting {
                algorithm,
                calendar,
                debits: self.debits,
            })
        } else {
            Err(misfits)
        }
    }

    fn algorithm(&self, quota: Quota) -> terms::Algorithm {
        let burst = self.burst.unwrap_or(quota.rate.count.get());
        match (self.algorithm, self.slices) {
            (Algorithm::SlidingWindow, None) => terms::Algorithm::SlidingWindow,
            (Algorithm::SlidingWindow, Some(slices)) => terms::Algorithm::Slices(slices),
            (Algorithm::FixedWindow, _) => terms::Algorithm::FixedWindow,
            (Algorithm::SlidingLog, _) => terms::Algorithm::SlidingLog,
            (Algorithm::TokenBucket, _) => terms::Algorithm::TokenBucket { burst },
            (Algorithm::LeakyBucket, _) => {
                let burst = ratio::ceil(quota.rate.count.get(), micros(DRIP), micros(quota.rate.window));
                terms::Algorithm::TokenBucket { burst: burst.max(1) }
            }
        }
    }

    /// How requests wait, if it is the algorithm that makes them: in the time in which a full bucket runs empty, and a
    /// little longer, so that the last of them is not refused for the time that the store takes.
    pub(super) fn patience(&self, quota: Quota) -> Option<Patience> {
        let leaky = self.algorithm == Algorithm::LeakyBucket;
        let half_a_request = Duration::from_micros(micros(quota.rate.window) / quota.rate.count.get() / 2);
        leaky.then(|| Patience {
            within: self.runs_empty_in(quota) + half_a_request + DRIP,
            queue: HELD_MAX,
        })
    }

    /// What clients are told that they may have, and in how long all of it again: of a bucket, what it holds and how
    /// long it takes to fill. Of one that leaks that is how many may wait.
    pub(super) fn told(&self, quota: Quota) -> Rate {
        let bucket = matches!(self.algorithm, Algorithm::TokenBucket | Algorithm::LeakyBucket);
        match self.burst.and_then(NonZeroU64::new) {
            Some(count) if bucket => Rate {
                count,
                window: self.runs_empty_in(quota),
            },
            _ => quota.rate,
        }
    }

    fn runs_empty_in(&self, quota: Quota) -> Duration {
        let burst = self.burst.unwrap_or(quota.rate.count.get());
        Duration::from_micros(ratio::ceil(burst, micros(quota.rate.window), quota.rate.count.get()))
    }

    fn check_leak(&self, quota: Quota) -> Option<Misfit> {
        let waits = self.algorithm == Algorithm::LeakyBucket && self.runs_empty_in(quota) > LEAK_MAX;
        let message = || {
            format!(
                "the last of so many would wait longer than 5min at `{}`; say with `burst` how many may wait, or raise \
                 the limit",
                quota.rate
            )
        };
        waits.then(|| Misfit::new(message()).under("burst"))
    }

    fn check_burst(&self, quota: Quota) -> Option<Misfit> {
        let burst = self.burst?;
        let misfit = |message: String| Some(Misfit::new(message).under("burst"));
        if !matches!(self.algorithm, Algorithm::TokenBucket | Algorithm::LeakyBucket) {
            return misfit("only buckets have a burst; add `algorithm: token_bucket`, or leave `burst` out".to_owned());
        }
        if !(1..=RATE_COUNT_MAX).contains(&burst) {
            return misfit(format!("write 1 to {RATE_COUNT_MAX}"));
        }
        let fills_in = ratio::ceil(burst, micros(quota.rate.window), quota.rate.count.get());
        if fills_in > micros(FILL_MAX) {
            return misfit(format!(
                "a bucket of {burst} would need more than 400 days to fill at `{}`; lower it, or raise the limit",
                quota.rate
            ));
        }
        None
    }

    fn check_slices(&self) -> Option<Misfit> {
        let slices = self.slices?;
        let (least, most) = SLICES.into_inner();
        let message = if self.algorithm != Algorithm::SlidingWindow {
            "only `algorithm: sliding_window` has slices; leave `slices` out".to_owned()
        } else if self.calendar.is_some() {
            "days and months of a calendar are not cut into slices; leave `slices` out, or `calendar`".to_owned()
        } else if SLICES.contains(&slices) {
            return None;
        } else {
            format!("write {least} to {most}")
        };
        Some(Misfit::new(message).under("slices"))
    }

    fn check_month(&self, quota: Quota) -> Option<Misfit> {
        let message = "how long a month is depends on the calendar: add `calendar: { zone: UTC }` (or your zone), or write \
                       days, as in `30d`";
        (quota.month && self.calendar.is_none()).then(|| Misfit::new(message).under("limit"))
    }

    fn calendar(&self, quota: Quota) -> Result<Option<Calendar>, Misfit> {
        let Some(CalendarConfig { zone }) = &self.calendar else {
            return Ok(None);
        };
        if !matches!(self.algorithm, Algorithm::FixedWindow | Algorithm::SlidingWindow) {
            let message =
                "only `fixed_window` and `sliding_window` count by calendar; choose one, or leave `calendar` out";
            return Err(Misfit::new(message).under("calendar"));
        }
        let period = match (quota.month, quota.rate.window) {
            (true, _) => Period::Month,
            (false, DAY) => Period::Day,
            (false, _) => {
                let message = format!(
                    "a calendar has days and months: write `{0}/day` or `{0}/month`, or leave `calendar` out",
                    quota.rate.count
                );
                return Err(Misfit::new(message).under("limit"));
            }
        };
        let zone = TimeZone::get(zone).map_err(|_| {
            let message = format!("`{zone}` is no time zone of the IANA database; write one as `Asia/Seoul` or `UTC`");
            Misfit::new(message).under("zone").under("calendar")
        })?;
        Ok(Some(Calendar::new(zone, period)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(algorithm: Algorithm) -> Written {
        Written {
            algorithm,
            burst: None,
            slices: None,
            calendar: None,
            debits: false,
        }
    }

    fn zone(name: &str) -> Option<CalendarConfig> {
        Some(CalendarConfig { zone: name.to_owned() })
    }

    fn build(written: &Written, limit: &str) -> Result<Counting, String> {
        let built = written.build(limit.parse().unwrap());
        built.map_err(|misfits| {
            let shown = misfits.iter().map(|misfit| format!("{:?}: {misfit}", misfit.path));
            shown.collect::<Vec<_>>().join("\n")
        })
    }

    #[test]
    fn a_bucket_bursts_by_the_limit_unless_told_otherwise() {
        let bucket = written(Algorithm::TokenBucket);
        let of = |written: &Written| build(written, "100/min").unwrap().algorithm;
        assert_eq!(of(&bucket), terms::Algorithm::TokenBucket { burst: 100 });
        let bucket = Written {
            burst: Some(7),
            ..bucket
        };
        assert_eq!(of(&bucket), terms::Algorithm::TokenBucket { burst: 7 });
    }

    #[test]
    fn what_does_not_go_together_is_refused_where_it_stands() {
        let sliding = || written(Algorithm::SlidingWindow);
        let with_burst = |algorithm, burst| Written {
            burst: Some(burst),
            ..written(algorithm)
        };
        let with_slices = |algorithm, slices| Written {
            slices: Some(slices),
            ..written(algorithm)
        };
        let with_zone = |algorithm, name| Written {
            calendar: zone(name),
            ..written(algorithm)
        };
        let both = Written {
            slices: Some(4),
            calendar: zone("UTC"),
            ..sliding()
        };
        for (written, limit, place, why) in [
            (with_burst(Algorithm::FixedWindow, 5), "5/s", "burst", "token_bucket"),
            (with_burst(Algorithm::TokenBucket, 0), "5/s", "burst", "1 to"),
            (with_burst(Algorithm::TokenBucket, 10_000), "1/h", "burst", "400 days"),
            (with_burst(Algorithm::LeakyBucket, 301), "1/s", "burst", "5min"),
            (written(Algorithm::LeakyBucket), "5/h", "burst", "5min"),
            (with_slices(Algorithm::SlidingLog, 5), "5/s", "slices", "sliding_window"),
            (with_slices(Algorithm::SlidingWindow, 1), "5/s", "slices", "2 to 64"),
            (with_slices(Algorithm::SlidingWindow, 65), "5/s", "slices", "2 to 64"),
            (both, "5/day", "slices", "calendar"),
            (
                with_zone(Algorithm::SlidingLog, "UTC"),
                "5/day",
                "calendar",
                "fixed_window",
            ),
            (
                with_zone(Algorithm::TokenBucket, "UTC"),
                "5/day",
                "calendar",
                "fixed_window",
            ),
            (with_zone(Algorithm::FixedWindow, "UTC"), "5/h", "limit", "5/day"),
            (
                with_zone(Algorithm::FixedWindow, "Asia/Soul"),
                "5/day",
                "zone",
                "Asia/Soul",
            ),
            (sliding(), "5/month", "limit", "30d"),
        ] {
            let fault = build(&written, limit).unwrap_err();
            assert!(fault.contains(place) && fault.contains(why), "{written:?}: {fault}");
        }
    }

    #[test]
    fn a_leaky_bucket_drips_and_holds_as_long_as_it_takes_to_run_empty() {
        for (limit, burst, drip, millis) in [("5/s", 20, 1, 4_200), ("100/s", 40, 10, 505), ("20/2s", 7, 1, 850)] {
            let written = Written {
                burst: Some(burst),
                ..written(Algorithm::LeakyBucket)
            };
            let expected = terms::Algorithm::TokenBucket { burst: drip };
            assert_eq!(build(&written, limit).unwrap().algorithm, expected, "{limit}");
            let patience = written.patience(limit.parse().unwrap()).unwrap();
            assert_eq!(patience.within, Duration::from_millis(millis), "{limit}");
        }
    }

    #[test]
    fn clients_are_told_what_a_bucket_holds_and_how_long_it_takes_to_fill() {
        for (algorithm, limit, burst, told) in [
            (Algorithm::TokenBucket, "100/s", Some(500), "500/5s"),
            (Algorithm::TokenBucket, "100/min", None, "100/min"),
            (Algorithm::LeakyBucket, "5/s", Some(20), "20/4s"),
            (Algorithm::SlidingWindow, "5/s", None, "5/s"),
        ] {
            let written = Written {
                burst,
                ..written(algorithm)
            };
            assert_eq!(written.told(limit.parse().unwrap()), told.parse().unwrap());
        }
    }

    #[test]
    fn days_and_months_are_those_of_the_zone() {
        let seoul = TimeZone::get("Asia/Seoul").unwrap();
        for (limit, period) in [
            ("5/day", Period::Day),
            ("5/1d", Period::Day),
            ("5/month", Period::Month),
        ] {
            let written = Written {
                calendar: zone("Asia/Seoul"),
                ..written(Algorithm::FixedWindow)
            };
            let expected = Some(Calendar::new(seoul.clone(), period));
            assert_eq!(build(&written, limit).unwrap().calendar, expected);
        }
    }
}
