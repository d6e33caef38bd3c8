//! What is told of a lobby: while it stands, and of the draw that ended it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Room;
use super::poll::{POLL_MAX, POLL_MIN, POLLS_PER_ABANDON};
use super::replica::Lot;
use super::rule::Rule;
use crate::base::clock::Timestamp;
use crate::base::mix::mix;
use crate::queue::lobby::Draw;
use crate::queue::turn::Counts;

/// Everyone in a lobby wants to know their place the moment it opens. Polls are spread so that a fleet has 10,000 of
/// them a second, each in memory.
const LOOK_PER_VISITOR: Duration = Duration::from_micros(100);

/// A lobby as an operator sees it; the draw is for publishing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LobbySnapshot {
    /// Whether one stands that will be shuffled at the opening.
    pub stands: bool,
    /// The last one that was.
    pub draw: Option<DrawSnapshot>,
}

/// By what a lobby was shuffled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrawSnapshot {
    /// 32 hex digits.
    pub seed: String,
    /// Numbers of the lobby, those included who had left.
    pub size: u64,
    /// The first order number of the lobby.
    pub first: u64,
}

pub(super) fn snapshot(counts: &Counts) -> Option<LobbySnapshot> {
    let draw = counts.draw.map(|draw| DrawSnapshot {
        seed: draw.seed.to_string(),
        size: draw.size,
        first: draw.before + 1,
    });
    (counts.lobby || draw.is_some()).then_some(LobbySnapshot {
        stands: counts.lobby,
        draw,
    })
}

/// When somebody in a lobby is to ask next: as everyone does, but soon after the opening at the latest.
pub(super) fn next_poll(number: u64, opens: Timestamp, size: u64, rule: &Rule, now: Timestamp) -> Duration {
    let most = POLL_MAX.min(rule.terms.abandon_after / POLLS_PER_ABANDON);
    let spread = LOOK_PER_VISITOR.saturating_mul(u32::try_from(size).unwrap_or(u32::MAX));
    let spread = spread.clamp(POLL_MIN.min(most), most);
    let jitter = spread * u32::try_from(mix(number) % 1_000).unwrap_or(0) / 1_000;
    let soon = opens.since(now) + rule.terms.tick + jitter;
    soon.min(most - most / 4 + jitter / 4).max(POLL_MIN.min(most))
}

impl Room {
    /// What a number drew, if it is of the last lobby that was shuffled.
    pub(super) fn lot(&self, number: u64) -> Option<Lot> {
        self.replica().lot(number)
    }

    /// Says by what a lobby was shuffled.
    pub(super) fn publish(&self, draw: Option<Draw>) {
        if let Some(Draw { seed, size, .. }) = draw {
            log::info!(
                "room {}: open, and its lobby of {size} is shuffled by seed {seed}",
                self.name()
            );
        }
    }
}
