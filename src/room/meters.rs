//! What a room counts. The handles are fetched once, when the room is made, so that everything is shown from then on, at
//! 0; when the room has gone, so have its series.

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::bypass::By;
use super::price::Bill;
use super::replica::Replica;
use crate::base::clock::Timestamp;
use crate::base::name::Name;
use crate::queue::governor::{Proposal, Reason};
use crate::queue::turn::Outcome;
use crate::telemetry::metrics::METRICS;

/// A room's metrics. Gauges say what the whole fleet holds; counters count what this gateway's turns brought about,
/// so that the sum over the gateways is right.
#[derive(Debug)]
pub(super) struct Meters {
    room: Name,
    waiting: IntGauge,
    inside: IntGauge,
    not_yet_inside: IntGauge,
    visitors_bound: Gauge,
    admission_rate: Gauge,
    frontier: IntGauge,
    last: IntGauge,
    inversions: IntGauge,
    store_lag: Gauge,
    called: IntCounter,
    entered: IntCounter,
    abandoned: IntCounter,
    unclaimed: IntCounter,
    by_network: IntCounter,
    by_link: IntCounter,
    wait: Histogram,
    challenges: [IntCounter; Bill::ALL.len()],
    /// Visitors refused because their network has all its places.
    pub(super) crowded: IntCounter,
    /// Places given back because nobody held a ticket of them.
    pub(super) given_back: IntCounter,
    /// Polls that came before they were due.
    pub(super) early_polls: IntCounter,
}

impl Meters {
    pub(super) fn new(room: &Name) -> Self {
        let label = &[room.as_str()];
        Self {
            room: room.clone(),
            waiting: METRICS.room_waiting.with_label_values(label),
            inside: METRICS.room_inside.with_label_values(label),
            not_yet_inside: METRICS.room_called.with_label_values(label),
            visitors_bound: METRICS.room_visitors_bound.with_label_values(label),
            admission_rate: METRICS.room_admission_rate.with_label_values(label),
            frontier: METRICS.room_frontier.with_label_values(label),
            last: METRICS.room_last.with_label_values(label),
            inversions: METRICS.room_inversions.with_label_values(label),
            store_lag: METRICS.room_store_lag_seconds.with_label_values(label),
            called: METRICS.room_called_total.with_label_values(label),
            entered: METRICS.room_entered_total.with_label_values(label),
            abandoned: METRICS.room_abandoned_total.with_label_values(label),
            unclaimed: METRICS.room_unclaimed_total.with_label_values(label),
            by_network: METRICS
                .room_bypassed_total
                .with_label_values(&[room.as_str(), "network"]),
            by_link: METRICS.room_bypassed_total.with_label_values(&[room.as_str(), "link"]),
            wait: METRICS.room_wait_seconds.with_label_values(label),
            challenges: Bill::ALL.map(|bill| {
                let labels = &[room.as_str(), bill.as_str()];
                METRICS.room_challenges_total.with_label_values(labels)
            }),
            crowded: METRICS.room_crowded_total.with_label_values(label),
            given_back: METRICS.room_given_back_total.with_label_values(label),
            early_polls: METRICS.room_early_polls_total.with_label_values(label),
        }
    }

    pub(super) fn bill(&self, bill: Bill) {
        self.challenges[bill as usize].inc();
    }

    pub(super) fn bypassed(&self, by: By) {
        match by {
            By::Network => self.by_network.inc(),
            By::Link => self.by_link.inc(),
        }
    }

    /// Takes in what came of a turn; `replica` has followed it.
    pub(super) fn note(&self, outcome: &Outcome, replica: &Replica) {
        let (counts, tally) = (&outcome.counts, &outcome.tally);
        self.waiting.set(whole(counts.waiting));
        self.inside.set(whole(counts.called + counts.inside));
        self.not_yet_inside.set(whole(counts.called));
        self.frontier.set(whole(counts.frontier));
        self.last.set(whole(counts.last));
        self.inversions.set(whole(replica.passed_over()));
        let bound = counts.visitors.map_or(f64::INFINITY, |most| most as f64);
        self.visitors_bound.set(bound);
        let rate = counts.admit.map_or(f64::INFINITY, |rate| rate.per_second());
        self.admission_rate.set(rate);
        self.called.inc_by(tally.called);
        self.entered.inc_by(tally.entered);
        self.abandoned.inc_by(tally.abandoned);
        self.unclaimed.inc_by(tally.unclaimed);
        for wait in &tally.waits {
            self.wait.observe(wait.as_secs_f64());
        }
    }

    /// Takes in what this gateway proposes. Its series begin here: few rooms are measured.
    pub(super) fn note_proposal(&self, proposal: &Proposal) {
        let room = self.room.as_str();
        let rate = proposal.rate.per_second();
        METRICS.room_proposed_rate.with_label_values(&[room]).set(rate);
        let label = [room, proposal.reason.as_str()];
        METRICS.room_judgements_total.with_label_values(&label).inc();
    }

    /// Says how old all this is; a room that was never heard of is as old as the epoch of its clock.
    pub(super) fn show_lag(&self, heard: Option<Timestamp>, now: Timestamp) {
        let lag = heard.map_or(f64::INFINITY, |heard| now.since(heard).as_secs_f64());
        self.store_lag.set(lag);
    }

    /// Takes the series out of what is shown; one that is not there need not be.
    pub(super) fn remove(&self) {
        let label = &[self.room.as_str()];
        drop(METRICS.room_waiting.remove_label_values(label));
        drop(METRICS.room_inside.remove_label_values(label));
        drop(METRICS.room_called.remove_label_values(label));
        drop(METRICS.room_visitors_bound.remove_label_values(label));
        drop(METRICS.room_admission_rate.remove_label_values(label));
        drop(METRICS.room_proposed_rate.remove_label_values(label));
        for reason in Reason::ALL {
            let judged = [self.room.as_str(), reason.as_str()];
            drop(METRICS.room_judgements_total.remove_label_values(&judged));
        }
        for bill in Bill::ALL {
            let billed = [self.room.as_str(), bill.as_str()];
            drop(METRICS.room_challenges_total.remove_label_values(&billed));
        }
        drop(METRICS.room_frontier.remove_label_values(label));
        drop(METRICS.room_last.remove_label_values(label));
        drop(METRICS.room_inversions.remove_label_values(label));
        drop(METRICS.room_store_lag_seconds.remove_label_values(label));
        drop(METRICS.room_called_total.remove_label_values(label));
        drop(METRICS.room_entered_total.remove_label_values(label));
        drop(METRICS.room_abandoned_total.remove_label_values(label));
        drop(METRICS.room_unclaimed_total.remove_label_values(label));
        for by in ["network", "link"] {
            drop(
                METRICS
                    .room_bypassed_total
                    .remove_label_values(&[self.room.as_str(), by]),
            );
        }
        drop(METRICS.room_wait_seconds.remove_label_values(label));
        drop(METRICS.room_crowded_total.remove_label_values(label));
        drop(METRICS.room_given_back_total.remove_label_values(label));
        drop(METRICS.room_early_polls_total.remove_label_values(label));
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
