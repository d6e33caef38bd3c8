//! What the store knows of one key's use, whatever the algorithm: the one place where they part.

use std::time::Duration;

use super::bucket::Bucket;
use super::log::Log;
use super::share::{Shares, remaining};
use super::terms::{Algorithm, Terms};
use super::window::Counts;
use crate::base::clock::Timestamp;

/// More than this part of what may come at once is much; less is better not held by one gateway for long.
const MUCH_OF_CAPACITY: u64 = 8;

/// What must be kept back for gateways that have not said what they used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserve {
    /// What they may have used by now, as a sliding window weighs it.
    blended: u64,
    /// The same rounded up, gateway by gateway: what is granted on the strength of it has to hold when the shares
    /// have grown by the fraction.
    kept: u64,
    /// Their shares, all together.
    shares: Shares,
}

impl Reserve {
    /// With another silent gateway.
    #[must_use]
    pub fn with(self, shares: Shares, terms: &Terms, now: Timestamp) -> Self {
        Self {
            blended: self.blended + shares.blended(terms.window, now),
            kept: self.kept + shares.reserve(terms.window, now).0,
            shares: self.shares.plus(shares),
        }
    }
}

/// Under which terms, when, and before which reserve use is judged.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The terms.
    pub terms: Terms,
    /// The moment.
    pub now: Timestamp,
    /// What is kept back.
    pub silent: Reserve,
    /// Since when the same gateways have had shares, if that is known.
    pub same_since: Option<Timestamp>,
}

/// What one key used, as its algorithm counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Usage {
    /// By window.
    Windows(Counts),
    /// Entry by entry.
    Log(Log),
    /// As tokens that are missing.
    Bucket(Bucket),
}

impl Usage {
    /// Of a key that nobody has reported yet. The one who is about to has left so much of its share of the frame before
    /// `unused`.
    pub fn fresh(view: &View, unused: u64) -> Self {
        match view.terms.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => Self::Windows(Counts::default()),
            Algorithm::Slices(_) | Algorithm::SlidingLog => Self::Log(Log::default()),
            Algorithm::TokenBucket { .. } => {
                Self::Bucket(Bucket::fresh(&view.terms, view.silent.shares, unused, view.now))
            }
        }
    }

    /// Carries on to the moment of the view. Everything else is asked after this. If the clock was set back by more than
    /// a frame, what was counted counts as if it had just happened.
    pub fn turn(&mut self, view: &View) {
        match self {
            Self::Windows(counts) => {
                let index = view.terms.window.index(view.now);
                *counts = counts.turned_to(index).set_back_to(index);
            }
            Self::Log(log) => log.turn(&view.terms, view.now),
            Self::Bucket(bucket) => bucket.turn(&view.terms, view.silent.shares, view.same_since, view.now),
        }
    }

    /// A gateway says what it used, in frames, and gives up its `shares`; they are nothing if it had done so before.
    pub fn report(&mut self, own: Counts, shares: Shares, view: &View) {
        let frames = view.terms.frames();
        let own = own.turned_to(frames.index(view.now));
        match self {
            Self::Windows(counts) => {
                counts.prev += own.prev;
                counts.cur += own.cur;
            }
            Self::Log(log) => {
                log.enter(own.prev, frames.start(own.index).min(view.now), &view.terms);
                log.enter(own.cur, view.now, &view.terms);
            }
            Self::Bucket(bucket) => bucket.report(own, shares),
        }
    }

    /// Counts what was admitted ahead of any grant.
    pub fn overdraw(&mut self, overdraft: u64, view: &View) {
        match self {
            Self::Windows(counts) => counts.cur += overdraft,
            Self::Log(log) => log.enter(overdraft, view.now, &view.terms),
            Self::Bucket(bucket) => bucket.take(overdraft),
        }
    }

    /// Takes back what was granted as of `lot` and not spent.
    pub fn give_back(&mut self, lot: u64, unspent: u64, view: &View) {
        match self {
            Self::Windows(counts) => {
                let index = view.terms.window.index(view.now);
                if lot == index {
                    counts.cur = counts.cur.saturating_sub(unspent);
                } else if lot + 1 == index {
                    counts.prev = counts.prev.saturating_sub(unspent);
                }
            }
            Self::Log(log) => log.give_back(lot, unspent, &view.terms),
            Self::Bucket(bucket) => bucket.give_back(lot, unspent, &view.terms, view.now),
        }
    }

    /// What may be granted now.
    pub fn left(&self, view: &View) -> u64 {
        let View { terms, now, silent, .. } = view;
        match self {
            Self::Windows(counts) if terms.algorithm == Algorithm::FixedWindow => {
                terms.allows.saturating_sub(counts.cur + silent.shares.cur)
            }
            Self::Windows(counts) => {
                let reserve = (silent.kept, silent.shares.cur);
                remaining(terms.allows, *counts, reserve, terms.window, *now)
            }
            Self::Log(log) => terms.allows.saturating_sub(log.sum() + log_reserve(silent.shares)),
            Self::Bucket(bucket) => bucket.left(terms, silent.shares, *now),
        }
    }

    /// Whether no more than `most` was counted in this window and the one before together. What does not count by windows
    /// cannot tell, and says no.
    pub fn is_within(&self, most: u64) -> bool {
        matches!(self, Self::Windows(counts) if counts.prev + counts.cur <= most)
    }

    /// For how many frames more than this one it matters what was counted, beyond those that always do.
    pub fn owed_frames(&self, view: &View) -> u64 {
        match self {
            Self::Windows(_) | Self::Log(_) => 0,
            Self::Bucket(bucket) => bucket.owed_frames(&view.terms),
        }
    }

    /// Counts a grant, of at most what is left, and tells until when it may be spent.
    pub fn grant(&mut self, granted: u64, left: u64, view: &View) -> Timestamp {
        let rest = left.saturating_sub(granted);
        let much_remains = rest > granted && rest > view.terms.capacity() / MUCH_OF_CAPACITY;
        let valid_until = view.terms.valid_until(much_remains, view.now);
        match self {
            Self::Windows(counts) => counts.cur += granted,
            Self::Log(log) => log.enter(granted, valid_until, &view.terms),
            Self::Bucket(bucket) => bucket.take(granted),
        }
        valid_until
    }

    /// How long until one more would be granted, as far as is known now.
    pub fn wait(&self, view: &View) -> Duration {
        let View { terms, now, silent, .. } = view;
        let frame_ends = || terms.frames().end(*now).since(*now);
        match self {
            Self::Windows(counts) if terms.algorithm == Algorithm::FixedWindow => {
                if counts.cur + silent.shares.cur < terms.allows {
                    Duration::ZERO
                } else {
                    frame_ends()
                }
            }
            Self::Windows(counts) => {
                let limit = terms.allows.saturating_sub(silent.kept);
                let wait = counts.wait(terms.window, limit, 1, *now);
                wait.unwrap_or(terms.window.length())
            }
            Self::Log(log) => match terms.allows.checked_sub(log_reserve(silent.shares) + 1) {
                Some(room) => log.until(room, terms, *now),
                None => frame_ends(),
            },
            Self::Bucket(bucket) => bucket.wait(terms, silent.shares, *now),
        }
    }

    /// By how much the count is above the limit.
    pub fn excess(&self, view: &View) -> u64 {
        let View { terms, now, .. } = view;
        match self {
            Self::Windows(counts) if terms.algorithm == Algorithm::FixedWindow => {
                counts.cur.saturating_sub(terms.allows)
            }
            Self::Windows(counts) => counts.used(terms.window, *now).saturating_sub(terms.allows),
            Self::Log(log) => log.sum().saturating_sub(terms.allows),
            Self::Bucket(bucket) => bucket.excess(),
        }
    }

    /// Use and reserve: what must never pass [`Terms::capacity`], but for what gateways admitted ahead.
    pub fn count(&self, view: &View) -> u64 {
        let View { terms, now, silent, .. } = view;
        match self {
            Self::Windows(counts) if terms.algorithm == Algorithm::FixedWindow => counts.cur + silent.shares.cur,
            Self::Windows(counts) => counts.used(terms.window, *now) + silent.blended,
            Self::Log(log) => log.sum() + silent.shares.prev + silent.shares.cur,
            Self::Bucket(bucket) => bucket.count(terms),
        }
    }
}

/// A trailing span reaches into two frames: this and the one before, or later this and the next.
const fn log_reserve(silent: Shares) -> u64 {
    let neighbour = if silent.prev > silent.next {
        silent.prev
    } else {
        silent.next
    };
    silent.cur + neighbour
}

#[cfg(test)]
mod tests;
