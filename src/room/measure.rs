//! Measured admission at one gateway: what it saw of the service becomes a proposal, which the next turn takes along.
//! How a proposal is come by is decided in `queue/governor`, and which one counts by the store.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Room;
use crate::base::clock::Timestamp;
use crate::base::name::Name;
use crate::queue::governor::{Governor, Proposal, Range, Reason, Sample};
use crate::queue::terms::{Mode, Setting};
use crate::telemetry::vitals::{Totals, Vitals};

/// By what the rate of a room is measured.
#[derive(Clone)]
pub struct Measured {
    /// Between which rates.
    pub range: Range,
    /// The upstream whose health decides.
    pub upstream: Name,
    /// Its health.
    pub vitals: Arc<Vitals>,
}

impl fmt::Debug for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Measured({} by {})", self.range.min, self.upstream)
    }
}

/// What was seen and said so far. Locked once before each turn, and by an operator who looks.
#[derive(Debug, Default)]
pub(super) struct Measure(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    governor: Governor,
    totals: Option<Totals>,
    said: Option<Reason>,
}

impl Measure {
    /// Why the last proposal was what it was; none before the first.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).said
    }
}

impl Room {
    /// Looks at the service and proposes a rate, where the rule wants that and enough was seen.
    pub(super) fn measure(&self, now: Timestamp) {
        let rule = self.rule.load();
        let Some(measured) = &rule.measured else { return };
        let counts = *self.replica().counts();
        let in_force = counts.admit.unwrap_or(measured.range.min);
        let has_slots = counts.visitors.is_none_or(|most| counts.called + counts.inside < most);
        let calls = rule.terms.opened(now) && matches!(counts.mode, Mode::Auto | Mode::Drain);
        let tried = counts.waiting > 0 && has_slots && calls;
        let mut seen = self.measure.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sample = seen.sample(&measured.vitals);
        let Some(proposal) = seen.governor.judge(&measured.range, sample, (in_force, tried), now) else {
            return;
        };
        self.meters.note_proposal(&proposal);
        let gateway = self.gateway;
        let rate = proposal.rate;
        self.gather().propose(Setting::Measured { gateway, rate });
        if seen.is_news(&proposal) {
            let latency = seen.governor.latency().unwrap_or_default();
            self.tell(&proposal, measured, latency);
        }
        seen.said = Some(proposal.reason);
    }

    fn tell(&self, proposal: &Proposal, measured: &Measured, (latency, baseline): (f64, f64)) {
        let (latency, baseline) = (latency / 1_000.0, baseline / 1_000.0);
        let Proposal { rate, reason } = proposal;
        log::info!(
            "room {}: {rate} for now, for upstream {} is {}: {latency:.1} ms where {baseline:.1} ms is usual",
            self.name,
            measured.upstream,
            reason.as_str()
        );
    }
}

impl Seen {
    fn sample(&mut self, vitals: &Vitals) -> Sample {
        let totals = vitals.totals();
        let before = self.totals.replace(totals).unwrap_or(totals);
        let (requests, failures, log_latency) = totals.since(&before);
        Sample {
            requests,
            failures,
            log_latency,
            busy: vitals.busy(),
        }
    }

    /// Every fall, and the first rise after one.
    fn is_news(&self, proposal: &Proposal) -> bool {
        match proposal.reason {
            Reason::Slow | Reason::Failing => true,
            Reason::Well => matches!(self.said, Some(Reason::Calm | Reason::Slow | Reason::Failing)),
            Reason::Untried | Reason::Strained | Reason::Calm => false,
        }
    }
}

#[cfg(test)]
mod tests;
