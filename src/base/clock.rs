//! The one file that reads a clock. Everything else is told what time it is.
#![expect(clippy::disallowed_methods, reason = "this is the file that the rule points to")]

mod wall;

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use self::wall::WallClock;

/// A moment, in whole microseconds since the Unix epoch.
///
/// Microseconds as an integer stay below 2^53 until the year 2255, so the same number is exact in a script of
/// the store, where every number is a double.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The moment `secs` seconds after the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1_000_000)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long ago `earlier` was; zero when it lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A span in whole microseconds; half a million years and more read as the most that there are.
pub const fn micros(span: Duration) -> u64 {
    let micros = span.as_micros();
    if micros > u64::MAX as u128 {
        u64::MAX
    } else {
        micros as u64
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }
}

/// Who tells the time. The process has one; tests and simulations bring a [`ManualClock`].
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present moment. Never earlier than an earlier answer.
    fn now(&self) -> Timestamp;
}

/// The machine's clock: the wall clock at start, carried on by the monotonic one.
///
/// A wall clock that is set back an hour would hold every window open for an hour. This one cannot step: it
/// follows the monotonic clock. So it keeps, until a restart, the error that the wall clock had at the start, and what a
/// suspended machine slept; [`WallClock`] is for where that matters.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    epoch: Timestamp,
}

impl SystemClock {
    /// Reads the wall clock once; a machine set before 1970 starts at the epoch.
    pub fn start() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            epoch: machine_time(),
        })
    }
}

/// What the machine's clock shows now, whoever may have set it.
fn machine_time() -> Timestamp {
    Timestamp::default() + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.started.elapsed()
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows `at`.
    pub fn at(at: Timestamp) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(at.as_micros())))
    }

    /// Moves the hands forward by `span`.
    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(span.as_micros() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Tokio's paused clock, carried on from a moment: time passes when everyone waits.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct VirtualClock {
    started: tokio::time::Instant,
    epoch: Timestamp,
}

#[cfg(test)]
impl VirtualClock {
    pub(crate) fn from(epoch: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            started: tokio::time::Instant::now(),
            epoch,
        })
    }
}

#[cfg(test)]
impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.started.elapsed()
    }
}
