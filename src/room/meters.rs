//! What a room counts. The handles are fetched once, when the room is made.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::bypass::By;
use crate::base::name::Name;
use crate::queue::turn::Outcome;
use crate::telemetry::metrics::METRICS;

/// A room's metrics. Gauges say what the whole fleet holds; counters count what this gateway's turns brought about,
/// so that the sum over the gateways is right.
#[derive(Debug)]
pub(super) struct Meters {
    waiting: IntGauge,
    inside: IntGauge,
    called: IntCounter,
    entered: IntCounter,
    abandoned: IntCounter,
    unclaimed: IntCounter,
    by_network: IntCounter,
    by_link: IntCounter,
    wait: Histogram,
}

impl Meters {
    pub(super) fn new(room: &Name) -> Self {
        let label = &[room.as_str()];
        Self {
            waiting: METRICS.room_waiting.with_label_values(label),
            inside: METRICS.room_inside.with_label_values(label),
            called: METRICS.room_called_total.with_label_values(label),
            entered: METRICS.room_entered_total.with_label_values(label),
            abandoned: METRICS.room_abandoned_total.with_label_values(label),
            unclaimed: METRICS.room_unclaimed_total.with_label_values(label),
            by_network: METRICS
                .room_bypassed_total
                .with_label_values(&[room.as_str(), "network"]),
            by_link: METRICS.room_bypassed_total.with_label_values(&[room.as_str(), "link"]),
            wait: METRICS.room_wait_seconds.with_label_values(label),
        }
    }

    pub(super) fn bypassed(&self, by: By) {
        match by {
            By::Network => self.by_network.inc(),
            By::Link => self.by_link.inc(),
        }
    }

    pub(super) fn note(&self, outcome: &Outcome) {
        let (counts, tally) = (&outcome.counts, &outcome.tally);
        self.waiting.set(i64::try_from(counts.waiting).unwrap_or(i64::MAX));
        self.inside
            .set(i64::try_from(counts.called + counts.inside).unwrap_or(i64::MAX));
        self.called.inc_by(tally.called);
        self.entered.inc_by(tally.entered);
        self.abandoned.inc_by(tally.abandoned);
        self.unclaimed.inc_by(tally.unclaimed);
        for wait in &tally.waits {
            self.wait.observe(wait.as_secs_f64());
        }
    }
}
