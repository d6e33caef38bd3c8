//! Who is alive. A change of the fleet takes effect one lease after it was noticed, and everyone is told of it as
//! soon as it is noticed; so at every moment all gateways that are sure of anything are sure of the same.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::limiter::share::Shares;
use crate::limiter::window::Window;
use crate::store::limits::{Fleet, GatewayId};

/// How long what a gateway was told stays true.
pub const LEASE: Duration = Duration::from_secs(3);

/// After this long without a word a gateway is taken for dead. Longer than a lease: by then it has no share.
const DEAD_AFTER: Duration = Duration::from_secs(10);

/// Changes that are remembered; older ones are folded into one, which only matters to windows older than that.
const CHANGES_MAX: usize = 64;

/// The members of a fleet over time.
#[derive(Debug, Default)]
pub struct Members {
    heard: BTreeMap<GatewayId, Timestamp>,
    /// From when on these are the members, oldest first.
    changes: Vec<(Timestamp, Vec<GatewayId>)>,
}

impl Members {
    /// Notes a sign of life and tells the gateway what it may count on.
    pub fn alive(&mut self, gateway: GatewayId, now: Timestamp) -> Fleet {
        let founder = self.changes.is_empty();
        self.heard.insert(gateway, now);
        self.heard.retain(|_, heard| now.since(*heard) < DEAD_AFTER);
        let members: Vec<_> = self.heard.keys().copied().collect();
        if self.changes.last().is_none_or(|(_, last)| *last != members) {
            // Nobody has spent anything of an empty store, so its founder need not wait.
            let from = if founder { Timestamp::default() } else { now + LEASE };
            self.changes.push((from, members));
        }
        if self.changes.len() > CHANGES_MAX {
            self.changes.remove(0);
        }
        let timeline = self
            .changes
            .iter()
            .map(|(from, of)| (*from, of.len() as u64, of.contains(&gateway)));
        Fleet {
            timeline: timeline.collect(),
            sure_until: now + LEASE,
            now,
        }
    }

    /// The shares of everyone who has one in window `index` or had one in the window before.
    pub fn shares(&self, allows: u64, window: Window, index: u64) -> BTreeMap<GatewayId, Shares> {
        let mut shares: BTreeMap<_, Shares> = BTreeMap::new();
        for gateway in self.at(window.start(index)) {
            shares.entry(*gateway).or_default().cur = allows / self.at(window.start(index)).len() as u64;
        }
        if let Some(before) = index.checked_sub(1).map(|before| self.at(window.start(before))) {
            for gateway in before {
                shares.entry(*gateway).or_default().prev = allows / before.len() as u64;
            }
        }
        shares
    }

    fn at(&self, moment: Timestamp) -> &[GatewayId] {
        let at = self.changes.iter().rev().find(|(from, _)| *from <= moment);
        at.or(self.changes.first()).map_or(&[], |(_, members)| members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: GatewayId = GatewayId(1);
    const TWO: GatewayId = GatewayId(2);

    #[test]
    fn a_newcomer_takes_effect_when_nobody_can_count_on_the_old_number_any_more() {
        let mut members = Members::default();
        let start = Timestamp::from_secs(100);
        let first = members.alive(ONE, start);
        assert_eq!(first.share(60, start), 60);
        let second = members.alive(TWO, start + Duration::from_secs(1));
        assert_eq!(second.share(60, start + Duration::from_secs(1)), 0);
        let later = start + Duration::from_secs(4);
        let (one, two) = (members.alive(ONE, later), members.alive(TWO, later));
        assert_eq!((one.share(60, later), two.share(60, later)), (30, 30));
        assert_eq!(first.share(60, later), 0, "what was heard before is no longer sure");
    }

    #[test]
    fn a_silent_gateway_is_dropped() {
        let mut members = Members::default();
        members.alive(ONE, Timestamp::from_secs(0));
        members.alive(TWO, Timestamp::from_secs(0));
        members.alive(ONE, Timestamp::from_secs(11));
        let fleet = members.alive(ONE, Timestamp::from_secs(15));
        assert_eq!(fleet.size(), 1);
    }
}
