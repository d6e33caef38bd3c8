//! What a room counts. The handles are fetched once, when the room is made, so that everything is shown from then on, at
//! 0; when the room has gone, so have its series.

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::bypass::By;
use super::price::Bill;
use super::replica::Replica;
use crate::base::clock::Timestamp;
use crate::base::name::Name;
use crate::queue::governor::{Proposal, Reason};
use crate::queue::terms::Mode;
use crate::queue::turn::Outcome;
use crate::telemetry::metrics::METRICS;

/// Series of which a room has one each: fetched together and taken out together, so that none is left behind.
macro_rules! one_each {
    ($($field:ident: $kind:ty = $series:ident,)+) => {
        #[derive(Debug)]
        struct OneEach {
            $($field: $kind,)+
        }

        impl OneEach {
            fn of(room: &Name) -> Self {
                Self {
                    $($field: METRICS.$series.with_label_values(&[room.as_str()]),)+
                }
            }

            fn remove(room: &Name) {
                $(drop(METRICS.$series.remove_label_values(&[room.as_str()]));)+
            }
        }
    };
}

one_each! {
    waiting: IntGauge = room_waiting,
    inside: IntGauge = room_inside,
    not_yet_inside: IntGauge = room_called,
    visitors_bound: Gauge = room_visitors_bound,
    admission_rate: Gauge = room_admission_rate,
    frontier: IntGauge = room_frontier,
    last: IntGauge = room_last,
    inversions: IntGauge = room_inversions,
    store_lag: Gauge = room_store_lag_seconds,
    opens_at: Gauge = room_opens_at_seconds,
    called: IntCounter = room_called_total,
    entered: IntCounter = room_entered_total,
    abandoned: IntCounter = room_abandoned_total,
    unclaimed: IntCounter = room_unclaimed_total,
    wait: Histogram = room_wait_seconds,
    crowded: IntCounter = room_crowded_total,
    given_back: IntCounter = room_given_back_total,
    early_polls: IntCounter = room_early_polls_total,
}

/// A room's metrics. Gauges say what the whole fleet holds; counters count what this gateway's turns brought about,
/// so that the sum over the gateways is right.
#[derive(Debug)]
pub(super) struct Meters {
    room: Name,
    each: OneEach,
    modes: [IntGauge; Mode::ALL.len()],
    bypassed: [IntCounter; By::ALL.len()],
    challenges: [IntCounter; Bill::ALL.len()],
}

impl Meters {
    pub(super) fn new(room: &Name) -> Self {
        Self {
            room: room.clone(),
            each: OneEach::of(room),
            modes: Mode::ALL.map(|mode| METRICS.room_mode.with_label_values(&[room.as_str(), mode.as_str()])),
            bypassed: By::ALL.map(|by| {
                METRICS
                    .room_bypassed_total
                    .with_label_values(&[room.as_str(), by.as_str()])
            }),
            challenges: Bill::ALL.map(|bill| {
                let labels = &[room.as_str(), bill.as_str()];
                METRICS.room_challenges_total.with_label_values(labels)
            }),
        }
    }

    /// A poll came before it was due.
    pub(super) fn polled_early(&self) {
        self.each.early_polls.inc();
    }

    /// A visitor was refused, because their network has all its places.
    pub(super) fn crowded(&self) {
        self.each.crowded.inc();
    }

    /// So many places were given back because nobody held a ticket of them.
    pub(super) fn gave_back(&self, places: usize) {
        self.each.given_back.inc_by(places as u64);
    }

    pub(super) fn bill(&self, bill: Bill) {
        self.challenges[bill as usize].inc();
    }

    pub(super) fn bypassed(&self, by: By) {
        self.bypassed[by as usize].inc();
    }

    /// Takes in what came of a turn; `replica` has followed it.
    pub(super) fn note(&self, outcome: &Outcome, replica: &Replica) {
        let (each, counts, tally) = (&self.each, &outcome.counts, &outcome.tally);
        each.waiting.set(whole(counts.waiting));
        each.inside.set(whole(counts.called + counts.inside));
        each.not_yet_inside.set(whole(counts.called));
        each.frontier.set(whole(counts.frontier));
        each.last.set(whole(counts.last));
        each.inversions.set(whole(replica.passed_over()));
        let bound = counts.visitors.map_or(f64::INFINITY, |most| most as f64);
        each.visitors_bound.set(bound);
        let rate = counts.admit.map_or(f64::INFINITY, |rate| rate.per_second());
        each.admission_rate.set(rate);
        each.called.inc_by(tally.called);
        each.entered.inc_by(tally.entered);
        each.abandoned.inc_by(tally.abandoned);
        each.unclaimed.inc_by(tally.unclaimed);
        for wait in &tally.waits {
            each.wait.observe(wait.as_secs_f64());
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

    /// Says how old all this is; a room that was never heard of is infinitely old.
    pub(super) fn show_lag(&self, heard: Option<Timestamp>, now: Timestamp) {
        let lag = heard.map_or(f64::INFINITY, |heard| now.since(heard).as_secs_f64());
        self.each.store_lag.set(lag);
    }

    /// Says why nobody may be called: the mode in force, and a moment that has not come.
    pub(super) fn show_terms(&self, mode: Mode, open: Option<Timestamp>) {
        for (of, gauge) in Mode::ALL.iter().zip(&self.modes) {
            gauge.set(i64::from(*of == mode));
        }
        let opens_at = open.map_or(0.0, |open| open.as_micros() as f64 / 1e6);
        self.each.opens_at.set(opens_at);
    }

    /// Takes the series out of what is shown; one that is not there need not be.
    pub(super) fn remove(&self) {
        let room = self.room.as_str();
        OneEach::remove(&self.room);
        drop(METRICS.room_proposed_rate.remove_label_values(&[room]));
        for mode in Mode::ALL {
            drop(METRICS.room_mode.remove_label_values(&[room, mode.as_str()]));
        }
        for reason in Reason::ALL {
            drop(
                METRICS
                    .room_judgements_total
                    .remove_label_values(&[room, reason.as_str()]),
            );
        }
        for bill in Bill::ALL {
            drop(
                METRICS
                    .room_challenges_total
                    .remove_label_values(&[room, bill.as_str()]),
            );
        }
        for by in By::ALL {
            drop(METRICS.room_bypassed_total.remove_label_values(&[room, by.as_str()]));
        }
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_shows_in_which_mode_it_is_and_when_it_opens_until_it_is_gone() {
        let room: Name = "early-or-held".parse().unwrap();
        let meters = Meters::new(&room);
        meters.show_terms(Mode::Auto, None);
        meters.show_terms(Mode::Hold, Some(Timestamp::from_micros(1_795_235_753_500_000)));
        let shown = METRICS.render();
        for line in [
            "tidegate_room_mode{mode=\"hold\",room=\"early-or-held\"} 1",
            "tidegate_room_mode{mode=\"auto\",room=\"early-or-held\"} 0",
            "tidegate_room_opens_at_seconds{room=\"early-or-held\"} 1795235753.5",
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
        meters.show_terms(Mode::Off, None);
        assert!(
            METRICS
                .render()
                .contains("tidegate_room_opens_at_seconds{room=\"early-or-held\"} 0\n")
        );
        meters.remove();
        assert!(!METRICS.render().contains("early-or-held"));
    }
}
