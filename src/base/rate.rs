//! Rates as operators write them: `100/s`, `100/min`, `1000/h`, `5/day`, `20/5s`.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use super::unit::{self, Size};

/// So many in so long a window. Both are at least 1 (the window: one millisecond, and at most 400 days).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU64,
    /// In how long.
    pub window: Duration,
}

/// Largest count of a rate: far above any gateway's throughput, and small enough that sums never overflow.
pub const RATE_COUNT_MAX: u64 = 1_000_000_000_000;

impl Rate {
    /// The rate per second.
    pub fn per_second(&self) -> f64 {
        self.count.get() as f64 / self.window.as_secs_f64()
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a rate: write a count, `/`, and a window, as in `100/s`, `100/min`, `5/day` or `20/5s`"
            )
        };
        let (count, window) = text.split_once('/').ok_or_else(wrong)?;
        let count: u64 = count.trim().parse().map_err(|_| wrong())?;
        let count = NonZeroU64::new(count)
            .filter(|count| count.get() <= RATE_COUNT_MAX)
            .ok_or_else(|| format!("`{text}`: the count must be between 1 and {RATE_COUNT_MAX}"))?;
        let window = window.trim();
        let window = if window.starts_with(|c: char| c.is_ascii_digit()) {
            unit::parse_duration(window)
        } else {
            unit::parse_duration(&format!("1{window}"))
        }
        .map_err(|_| wrong())?;
        let longest = Duration::from_secs(400 * 86_400);
        if window < Duration::from_millis(1) || window > longest {
            return Err(format!("`{text}`: the window must be between 1ms and 400 days"));
        }
        Ok(Self { count, window })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, unit::display_duration(self.window))
    }
}

/// What a limit allows: so many requests, or so many bytes, in so long: `100/s`, `10MiB/s`, `1000/month`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many, in how long.
    pub rate: Rate,
    /// Of what.
    pub unit: Unit,
    /// It was written `/month`: how long that is depends on a calendar. The rate has the longest.
    pub month: bool,
}

/// No month is longer.
const MONTH: &str = "31d";

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Requests, or what they cost.
    Requests,
    /// Bytes.
    Bytes,
}

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let monthly = text.trim_end().strip_suffix("month").map(str::trim_end);
        let monthly = monthly
            .filter(|text| text.ends_with('/'))
            .map(|text| format!("{text}{MONTH}"));
        let month = monthly.is_some();
        let text = monthly.as_deref().unwrap_or(text);
        let size = text.split_once('/').and_then(|(count, window)| {
            let Size(bytes) = count.parse().ok()?;
            Some(format!("{bytes}/{window}"))
        });
        let (rate, unit) = match &size {
            Some(bytes) => (bytes.as_str(), Unit::Bytes),
            None => (text, Unit::Requests),
        };
        let rate = rate.parse()?;
        Ok(Self { rate, unit, month })
    }
}

unit::text_type!(
    Quota,
    "Quota",
    r"^\s*[0-9]+\s*(B|KiB|MiB|GiB|kB|KB|MB|GB)?\s*/\s*([0-9]+)?\s*(ms|s|sec|second|min|minute|m|h|hour|d|day|month)s?\s*$"
);

unit::text_type!(
    Rate,
    "Rate",
    r"^\s*[0-9]+\s*/\s*([0-9]+)?\s*(ms|s|sec|second|min|minute|m|h|hour|d|day)s?\s*$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_rate_of_requests_or_of_bytes() {
        let read = |text: &str| text.parse::<Quota>().map(|quota| (quota.rate.to_string(), quota.unit));
        assert_eq!(read("100/min"), Ok(("100/min".to_owned(), Unit::Requests)));
        assert_eq!(read("10MiB/s"), Ok(("10485760/s".to_owned(), Unit::Bytes)));
        assert_eq!(read(" 5 kB / 20s"), Ok(("5000/20s".to_owned(), Unit::Bytes)));
        let month: Quota = "5/month".parse().unwrap();
        assert_eq!((month.rate.to_string().as_str(), month.month), ("5/31day", true));
        assert!(!"5/31d".parse::<Quota>().unwrap().month);
        for wrong in [
            "5/2month",
            "5month",
            "",
            "10MiB",
            "MiB/s",
            "10miB/s",
            "0B/s",
            "10TiB/s",
            "99999999999GiB/s",
            "5/fortnight",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(
            "10MiB/s".parse::<Rate>().is_err(),
            "whoever counts no bytes is not told of any"
        );
    }
}
