//! What a room counts. The handles are fetched once, when the room is made.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::price::Bill;
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
    wait: Histogram,
    challenges: [IntCounter; Bill::ALL.len()],
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
            wait: METRICS.room_wait_seconds.with_label_values(label),
            challenges: Bill::ALL.map(|bill| {
                let labels = &[room.as_str(), bill.as_str()];
                METRICS.room_challenges_total.with_label_values(labels)
            }),
        }
    }

    pub(super) fn bill(&self, bill: Bill) {
        self.challenges[bill as usize].inc();
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
