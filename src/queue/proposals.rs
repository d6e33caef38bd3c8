//! What the gateways of a fleet think a measured rate should be: the lowest recent word counts.
//!
//! Each gateway sees its own part of the traffic. One that sees trouble is right even if the others do not; one that
//! sees none may only not have looked. A gateway that goes silent is forgotten after [`PROPOSAL_LIFE`].

use std::time::Duration;

use super::terms::Setting;
use crate::base::clock::Timestamp;
use crate::base::rate::Rate;

/// A proposal counts for so long: several judgements, so that a gateway with little traffic keeps its word.
const PROPOSAL_LIFE: Duration = Duration::from_secs(15);

/// Most gateways whose word a room keeps. Beyond them the oldest is forgotten.
const PROPOSERS_MAX: usize = 256;

/// The recent proposals.
#[derive(Debug, Clone, Default)]
pub(super) struct Proposals(Vec<Proposed>);

#[derive(Debug, Clone, Copy)]
struct Proposed {
    by: u64,
    rate: Rate,
    at: Timestamp,
}

impl Proposals {
    /// Takes in a gateway's word, in the place of its last. A room that goes back to its rule file forgets all.
    pub(super) fn hear(&mut self, setting: Setting, now: Timestamp) {
        match setting {
            Setting::Measured { gateway, rate } => self.note(gateway, rate, now),
            Setting::AsWritten => self.forget(),
            Setting::Mode(_) | Setting::Visitors(_) | Setting::Admit(_) | Setting::Written(_) | Setting::Revoke(_) => {}
        }
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    fn note(&mut self, by: u64, rate: Rate, now: Timestamp) {
        self.0.retain(|one| one.by != by && one.at + PROPOSAL_LIFE > now);
        if self.0.len() == PROPOSERS_MAX {
            self.0.remove(0);
        }
        self.0.push(Proposed { by, rate, at: now });
    }

    /// The lowest recent rate; none where nobody has proposed one of late.
    pub(super) fn lowest(&self, now: Timestamp) -> Option<Rate> {
        let recent = self.0.iter().filter(|one| one.at + PROPOSAL_LIFE > now);
        recent
            .map(|one| one.rate)
            .reduce(|low, rate| if is_lower(rate, low) { rate } else { low })
    }
}

/// Exact: calls of both in the product of their windows.
fn is_lower(one: Rate, other: Rate) -> bool {
    let worth = |rate: Rate, window: Duration| u128::from(rate.count.get()) * window.as_micros();
    worth(one, other.window) < worth(other, one.window)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn word(gateway: u64, rate: &str) -> Setting {
        let rate = rate.parse().unwrap();
        Setting::Measured { gateway, rate }
    }

    fn lowest(proposals: &Proposals, now: Timestamp) -> Option<String> {
        proposals.lowest(now).map(|rate| rate.to_string())
    }

    #[test]
    fn the_lowest_recent_word_counts_and_each_gateway_has_one() {
        let mut proposals = Proposals::default();
        assert_eq!(lowest(&proposals, NOW), None);
        proposals.hear(word(1, "100/s"), NOW);
        proposals.hear(word(2, "3000/min"), NOW + Duration::from_secs(1));
        assert_eq!(lowest(&proposals, NOW), Some("3000/min".to_owned()));
        proposals.hear(word(2, "7200/min"), NOW + Duration::from_secs(2));
        assert_eq!(lowest(&proposals, NOW), Some("100/s".to_owned()));
    }

    #[test]
    fn who_goes_silent_is_forgotten_and_so_is_everyone_with_a_reset() {
        let mut proposals = Proposals::default();
        proposals.hear(word(1, "10/s"), NOW);
        let later = NOW + PROPOSAL_LIFE;
        proposals.hear(word(2, "20/s"), later);
        assert_eq!(lowest(&proposals, later), Some("20/s".to_owned()));
        proposals.hear(Setting::AsWritten, later);
        assert_eq!(lowest(&proposals, later), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut proposals = Proposals::default();
        for gateway in 0..2 * PROPOSERS_MAX as u64 {
            proposals.hear(word(gateway, "10/s"), NOW);
        }
        assert_eq!(proposals.0.len(), PROPOSERS_MAX);
    }
}
