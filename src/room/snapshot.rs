//! What an operator sees of a room: how many are where, what it lets through, and how long the queue will take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lobby::{self, LobbySnapshot};
use super::measure::Measured;
use super::{Room, document};
use crate::base::clock::Timestamp;
use crate::queue::terms::Mode;

/// A room, as of this gateway's last turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomSnapshot {
    /// Its name.
    pub name: String,
    /// The mode in force.
    pub mode: Mode,
    /// When it opens, as long as it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opening: Option<OpeningSnapshot>,
    /// In the queue.
    pub waiting: u64,
    /// Called, not yet inside.
    pub called: u64,
    /// Holding a pass.
    pub inside: u64,
    /// The last number called.
    pub frontier: u64,
    /// The last number given.
    pub last: u64,
    /// The capacity in force.
    pub capacity: CapacitySnapshot,
    /// How fast the queue moves, and how long it will.
    pub forecast: Forecast,
    /// Whether this gateway can say so now.
    pub store: StoreSnapshot,
    /// The lobby, of a room that is shuffled at its opening.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lobby: Option<LobbySnapshot>,
}

/// A moment that has not come, before which nobody is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningSnapshot {
    /// The moment, as in `2026-12-01T11:00:00Z`.
    pub at: String,
    /// Seconds until then, by the store's clock.
    pub in_seconds: u64,
}

/// The capacity in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacitySnapshot {
    /// Visitors called or inside at once.
    pub visitors: Option<u64>,
    /// Visitors called per window, as in `1000/s`.
    pub admit: Option<String>,
    /// What moves that rate, where it is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredSnapshot>,
}

/// Between which rates a measured one moves, and why it is what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredSnapshot {
    /// The lowest.
    pub min: String,
    /// The highest.
    pub max: String,
    /// By the health of this upstream.
    pub upstream: String,
    /// What this gateway last thought of it: `well`, `untried`, `strained`, `calm`, `slow` or `failing`; none before it
    /// has seen enough.
    pub judged: Option<String>,
}

/// How fast the queue moves, as measured: over the last half minute, or over ten where few are called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Visitors called per second; none while nobody has been called for ten minutes.
    pub calls_per_second: Option<f64>,
    /// Seconds until the last of those who wait now is called, at that rate. None when nobody can say: nobody is
    /// called, or may be.
    pub empty_in_seconds: Option<u64>,
}

/// What this gateway hears of the room's store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreSnapshot {
    /// Whether the last turn was answered.
    pub answers: bool,
    /// Seconds since the last answer, which is how old all the rest is; none before the first.
    pub heard_seconds_ago: Option<f64>,
}

impl Room {
    /// What an operator sees of it, as of the last turn.
    pub fn snapshot(&self) -> RoomSnapshot {
        let now = self.clock.now();
        let heard = self.replica().heard();
        let counts = *self.replica().counts();
        let written = self.rule();
        let (visitors, admit) = match heard {
            Some(_) => (counts.visitors, counts.admit),
            None => (written.terms.visitors, written.terms.admit),
        };
        let answers = heard.is_some() && self.gather().fault().is_none();
        RoomSnapshot {
            name: self.name.to_string(),
            mode: self.mode(),
            opening: self.opening(now),
            waiting: counts.waiting,
            called: counts.called,
            inside: counts.inside,
            frontier: counts.frontier,
            last: counts.last,
            capacity: CapacitySnapshot {
                visitors,
                admit: admit.map(|rate| rate.to_string()),
                measured: written.measured.as_ref().map(|measured| self.measured(measured)),
            },
            forecast: self.forecast(now),
            store: StoreSnapshot {
                answers,
                heard_seconds_ago: heard.map(|heard| now.since(heard).as_secs_f64()),
            },
            lobby: lobby::snapshot(&counts),
        }
    }

    fn opening(&self, now: Timestamp) -> Option<OpeningSnapshot> {
        let clock = self.store_time(now);
        let open = self.rule.load().terms.open.filter(|open| *open > clock)?;
        Some(OpeningSnapshot {
            at: document::iso(open)?,
            in_seconds: open.since(clock).as_secs_f64().ceil() as u64,
        })
    }

    fn measured(&self, measured: &Measured) -> MeasuredSnapshot {
        let Measured { range, upstream, .. } = measured;
        MeasuredSnapshot {
            min: range.min.to_string(),
            max: range.max.to_string(),
            upstream: upstream.to_string(),
            judged: self.measure.reason().map(|reason| reason.as_str().to_owned()),
        }
    }

    fn forecast(&self, now: Timestamp) -> Forecast {
        let opened = self.rule.load().terms.opened(now);
        let moves = opened && matches!(self.mode(), Mode::Auto | Mode::Drain);
        let replica = self.replica();
        let waiting = replica.counts().waiting;
        let wait = match waiting {
            0 => Some(Duration::ZERO),
            _ if moves => replica.eta(waiting - 1, now).map(|eta| eta.expected),
            _ => None,
        };
        Forecast {
            calls_per_second: replica.calls_per_second(now),
            empty_in_seconds: wait.map(|wait| wait.as_secs_f64().ceil() as u64),
        }
    }
}
