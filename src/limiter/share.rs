//! Free shares: what a gateway may give a key without asking anyone.
//!
//! In each window the gateways have free shares of every key that sum to at most `L`: who has which is the fleet's
//! to say. Shares of two neighbouring windows can differ, because gateways come and go. So what a gateway may have used at a
//! moment is blended like use itself: of the share it had in the window before as much as the trailing window
//! still covers, and of the share it has now the rest. Summed over all gateways that is at most `L` at every
//! moment, because each window's shares sum to at most `L`.
//!
//! Checked now alone that would not last: a gateway whose share shrinks could fill the large share at the start of
//! a window and be above the small one at its end. Both sides are linear in time, so it is enough to check the
//! present moment and the end of the window.
//!
//! The other algorithms do not blend: a share is what may be used in its frame, from the first moment of it.

use crate::base::clock::Timestamp;
use crate::limiter::terms::{Algorithm, Terms};
use crate::limiter::window::{Counts, Window};

/// A pooled key is not in use that has so small a part of a share used in two windows. Half a share pools it.
pub const LITTLE_OF_SHARE: u64 = 4;

/// A gateway's free share of every key of a limit: in a frame, in the one before, and in the one to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shares {
    /// In the frame before.
    pub prev: u64,
    /// In this one.
    pub cur: u64,
    /// In the next, where that is known beforehand ([`Terms::lag`]); else 0.
    pub next: u64,
}

impl Shares {
    /// What a gateway may at most have used at `now`, as use is weighed.
    pub fn usable(self, terms: &Terms, now: Timestamp) -> u64 {
        match terms.algorithm {
            Algorithm::SlidingWindow => self.blended(terms.window, now),
            _ => self.cur,
        }
    }

    /// Whether a gateway that used `own` (with what it is about to spend) stays within its shares from `now` to
    /// the end of the frame.
    pub fn suffice(self, own: Counts, terms: &Terms, now: Timestamp) -> bool {
        match terms.algorithm {
            Algorithm::SlidingWindow => self.allow(own, terms.window, now),
            _ => own.cur <= self.cur,
        }
    }

    /// These and `other` together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            prev: self.prev + other.prev,
            cur: self.cur + other.cur,
            next: self.next + other.next,
        }
    }

    /// What of these shares counts at `now`, rounded down: what a gateway may at most have used.
    pub fn blended(self, window: Window, now: Timestamp) -> u64 {
        window.blend(self.prev, self.cur, now)
    }

    /// Whether a gateway that used `own` (with what it is about to spend) stays within its shares from `now` to
    /// the end of the window.
    pub fn allow(self, own: Counts, window: Window, now: Timestamp) -> bool {
        own.cur <= self.cur && own.used(window, now) <= self.blended(window, now)
    }

    /// What must be kept back for a gateway whose use is not known: at `now`, and at the end of the window. Rounded
    /// up: what is granted on the strength of it has to hold when the share has grown by the fraction.
    pub fn reserve(self, window: Window, now: Timestamp) -> (u64, u64) {
        let most = self.prev.max(self.cur);
        let now = most - window.blend(most - self.prev, most - self.cur, now);
        (now, self.cur)
    }
}

/// What is left of a limit: both now and at the end of the window, use and reserves must stay within it.
pub fn remaining(limit: u64, used: Counts, reserve: (u64, u64), window: Window, now: Timestamp) -> u64 {
    let at = used.turned_to(window.index(now));
    let now_left = limit.saturating_sub(at.used(window, now)).saturating_sub(reserve.0);
    let end_left = limit.saturating_sub(at.cur).saturating_sub(reserve.1);
    now_left.min(end_left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const LENGTH: u64 = 1_000_000;

    proptest! {
        /// The heart of the matter: gateways that each stay within their own shares together stay within the limit,
        /// whatever the shares of either window were.
        #[test]
        fn gateways_within_their_shares_are_together_within_the_limit(
            limit in 1u64..5_000,
            fleet_before in 1u64..16,
            fleet_now in 1u64..16,
            offsets in proptest::collection::vec(0u64..LENGTH, 1..60),
            fill in 0u64..=100,
        ) {
            let window = Window::new(Duration::from_micros(LENGTH));
            let everyone = fleet_before.max(fleet_now);
            let shares: Vec<Shares> = (0..everyone).map(|g| Shares {
                prev: if g < fleet_before { limit / fleet_before } else { 0 },
                cur: if g < fleet_now { limit / fleet_now } else { 0 },
                next: 0,
            }).collect();
            let mut own: Vec<Counts> = shares.iter().map(|s| Counts { index: 1, prev: s.prev * fill / 100, cur: 0 }).collect();
            let mut moments = offsets;
            moments.sort_unstable();
            for (turn, offset) in moments.into_iter().enumerate() {
                let now = Timestamp::from_micros(LENGTH + offset);
                let gateway = turn % own.len();
                for cost in [limit, limit / 3, 1, 1, 1] {
                    let next = Counts { cur: own[gateway].cur + cost, ..own[gateway] };
                    if shares[gateway].allow(next, window, now) {
                        own[gateway] = next;
                    }
                }
                let all = Counts { index: 1, prev: own.iter().map(|c| c.prev).sum(), cur: own.iter().map(|c| c.cur).sum() };
                for later in [now, Timestamp::from_micros(2 * LENGTH - 1), Timestamp::from_micros(2 * LENGTH)] {
                    prop_assert!(all.used(window, later) <= limit, "{all:?} at {later:?} over {limit}");
                }
            }
        }

        #[test]
        fn a_steady_share_is_the_whole_share_at_every_moment(share in 0u64..10_000, offset in 0u64..LENGTH) {
            let window = Window::new(Duration::from_micros(LENGTH));
            let now = Timestamp::from_micros(offset);
            prop_assert_eq!(Shares { prev: share, cur: share, next: 0 }.blended(window, now), share);
        }
    }

    #[test]
    fn reserves_are_kept_back_to_the_end_of_the_window() {
        let window = Window::new(Duration::from_micros(LENGTH));
        let newcomer = Shares {
            prev: 0,
            cur: 50,
            next: 0,
        };
        let start = Timestamp::from_micros(LENGTH);
        assert_eq!(
            remaining(100, Counts::default(), newcomer.reserve(window, start), window, start),
            50
        );
    }
}
