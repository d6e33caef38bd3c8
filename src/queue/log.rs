//! What happened in a room, turn by turn, so that gateways can follow its order without asking about anyone.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::clock::Timestamp;

/// Most turns a log remembers. A gateway that missed more gets a snapshot.
const LOG_CHANGES_MAX: usize = 2_048;

/// Most numbers named in a log, over all its turns.
const LOG_NUMBERS_MAX: usize = 262_144;

/// Changes that a log skips when it forgets: more than were ever written after what somebody else remembers.
const SEQUENCE_JUMP: u64 = 1 << 32;

/// What one turn changed. A turn that changed nothing leaves no entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// When, by the store's clock.
    pub at: Timestamp,
    /// The last number given, after the turn.
    pub last: u64,
    /// The last rank called, after the turn.
    pub frontier: u64,
    /// How many were called.
    pub called: u64,
    /// Numbers that gave their place up, or lost it, before they entered.
    pub left: Vec<u64>,
    /// Numbers that were called and did not come in time.
    pub unclaimed: Vec<u64>,
    /// Numbers that entered.
    pub entered: Vec<u64>,
    /// Numbers whose pass was given back, or ran out.
    pub ended: Vec<u64>,
    /// Numbers that were given to people of an earlier life: they wait, between others.
    pub returned: Vec<u64>,
}

impl Change {
    /// How many numbers are named.
    pub(super) fn numbers(&self) -> usize {
        self.left.len() + self.unclaimed.len() + self.entered.len() + self.ended.len() + self.returned.len()
    }
}

/// How far a gateway has followed a room's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The life of the queue that was followed; 0 before the first turn.
    pub epoch: u64,
    /// Changes followed.
    pub sequence: u64,
}

/// The last changes of a room, bounded in turns and in numbers.
#[derive(Debug, Clone, Default)]
pub struct Log {
    changes: VecDeque<Arc<Change>>,
    numbers: usize,
    /// Changes ever written.
    sequence: u64,
}

impl Log {
    /// Writes one more change, forgetting the oldest where there is no room.
    pub fn push(&mut self, change: Change) {
        self.numbers += change.numbers();
        self.changes.push_back(Arc::new(change));
        self.sequence += 1;
        while self.changes.len() > LOG_CHANGES_MAX || (self.numbers > LOG_NUMBERS_MAX && self.changes.len() > 1) {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.numbers -= oldest.numbers();
        }
    }

    /// Changes ever written.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Takes `sequence` for written, if it is beyond what is.
    pub(super) fn skip_to(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// Forgets all, so that nobody can follow: whoever did starts over.
    pub fn forget(&mut self) {
        self.changes.clear();
        self.numbers = 0;
        self.sequence += 1;
    }

    /// Forgets all, and goes on far beyond what anybody may have followed elsewhere.
    pub(super) fn start_over(&mut self) {
        self.forget();
        self.sequence += SEQUENCE_JUMP;
    }

    /// The changes after `sequence`; none when some of them have been forgotten.
    pub fn since(&self, sequence: u64) -> Option<Vec<Arc<Change>>> {
        let missed = usize::try_from(self.sequence.checked_sub(sequence)?).ok()?;
        let known = self.changes.len().checked_sub(missed)?;
        Some(self.changes.iter().skip(known).cloned().collect())
    }
}

/// A room's whole order, for a gateway that cannot follow the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The last number given.
    pub last: u64,
    /// The last number called.
    pub frontier: u64,
    /// Numbers waiting, ascending.
    pub waiting: Vec<u64>,
    /// Numbers called and not yet inside.
    pub called: Vec<u64>,
    /// Numbers inside.
    pub inside: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_fell_behind_is_told_so() {
        let mut log = Log::default();
        for number in 1..=LOG_CHANGES_MAX as u64 + 5 {
            log.push(Change {
                left: vec![number],
                ..Change::default()
            });
        }
        assert!(log.since(4).is_none());
        assert_eq!(log.since(5).map(|changes| changes.len()), Some(LOG_CHANGES_MAX));
        assert_eq!(log.since(log.sequence()).map(|changes| changes.len()), Some(0));
        assert!(log.since(log.sequence() + 1).is_none(), "a reader from another life");
    }

    #[test]
    fn numbers_bound_the_log_as_well_as_turns() {
        let mut log = Log::default();
        for _ in 0..10 {
            log.push(Change {
                ended: (0..LOG_NUMBERS_MAX as u64 / 2).collect(),
                ..Change::default()
            });
        }
        assert!(log.numbers <= LOG_NUMBERS_MAX);
        assert!(log.since(7).is_none() && log.since(8).is_some());
    }
}
