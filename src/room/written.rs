//! What the rule file says of a room's mode and capacity, as a number that the room's store remembers. So a fleet tells a
//! file that is new from one that only reaches another gateway.

use std::time::Duration;

use crate::base::clock::micros;
use crate::base::mix::mix;
use crate::queue::terms::{Mode, Terms};

/// The hash is this much shorter than its type: a script of a store has doubles, which end at 2^53.
const UNUSED_BITS: u32 = 16;

/// The hash of the mode and the capacity: the same at every gateway and in every build, below 2^48 and never 0.
pub(super) fn hash(terms: &Terms) -> u64 {
    let mode = match terms.mode {
        Mode::Auto => 0,
        Mode::Hold => 1,
        Mode::Off => 2,
        Mode::Drain => 3,
    };
    let rate = terms
        .admit
        .map_or((0, Duration::ZERO), |rate| (rate.count.get(), rate.window));
    let said = [
        mode,
        u64::from(terms.visitors.is_some()),
        terms.visitors.unwrap_or(0),
        rate.0,
        micros(rate.1),
        micros(terms.pass),
    ];
    let hash = said.into_iter().fold(0, |hash, part| mix(hash ^ part));
    (hash >> UNUSED_BITS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::rule::{Capacity, Rule};

    fn terms() -> Terms {
        let capacity = Capacity {
            visitors: Some(100),
            admit: Some("50/s".parse().unwrap()),
            pass: Duration::from_secs(600),
        };
        Rule::new("concert".parse().unwrap(), capacity).terms
    }

    #[test]
    fn every_part_counts_and_nothing_else() {
        let hashes = [
            terms(),
            Terms {
                mode: Mode::Hold,
                ..terms()
            },
            Terms {
                visitors: None,
                ..terms()
            },
            Terms {
                visitors: Some(0),
                ..terms()
            },
            Terms { admit: None, ..terms() },
            Terms {
                admit: Some("3000/min".parse().unwrap()),
                ..terms()
            },
            Terms {
                pass: Duration::from_secs(601),
                ..terms()
            },
        ];
        let hashes = hashes.map(|terms| hash(&terms));
        let different: std::collections::HashSet<u64> = hashes.into_iter().collect();
        assert_eq!(different.len(), hashes.len());
        assert!(hashes.iter().all(|hash| (1..1 << 48).contains(hash)));
        let rest = Terms {
            max_waiting: 7,
            tick: Duration::from_millis(20),
            ..terms()
        };
        assert_eq!(hash(&rest), hashes[0]);
    }

    #[test]
    fn a_fleet_of_two_builds_reads_the_same() {
        assert_eq!(hash(&terms()), 0x45fa15975014);
    }
}
