//! The lobby of a room that is shuffled at its opening: what was drawn, and what it makes of order numbers.
//!
//! Nothing is moved at the draw. Visitors keep their order numbers, and tickets stay what they are; what changes is
//! the order in which numbers are called: by rank. Outside a lobby a number is its own rank. So a draw costs the same
//! whatever the size of the lobby, and a gateway computes the rank of a ticket without asking anyone.

use super::shuffle::{Seed, Shuffle};
use crate::base::clock::Timestamp;

/// A lobby that was shuffled. With this, anyone can compute the rank of anyone; see [`super::shuffle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// What it was shuffled by.
    pub seed: Seed,
    /// The last order number that is not of the lobby: lobby number `k` is order number `before + k`.
    pub before: u64,
    /// Order numbers of the lobby, those included whose visitors had left.
    pub size: u64,
    /// When, by the store's clock.
    pub at: Timestamp,
}

impl Draw {
    /// The last order number of the lobby.
    pub const fn last(&self) -> u64 {
        self.before.saturating_add(self.size)
    }

    /// The lobby number of an order number; none of one that is not of the lobby.
    pub fn lobby_number(&self, number: u64) -> Option<u64> {
        (number > self.before && number <= self.last()).then(|| number - self.before)
    }
}

/// A draw with its permutation worked out.
#[derive(Debug, Clone)]
pub struct Ranks {
    draw: Draw,
    shuffle: Shuffle,
}

impl Ranks {
    /// Works it out: some 8 milliseconds for the largest lobby, of 100 million.
    pub fn new(draw: Draw) -> Self {
        Self {
            draw,
            shuffle: Shuffle::new(draw.seed, draw.size),
        }
    }

    /// What was drawn.
    pub const fn draw(&self) -> &Draw {
        &self.draw
    }

    /// The rank of an order number.
    pub fn rank(&self, number: u64) -> u64 {
        let lobby = self.draw.lobby_number(number);
        lobby.map_or(number, |lobby| self.draw.before + self.shuffle.rank(lobby))
    }

    /// The order number of a rank.
    pub fn number(&self, rank: u64) -> u64 {
        let lobby = self.draw.lobby_number(rank);
        lobby.map_or(rank, |lobby| self.draw.before + self.shuffle.number(lobby))
    }
}

/// A room's lobby: whether one stands, and what was drawn last.
#[derive(Debug, Clone, Default)]
pub struct Lobby {
    /// Whether who comes now is shuffled at the opening.
    pub stands: bool,
    /// The last draw.
    pub ranks: Option<Ranks>,
}

impl Lobby {
    /// The last draw, if its lobby is still being called: the frontier is within it.
    pub fn current(&self, frontier: u64) -> Option<&Ranks> {
        self.ranks.as_ref().filter(|ranks| frontier < ranks.draw.last())
    }

    /// The rank of an order number.
    pub fn rank(&self, number: u64) -> u64 {
        self.ranks.as_ref().map_or(number, |ranks| ranks.rank(number))
    }

    /// The order number of a rank.
    pub fn number(&self, rank: u64) -> u64 {
        self.ranks.as_ref().map_or(rank, |ranks| ranks.number(rank))
    }

    /// What was drawn last.
    pub fn draw(&self) -> Option<Draw> {
        self.ranks.as_ref().map(|ranks| ranks.draw)
    }
}
