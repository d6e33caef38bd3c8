//! The time of day, which somebody may set while the process runs.
//!
//! A machine may start before its clock is set, and one that was suspended wakes up late: the steady clock knows of
//! neither. What people wrote down as a time of day (an opening, the end of a link) and what they read as one (the lines
//! of a log) follows the machine's clock instead, if it is set forward. Set back it is not followed: what ended has ended.
//! What is measured (limits, deadlines) stays with the steady clock, and never jumps.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Clock, Timestamp, machine_time};

/// By how much the machine's clock must be ahead to be followed. Less is the oscillator's, and adjusted by and by.
const FOLLOWED_FROM: Duration = Duration::from_secs(1);

/// The steady clock, and how far the machine's has left it behind.
pub struct WallClock {
    steady: Arc<dyn Clock>,
    machine: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Microseconds. It never shrinks.
    ahead: AtomicU64,
}

impl WallClock {
    /// Shows what `steady` does until it is told to [`Self::follow`].
    pub fn beside(steady: Arc<dyn Clock>) -> Arc<Self> {
        Self::of(steady, machine_time)
    }

    /// The same with another word for what the machine's clock shows, so that a test can set it.
    pub fn of(steady: Arc<dyn Clock>, machine: impl Fn() -> Timestamp + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            steady,
            machine: Box::new(machine),
            ahead: AtomicU64::new(0),
        })
    }

    /// Looks at the machine's clock; by how much time has jumped forward, if it has.
    pub fn follow(&self) -> Option<Duration> {
        let lead = (self.machine)().since(self.steady.now());
        let followed = Duration::from_micros(self.ahead.load(Ordering::Acquire));
        (lead >= followed + FOLLOWED_FROM).then(|| {
            self.ahead.fetch_max(lead.as_micros() as u64, Ordering::AcqRel);
            lead - followed
        })
    }

    /// What this clock showed, or would have, when the steady one showed `moment`.
    pub fn at(&self, moment: Timestamp) -> Timestamp {
        moment + Duration::from_micros(self.ahead.load(Ordering::Acquire))
    }
}

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        self.at(self.steady.now())
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WallClock")
            .field("ahead", &self.ahead)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ManualClock;
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    /// A wall clock, the steady one, and the machine's, which a test sets.
    fn clocks() -> (Arc<WallClock>, Arc<ManualClock>, Arc<AtomicU64>) {
        let steady = ManualClock::at(START);
        let machine = Arc::new(AtomicU64::new(START.as_micros()));
        let read = Arc::clone(&machine);
        let told = move || Timestamp::from_micros(read.load(Ordering::SeqCst));
        (WallClock::of(Arc::<ManualClock>::clone(&steady), told), steady, machine)
    }

    #[test]
    fn a_clock_that_is_set_forward_is_followed_once() {
        let (wall, steady, machine) = clocks();
        assert_eq!((wall.follow(), wall.now()), (None, START));
        machine.store((START + HOUR).as_micros(), Ordering::SeqCst);
        assert_eq!(wall.now(), START, "nobody has looked");
        assert_eq!(wall.follow(), Some(HOUR));
        assert_eq!((wall.follow(), wall.now()), (None, START + HOUR));
        steady.advance(HOUR);
        assert_eq!(wall.now(), START + 2 * HOUR);
        assert_eq!(wall.at(START), START + HOUR);
    }

    #[test]
    fn time_never_goes_back_and_small_steps_are_left_alone() {
        let (wall, steady, machine) = clocks();
        let just_less = FOLLOWED_FROM - Duration::from_micros(1);
        for set in [START - HOUR, START + just_less] {
            machine.store(set.as_micros(), Ordering::SeqCst);
            assert_eq!((wall.follow(), wall.now()), (None, START));
        }
        machine.store((START + HOUR).as_micros(), Ordering::SeqCst);
        assert_eq!(wall.follow(), Some(HOUR));
        machine.store(START.as_micros(), Ordering::SeqCst);
        steady.advance(Duration::from_secs(1));
        assert_eq!(
            (wall.follow(), wall.now()),
            (None, START + HOUR + Duration::from_secs(1))
        );
    }
}
