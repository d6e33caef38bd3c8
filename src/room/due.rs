//! When visitors were told to ask again, so that those who ask sooner are known. A table of a fixed size, in which
//! numbers that are far apart share a slot: the later takes it over. So somebody may go unnoticed in a very long queue;
//! nobody is taken for early who is not.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::base::clock::Timestamp;

/// Slots, of 8 bytes. Numbers that wait are neighbours, so this many wait without sharing any.
const SLOTS: usize = 65_536;

/// Bits of a slot that say when, in milliseconds: they last for 34 years. The rest tell whose it is.
const TIME_BITS: u32 = 40;

/// Who comes within the last quarter of the time is not early: clocks differ, and timers are coarse.
const MARGIN_PART: u32 = 4;

/// When each is due.
pub(super) struct Due(Box<[AtomicU64]>);

impl Due {
    pub(super) fn new() -> Self {
        Self((0..SLOTS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether `number` asks before it was told to, by more than the margin. If not, it is now told to come again in
    /// `next`.
    pub(super) fn is_early(&self, number: u64, next: Duration, now: Timestamp) -> bool {
        let slots = SLOTS as u64;
        let slot = &self.0[(number % slots) as usize];
        let whose = (number / slots) << TIME_BITS;
        let mask = (1 << TIME_BITS) - 1;
        let now_ms = (now.as_micros() / 1_000) & mask;
        let held = slot.load(Ordering::Relaxed);
        if held & !mask == whose && now_ms < held & mask {
            return true;
        }
        let margin = next / MARGIN_PART;
        let due = now_ms + u64::try_from((next - margin).as_millis()).unwrap_or(0);
        slot.store(whose | (due & mask), Ordering::Relaxed);
        false
    }
}

impl fmt::Debug for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Due").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);
    const NEXT: Duration = Duration::from_secs(8);

    #[test]
    fn who_asks_in_time_is_never_early_and_who_hurries_is() {
        let due = Due::new();
        let after = |secs: u64| START + Duration::from_secs(secs);
        assert!(!due.is_early(7, NEXT, START));
        assert!(due.is_early(7, NEXT, START), "again at once");
        assert!(due.is_early(7, NEXT, after(5)));
        assert!(!due.is_early(7, NEXT, after(6)), "within the margin");
        assert!(due.is_early(7, NEXT, after(11)), "and that was told anew");
        assert!(!due.is_early(7, NEXT, after(14)));
    }

    #[test]
    fn who_hurries_all_the_time_is_heard_as_often_as_others() {
        let due = Due::new();
        let tenths = (0..3_000).map(|tenth| START + tenth * Duration::from_millis(100));
        let heard = tenths.filter(|now| !due.is_early(7, NEXT, *now)).count();
        assert_eq!(heard, 300 / 6, "every six of three hundred seconds");
    }

    #[test]
    fn those_who_share_a_slot_are_not_taken_for_each_other() {
        let due = Due::new();
        let other = 7 + SLOTS as u64;
        assert!(!due.is_early(7, NEXT, START));
        assert!(!due.is_early(other, NEXT, START));
        assert!(!due.is_early(7, NEXT, START), "it lost its slot");
        let neighbours = (0..SLOTS as u64).filter(|number| due.is_early(SLOTS as u64 * 3 + number, NEXT, START));
        assert_eq!(neighbours.count(), 0);
    }
}
