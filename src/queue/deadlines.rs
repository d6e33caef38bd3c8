//! Deadlines that mostly move before they come: a heap that is corrected only when it is asked.
//!
//! A heartbeat moves a deadline, and a room of a million visitors has thousands of heartbeats a second. So a
//! heartbeat writes one field, and the heap is told only when the old deadline comes up and proves too early.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::clock::Timestamp;

/// Stale entries that are put up with before the heap is built anew.
const STALE_MAX: usize = 1_024;

/// When to look at which number again.
#[derive(Debug, Clone, Default)]
pub(super) struct Deadlines(BinaryHeap<Reverse<(Timestamp, u64)>>);

impl Deadlines {
    /// Look at `number` once `at` has come.
    pub(super) fn push(&mut self, at: Timestamp, number: u64) {
        self.0.push(Reverse((at, number)));
    }

    /// The next number whose moment has come, with that moment.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<(Timestamp, u64)> {
        let Reverse((at, _)) = self.0.peek()?;
        if *at > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }

    /// Whether so many entries belong to numbers that are gone that it pays to build the heap anew. The cost is
    /// spread over the entries that became stale, and memory stays within twice what is `alive`.
    pub(super) fn are_stale(&self, alive: usize) -> bool {
        self.0.len() > 2 * alive + STALE_MAX
    }

    /// Starts over with these.
    pub(super) fn rebuild(&mut self, entries: impl Iterator<Item = (Timestamp, u64)>) {
        self.0 = entries.map(Reverse).collect();
    }
}
