//! Who is alive. A change of the fleet takes effect one lease after it was noticed, and everyone is told of it as
//! soon as it is noticed; so at every moment all gateways that are sure of anything are sure of the same.

mod history;

use std::collections::BTreeMap;
use std::time::Duration;

use self::history::Change;
use crate::base::clock::Timestamp;
use crate::store::limits::{Fleet, GatewayId};

/// How long what a gateway was told stays true.
const LEASE: Duration = Duration::from_secs(3);

/// After this long without a word a gateway is taken for dead. Longer than a lease: by then it has no share.
const DEAD_AFTER: Duration = Duration::from_secs(10);

/// Changes that are remembered. Those beyond are folded so that no share of a window is another than before.
const CHANGES_MAX: usize = 128;

/// The members of a fleet over time.
#[derive(Debug, Default)]
pub struct Members {
    heard: BTreeMap<GatewayId, Timestamp>,
    /// Oldest first.
    changes: Vec<Change>,
    /// The store began with its first gateway, so nobody can have spent anything that it does not know of.
    alone: bool,
}

impl Members {
    /// Of a store inside the one gateway that uses it: its first member need not wait for a lease to pass.
    pub fn embedded() -> Self {
        Self {
            alone: true,
            ..Self::default()
        }
    }

    /// Notes a sign of life and tells the gateway what it may count on. What it `knew` counts if nothing else does.
    pub fn alive(&mut self, gateway: GatewayId, knew: &Fleet, now: Timestamp) -> Fleet {
        if self.changes.is_empty() {
            self.begin(knew, now);
        }
        self.heard.insert(gateway, now);
        self.heard.retain(|_, heard| now.since(*heard) < DEAD_AFTER);
        let members: Vec<_> = self.heard.keys().copied().collect();
        if self.changes.last().is_none_or(|(_, last)| *last != members) {
            let founder = self.alone && self.changes.is_empty();
            let from = if founder { Timestamp::default() } else { effective(now) };
            // Nobody has been told anything that is sure for so long, so what is noticed within a second is one change.
            self.changes.retain(|(at, _)| *at < from);
            self.changes.push((from, members));
        }
        if self.changes.len() > CHANGES_MAX {
            history::shorten(&mut self.changes, now);
        }
        Fleet {
            timeline: self.changes.clone(),
            sure_until: now + LEASE,
            now,
        }
    }

    /// A store that knows nothing may have forgotten a fleet, so a first member has no share before a lease is over.
    fn begin(&mut self, knew: &Fleet, now: Timestamp) {
        if let Some((_, last)) = knew.timeline.last() {
            self.heard = last.iter().map(|gateway| (*gateway, now)).collect();
            self.changes.clone_from(&knew.timeline);
        } else if !self.alone {
            self.changes.push((Timestamp::default(), Vec::new()));
        }
    }
}

/// When a change takes effect that is noticed now: at the first whole second after a lease.
fn effective(now: Timestamp) -> Timestamp {
    Timestamp::from_secs((now + LEASE).as_secs() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: GatewayId = GatewayId(1);
    const TWO: GatewayId = GatewayId(2);

    fn secs(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn nothing() -> Fleet {
        Fleet::default()
    }

    #[test]
    fn a_newcomer_takes_effect_when_nobody_can_count_on_the_old_number_any_more() {
        let mut members = Members::embedded();
        let start = secs(100);
        let first = members.alive(ONE, &nothing(), start);
        assert_eq!(first.share(ONE, 60, start), 60);
        let second = members.alive(TWO, &nothing(), start + Duration::from_secs(1));
        assert_eq!(second.share(TWO, 60, start + Duration::from_secs(1)), 0);
        let later = start + Duration::from_secs(5);
        let (one, two) = (members.alive(ONE, &first, later), members.alive(TWO, &second, later));
        assert_eq!((one.share(ONE, 60, later), two.share(TWO, 60, later)), (30, 30));
        assert_eq!(
            first.share(ONE, 60, later),
            0,
            "what was heard before is no longer sure"
        );
    }

    #[test]
    fn a_silent_gateway_is_dropped() {
        let mut members = Members::embedded();
        members.alive(ONE, &nothing(), secs(0));
        members.alive(TWO, &nothing(), secs(0));
        members.alive(ONE, &nothing(), secs(11));
        let fleet = members.alive(ONE, &nothing(), secs(15));
        assert_eq!(fleet.size(), 1);
    }

    #[test]
    fn the_first_of_a_shared_store_has_no_share_before_a_lease_is_over() {
        let mut members = Members::default();
        let first = members.alive(ONE, &nothing(), secs(100));
        let later = members.alive(ONE, &first, secs(102));
        assert_eq!(later.share(ONE, 60, secs(103)), 0);
        assert_eq!(later.share(ONE, 60, secs(104)), 60);
    }

    #[test]
    fn a_fleet_that_starts_within_a_second_is_one_change() {
        let mut members = Members::default();
        let told: Vec<_> = (0..200)
            .map(|n| members.alive(GatewayId(n), &nothing(), secs(100) + Duration::from_millis(4 * n)))
            .collect();
        assert_eq!(told[199].timeline.len(), 2, "nobody, and then everyone");
        let sure = told.iter().all(|fleet| fleet.sure_until < told[199].timeline[1].0);
        assert!(sure, "nobody was sure of the time at which it takes effect");
    }

    #[test]
    fn a_store_that_came_back_empty_takes_over_what_a_gateway_knew() {
        let mut members = Members::default();
        members.alive(ONE, &nothing(), secs(100));
        let knew = members.alive(TWO, &nothing(), secs(100));
        let mut empty = Members::default();
        let newcomer = empty.alive(TWO, &knew, secs(104));
        assert_eq!(newcomer.members(secs(104)), [ONE, TWO]);
        assert_eq!(newcomer.share(TWO, 60, secs(104)), 30);
    }
}
