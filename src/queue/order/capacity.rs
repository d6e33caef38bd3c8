//! How many may be called, by the visitors who fit and by the rate.

use super::RoomState;
use crate::queue::terms::Terms;

impl RoomState {
    /// Slots that nobody occupies.
    pub(super) fn slots(&self, terms: &Terms) -> u64 {
        terms
            .visitors
            .map_or(u64::MAX, |most| most.saturating_sub(self.called + self.inside))
    }

    /// How many may be called now, by both capacities.
    pub(super) fn free(&mut self, terms: &Terms) -> u64 {
        let by_rate = terms
            .admit
            .as_ref()
            .map_or(u64::MAX, |rate| self.admission.free(rate, terms.tick, self.now));
        self.slots(terms).min(by_rate)
    }

    pub(super) fn spend(&mut self, terms: &Terms, calls: u64) {
        self.tally.called += calls;
        self.change.called += calls;
        if let Some(rate) = &terms.admit {
            self.admission.spend(rate, calls, self.now);
        }
    }
}
