//! Whether a request's body comes fast enough. The deadline for a pause starts anew with every byte, so a client that
//! drips one a second would hold a place in flight for as long as it liked.
//!
//! What is measured is how far a body lies behind one that comes at the least rate. Haste is not saved up: whoever has
//! sent a megabyte at once may not rest on it. And one wait counts for as much as the lag that is allowed, no more: a
//! client that loses its network for a while, and goes on then, is not behind because of it, nor is one whose server
//! was busy, since what has gathered meanwhile comes in one piece.

use std::time::Duration;

use crate::base::clock::Timestamp;

/// How far a body may lie behind, where the deadline for a pause is not shorter.
const GRACE: Duration = Duration::from_secs(10);

/// How a body has come so far.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Pace {
    /// When the last piece came; none before the first, which has a deadline of its own.
    last: Option<Timestamp>,
    /// By how much it is later than a body at the least rate.
    behind: Duration,
}

impl Pace {
    /// A piece has come. Whether the body keeps up with `least`, in bytes a second, where a pause may be as long as
    /// `pause`.
    pub(super) fn keeps_up(&mut self, bytes: usize, now: Timestamp, (least, pause): (u64, Duration)) -> bool {
        let grace = GRACE.min(pause);
        let waited = self.last.map_or(Duration::ZERO, |last| now.since(last));
        let worth = (bytes as u64).saturating_mul(1_000_000) / least.max(1);
        self.last = Some(now);
        self.behind = (self.behind + waited.min(grace)).saturating_sub(Duration::from_micros(worth));
        self.behind <= grace
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEAST: u64 = 1024;
    const PAUSE: Duration = Duration::from_secs(60);

    /// When, in seconds from the first piece, a body of such pieces is found too slow; none if it never is.
    fn refused(pieces: impl IntoIterator<Item = (u64, usize)>) -> Option<u64> {
        let mut pace = Pace::default();
        let slow = |(at, bytes)| !pace.keeps_up(bytes, Timestamp::from_secs(1000 + at), (LEAST, PAUSE));
        let mut slow = slow;
        pieces.into_iter().find(|piece| slow(*piece)).map(|(at, _)| at)
    }

    #[test]
    fn a_body_that_drips_is_found_soon_however_it_drips() {
        assert_eq!(refused((0..100).map(|second| (second, 1))), Some(11));
        assert_eq!(
            refused((0..100).map(|second| (second, 1000))),
            None,
            "a little slow, for a little"
        );
        assert_eq!(refused((0..1000).map(|second| (second, 1000))), Some(427));
        assert_eq!(refused((0..10).map(|piece| (piece * 59, 1))), Some(118));
        assert_eq!(
            refused((0..100).map(|second| (second, 0))),
            Some(11),
            "empty pieces are none"
        );
    }

    #[test]
    fn haste_is_not_saved_up() {
        let hasty = std::iter::once((0, 1 << 24)).chain((1..100).map(|second| (second, 1)));
        assert_eq!(refused(hasty), Some(11));
    }

    #[test]
    fn one_pause_is_no_drip() {
        let after = |pause: u64| {
            [
                (0, 65_536),
                (pause, 1400),
                (pause, 65_536),
                (pause + 1, 1400),
                (2 * pause, 1400),
            ]
        };
        assert_eq!(refused(after(59)), None);
    }

    proptest! {
        #[test]
        fn who_sends_at_the_least_rate_is_never_refused(gaps in prop::collection::vec(0u64..10, 1..200)) {
            let mut at = 0;
            let pieces = gaps.into_iter().map(|gap| {
                at += gap;
                (at, (gap * LEAST) as usize)
            });
            prop_assert_eq!(refused(pieces.collect::<Vec<_>>()), None);
        }

        #[test]
        fn who_sends_at_half_the_rate_is_refused_before_long(gap in 1u64..9) {
            let pieces = (0..100).map(|piece| (piece * gap, (gap * LEAST / 2) as usize));
            let at = refused(pieces.collect::<Vec<_>>());
            prop_assert!(at.is_some_and(|at| at <= 20 + 2 * gap), "{:?}", at);
        }
    }
}
