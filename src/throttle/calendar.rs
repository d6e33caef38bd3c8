//! Windows that are days or months of a calendar. The gateway knows the calendar; the store is told the dates around
//! the present and compares them with its own time, so that it needs no time zones.

use std::hash::Hasher;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};
use siphasher::sip::SipHasher13;

use crate::base::clock::Timestamp;
use crate::limiter::window::{Dates, Window};

/// Which windows a calendar has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// From midnight to midnight: 23 to 25 hours where clocks are changed.
    Day,
    /// From the first of a month to the first of the next: 28 to 31 days.
    Month,
}

/// Days or months somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    zone: TimeZone,
    period: Period,
}

impl Calendar {
    /// The calendar of a time zone.
    pub const fn new(zone: TimeZone, period: Period) -> Self {
        Self { zone, period }
    }

    /// The windows around `now`. Beyond the calendar (year 9999) they are as long as they are at most.
    pub fn window(&self, now: Timestamp) -> Window {
        self.dates(now).map_or(
            Window::new(match self.period {
                Period::Day => Duration::from_secs(86_400),
                Period::Month => Duration::from_secs(31 * 86_400),
            }),
            Window::Calendar,
        )
    }

    fn dates(&self, now: Timestamp) -> Option<Dates> {
        let moment = jiff::Timestamp::from_microsecond(i64::try_from(now.as_micros()).ok()?).ok()?;
        let today = self.zone.to_datetime(moment).date();
        let (first, step) = match self.period {
            Period::Day => (today, 1.day()),
            Period::Month => (today.first_of_month(), 1.month()),
        };
        let dates = [
            first.checked_sub(step).ok()?,
            first,
            first.checked_add(step).ok()?,
            first.checked_add(step * 2).ok()?,
        ];
        let mut starts = [Timestamp::default(); 4];
        for (start, date) in starts.iter_mut().zip(dates) {
            *start = self.midnight(date)?;
        }
        let index = self.number(first)?;
        let zone = self.zone_number();
        Some(Dates { index, starts, zone })
    }

    fn zone_number(&self) -> u32 {
        let mut hasher = SipHasher13::new();
        hasher.write(self.zone.iana_name().unwrap_or_default().as_bytes());
        hasher.finish() as u32
    }

    /// When a date begins: midnight, or the first moment after it where that is left out.
    fn midnight(&self, date: Date) -> Option<Timestamp> {
        let moment = self.zone.to_zoned(date.at(0, 0, 0, 0)).ok()?.timestamp();
        Some(Timestamp::from_micros(
            u64::try_from(moment.as_microsecond()).unwrap_or(0),
        ))
    }

    /// Days or months since 1970, counted from 1.
    fn number(&self, first: Date) -> Option<u64> {
        let number = match self.period {
            Period::Day => {
                let since: SignedDuration = first.duration_since(Date::constant(1970, 1, 1));
                since.as_hours() / 24
            }
            Period::Month => (i64::from(first.year()) - 1970) * 12 + i64::from(first.month()) - 1,
        };
        u64::try_from(number + 1).ok().filter(|number| *number > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limiter::terms::{Algorithm, Terms};
    use proptest::prelude::*;

    fn calendar(zone: &str, period: Period) -> Calendar {
        Calendar::new(TimeZone::get(zone).unwrap(), period)
    }

    fn at(text: &str) -> Timestamp {
        let moment: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_micros(moment.as_microsecond() as u64)
    }

    #[test]
    fn a_day_in_seoul_begins_at_three_in_the_afternoon_of_utc() {
        let seoul = calendar("Asia/Seoul", Period::Day);
        let now = at("2026-11-21T14:59:59Z");
        let window = seoul.window(now);
        assert_eq!(window.end(now), at("2026-11-21T15:00:00Z"));
        assert_eq!(window.start(window.index(now)), at("2026-11-20T15:00:00Z"));
        assert_eq!(window.index(at("2026-11-21T15:00:00Z")), window.index(now) + 1);
    }

    #[test]
    fn days_of_two_zones_are_not_counted_as_one() {
        let shape = |zone| {
            let terms = Terms {
                allows: 5,
                window: calendar(zone, Period::Day).window(at("2026-11-21T14:59:59Z")),
                algorithm: Algorithm::FixedWindow,
            };
            terms.shape()
        };
        assert_ne!(shape("Asia/Seoul"), shape("Asia/Tokyo"), "at the same moments for now");
        assert_eq!(shape("Asia/Seoul"), "fixed-day-2f32d965", "at every gateway");
    }

    #[test]
    fn the_day_on_which_clocks_are_changed_has_23_or_25_hours() {
        for (noon, hours) in [
            ("2026-03-29T12:00:00Z", 23),
            ("2026-10-25T12:00:00Z", 25),
            ("2026-10-26T12:00:00Z", 24),
        ] {
            let window = calendar("Europe/Berlin", Period::Day).window(at(noon));
            assert_eq!(window.length(), Duration::from_secs(hours * 3_600), "{noon}");
        }
    }

    #[test]
    fn a_month_ends_where_the_next_begins_leap_years_included() {
        let seoul = calendar("Asia/Seoul", Period::Month);
        for (now, days) in [
            ("2028-02-10T00:00:00Z", 29),
            ("2026-02-10T00:00:00Z", 28),
            ("2026-12-31T23:00:00Z", 31),
        ] {
            let window = seoul.window(at(now));
            assert_eq!(window.length(), Duration::from_secs(days * 86_400), "{now}");
        }
        let (december, january) = (at("2026-12-31T14:59:59Z"), at("2026-12-31T15:00:00Z"));
        assert_eq!(
            seoul.window(december).index(december) + 1,
            seoul.window(january).index(january)
        );
    }

    #[test]
    fn a_midnight_that_is_left_out_is_the_first_moment_after_it() {
        // In Beirut clocks went from 0:00 to 1:00 on 2022-03-27.
        let now = at("2022-03-26T22:30:00Z");
        let window = calendar("Asia/Beirut", Period::Day).window(now);
        assert_eq!(window.start(window.index(now)), at("2022-03-26T22:00:00Z"));
        assert_eq!(window.length(), Duration::from_secs(23 * 3_600));
    }

    proptest! {
        /// Whoever made the dates, and whenever: about the windows that two tables both have they agree.
        #[test]
        fn neighbouring_dates_agree(
            secs in 86_400u64 * 40..4_000_000_000,
            later in 0u64..86_400 * 31,
            zone in proptest::sample::select(vec!["UTC", "Asia/Seoul", "America/New_York", "Australia/Lord_Howe"]),
            period in proptest::sample::select(vec![Period::Day, Period::Month]),
        ) {
            let calendar = calendar(zone, period);
            let now = Timestamp::from_secs(secs);
            let one = calendar.window(now);
            let next = calendar.window(one.end(now));
            let index = one.index(now);
            prop_assert!(one.start(index) <= now && now < one.end(now));
            prop_assert_eq!(next.index(now), index);
            for index in index..=index + 2 {
                prop_assert_eq!(one.start(index), next.start(index));
            }
            let after = Timestamp::from_secs(secs + later);
            if after < one.start(index + 2) {
                prop_assert_eq!(one.index(after), calendar.window(after).index(after));
            }
        }
    }
}
