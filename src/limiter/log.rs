//! A trailing window, entry by entry: how much was used, and as of when. Use counts until its entry is a whole span old.
//!
//! An entry is never before the spending that it stands for, so no trailing span gets more than is counted in it. Time
//! is told apart by cells: what falls into one cell is one entry, as of the last moment in it, so a key has at most
//! one entry a cell. The log of `sliding_log` has [`LOG_CELLS`]; with `slices: k` a cell is a slice, an entry is as of
//! its slice's end, and so the count is of `k + 1` whole slices.
//!
//! [`LOG_CELLS`]: super::terms::LOG_CELLS

use std::collections::VecDeque;
use std::time::Duration;

use super::terms::{Algorithm, Terms};
use crate::base::clock::Timestamp;

/// What one key used, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// Moments in microseconds, each in a cell of its own, and what was used.
    entries: VecDeque<(u64, u64)>,
    sum: u64,
}

impl Log {
    /// Drops what is a whole span old.
    pub fn turn(&mut self, terms: &Terms, now: Timestamp) {
        let span = terms.span();
        let ahead = self
            .entries
            .back()
            .map_or(0, |(at, _)| at.saturating_sub(now.as_micros()));
        if ahead > span {
            // The clock was set back: entries go with it, each in a cell of its own as before.
            let back = ahead.div_ceil(terms.cell()) * terms.cell();
            self.entries
                .iter_mut()
                .for_each(|(at, _)| *at = at.saturating_sub(back));
        }
        while let Some((at, used)) = self.entries.front().copied() {
            if at + span > now.as_micros() {
                return;
            }
            self.entries.pop_front();
            self.sum -= used;
        }
    }

    /// Enters use, as of a moment at or after the spending.
    pub fn enter(&mut self, used: u64, at: Timestamp, terms: &Terms) {
        if used == 0 {
            return;
        }
        let cell = terms.cell();
        let of = |micros: u64| micros.div_ceil(cell);
        let at = match terms.algorithm {
            Algorithm::Slices(_) => of(at.as_micros()) * cell,
            _ => at.as_micros(),
        };
        self.sum += used;
        let place = self.entries.iter().rposition(|(other, _)| of(*other) <= of(at));
        match place {
            Some(found) if of(self.entries[found].0) == of(at) => {
                let entry = &mut self.entries[found];
                *entry = (entry.0.max(at), entry.1 + used);
            }
            Some(before) => self.entries.insert(before + 1, (at, used)),
            None => self.entries.push_front((at, used)),
        }
    }

    /// Takes back use that was entered as of `lot`: from the entry of its cell. If that is gone, nothing is taken back.
    pub fn give_back(&mut self, lot: u64, unspent: u64, terms: &Terms) {
        let of = |micros: u64| micros.div_ceil(terms.cell());
        if let Some(entry) = self.entries.iter_mut().find(|(at, _)| of(*at) == of(lot)) {
            let less = unspent.min(entry.1);
            entry.1 -= less;
            self.sum -= less;
        }
    }

    /// What counts now; after [`Log::turn`].
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// How long from `now` until at most `room` counts, if nobody uses any.
    pub fn until(&self, room: u64, terms: &Terms, now: Timestamp) -> Duration {
        let mut sum = self.sum;
        let mut until = now;
        for (at, used) in &self.entries {
            if sum <= room {
                break;
            }
            sum -= used;
            until = Timestamp::from_micros(at + terms.span());
        }
        until.since(now)
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
