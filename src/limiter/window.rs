//! The sliding window of two counters: what was counted in this window, and of the one before it as much as the
//! trailing window still covers. (Cloudflare's approximation: it takes the window before as evenly filled, so an
//! adversary who knows the edges can get up to twice the limit into one trailing window, but never more than the
//! limit into an aligned one.)

use std::time::Duration;

use super::ratio;
use crate::base::clock::{Timestamp, micros};

/// Windows one after the other, numbered from the epoch, the same for everyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Window `i` is from `i` to `i + 1` lengths after the epoch. In microseconds, at least 1.
    Aligned(u64),
    /// Windows between dates of a calendar, as far as they are needed around the present.
    Calendar(Dates),
}

/// The beginnings of four windows in a row, so that nobody who counts by them has to know a calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dates {
    /// The number of the second of them, at least 1: the one that counts now.
    pub index: u64,
    /// When each begins; strictly ascending.
    pub starts: [Timestamp; 4],
    /// Whose dates they are: a number for each time zone, the same at all gateways.
    pub zone: u32,
}

impl Window {
    /// Windows of this length; at least a microsecond.
    pub fn new(length: Duration) -> Self {
        Self::aligned(micros(length))
    }

    /// Windows of so many microseconds; at least one.
    pub fn aligned(micros: u64) -> Self {
        Self::Aligned(micros.max(1))
    }

    /// Which window a moment lies in.
    pub fn index(self, now: Timestamp) -> u64 {
        match self {
            Self::Aligned(length) => now.as_micros() / length,
            Self::Calendar(dates) => {
                let begun = dates.starts.iter().filter(|start| **start <= now).count() as u64;
                (dates.index + begun).saturating_sub(2).max(dates.index - 1)
            }
        }
    }

    /// When a window begins. Beyond the dates it is as if all were as long as the nearest that is known.
    pub fn start(self, index: u64) -> Timestamp {
        match self {
            Self::Aligned(length) => Timestamp::from_micros(index.saturating_mul(length)),
            Self::Calendar(dates) => {
                let [first, second, third, last] = dates.starts;
                match (index + 1).checked_sub(dates.index) {
                    Some(known @ 0..=3) => dates.starts[known as usize],
                    Some(beyond) => last + last.since(third).saturating_mul((beyond - 3) as u32),
                    None => first - second.since(first).saturating_mul((dates.index - 1 - index) as u32),
                }
            }
        }
    }

    /// When the window that `now` lies in ends.
    pub fn end(self, now: Timestamp) -> Timestamp {
        self.start(self.index(now) + 1)
    }

    /// The length of the window that counts now.
    pub fn length(self) -> Duration {
        match self {
            Self::Aligned(length) => Duration::from_micros(length),
            Self::Calendar(dates) => dates.starts[2].since(dates.starts[1]),
        }
    }

    /// How much of the window of `now` is left, and how long it is.
    fn left(self, now: Timestamp) -> (u64, u64) {
        match self {
            Self::Aligned(length) => (length - now.as_micros() % length, length),
            Self::Calendar(_) => {
                let (start, end) = (self.start(self.index(now)), self.end(now));
                let length = micros(end.since(start)).max(1);
                (micros(end.since(now)).clamp(1, length), length)
            }
        }
    }

    /// What `count` of the window before still weighs at `now`, rounded up.
    fn carried(self, count: u64, now: Timestamp) -> u64 {
        let (left, length) = self.left(now);
        ratio::ceil(count, left, length)
    }

    /// Between `before` at the start of a window and `after` at its end, in a straight line, rounded down.
    pub fn blend(self, before: u64, after: u64, now: Timestamp) -> u64 {
        let (left, length) = self.left(now);
        let weighed = u128::from(before) * u128::from(left) + u128::from(after) * u128::from(length - left);
        (weighed / u128::from(length)) as u64
    }

    /// How long after the start of a window of this length `count` of the window before weighs at most `room`.
    fn until_carried(length: u64, count: u64, room: u64) -> u64 {
        if count <= room {
            return 0;
        }
        length - ratio::floor(room, length, count)
    }
}

/// What one key used in a window and in the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// The later of the two windows.
    pub index: u64,
    /// Used in the window before it.
    pub prev: u64,
    /// Used in it.
    pub cur: u64,
}

impl Counts {
    /// The same use, seen from window `index`. What lies further back is forgotten; time does not run backwards.
    #[must_use]
    pub const fn turned_to(self, index: u64) -> Self {
        match index.saturating_sub(self.index) {
            0 => self,
            1 => Self {
                index,
                prev: self.cur,
                cur: 0,
            },
            _ => Self { index, prev: 0, cur: 0 },
        }
    }

    /// The same for a clock that was set back: what was counted in a window that is far ahead counts in `index`, or it
    /// would count until that window comes.
    #[must_use]
    pub const fn set_back_to(self, index: u64) -> Self {
        if self.index > index + 1 {
            Self { index, ..self }
        } else {
            self
        }
    }

    /// What is left of these counts without `other`, window by window.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        let other = other.turned_to(self.index);
        Self {
            index: self.index,
            prev: self.prev.saturating_sub(other.prev),
            cur: self.cur.saturating_sub(other.cur),
        }
    }

    /// These and `other` together, seen from the later window.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        let index = if self.index > other.index {
            self.index
        } else {
            other.index
        };
        let (one, other) = (self.turned_to(index), other.turned_to(index));
        Self {
            index,
            prev: one.prev.saturating_add(other.prev),
            cur: one.cur.saturating_add(other.cur),
        }
    }

    /// Use in the trailing window that ends at `now`.
    pub fn used(self, window: Window, now: Timestamp) -> u64 {
        let at = self.turned_to(window.index(now));
        at.cur.saturating_add(window.carried(at.prev, now))
    }

    /// How long from `now` until `cost` more fits under `limit`, if nobody else uses any. None: it never will.
    pub fn wait(self, window: Window, limit: u64, cost: u64, now: Timestamp) -> Option<Duration> {
        let at = self.turned_to(window.index(now));
        let room = limit.checked_sub(cost)?;
        let (left, length) = window.left(now);
        let in_this = room.checked_sub(at.cur);
        let micros = match in_this {
            Some(room) => Window::until_carried(length, at.prev, room).saturating_sub(length - left),
            None => {
                let (_, next) = window.left(window.end(now));
                left + Window::until_carried(next, at.cur, room)
            }
        };
        Some(Duration::from_micros(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Window = Window::Aligned(1_000_000);

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn the_window_before_fades_as_this_one_goes_by() {
        let counts = Counts {
            index: 0,
            prev: 0,
            cur: 100,
        };
        assert_eq!(counts.used(SECOND, at(999_999)), 100);
        assert_eq!(counts.used(SECOND, at(1_000_000)), 100);
        assert_eq!(counts.used(SECOND, at(1_500_000)), 50);
        assert_eq!(counts.used(SECOND, at(1_999_999)), 1);
        assert_eq!(counts.used(SECOND, at(2_000_000)), 0);
    }

    #[test]
    fn what_exceeds_the_limit_by_itself_never_fits() {
        assert_eq!(Counts::default().wait(SECOND, 5, 6, at(0)), None);
        assert_eq!(Counts::default().wait(SECOND, 5, 5, at(0)), Some(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn the_wait_ends_exactly_when_there_is_room(
            prev in 0u64..2_000, cur in 0u64..2_000, limit in 1u64..2_000, cost in 1u64..50, offset in 0u64..1_000_000,
        ) {
            let now = at(7_000_000 + offset);
            let counts = Counts { index: 7, prev, cur };
            let Some(wait) = counts.wait(SECOND, limit, cost, now) else {
                prop_assert!(cost > limit);
                return Ok(());
            };
            prop_assert!(counts.used(SECOND, now + wait) + cost <= limit);
            if wait > Duration::ZERO {
                let just_before = now + (wait - Duration::from_micros(1));
                prop_assert!(counts.used(SECOND, just_before) + cost > limit);
            }
        }

        #[test]
        fn use_never_grows_by_waiting(prev in 0u64..2_000, cur in 0u64..2_000, a in 0u64..3_000_000, b in 0u64..3_000_000) {
            let counts = Counts { index: 0, prev, cur };
            let (early, late) = (a.min(b), a.max(b));
            prop_assert!(counts.used(SECOND, at(late)) <= counts.used(SECOND, at(early)));
        }
    }
}
