//! The lobby of a room, as the state machine keeps it: when it stands, when it is drawn, and who is next.

use super::RoomState;
use crate::queue::lobby::{Draw, Ranks};
use crate::queue::shuffle::Seed;
use crate::queue::terms::{Order, Terms};

/// Most ranks of a lobby that are looked at in one turn, those included whose visitors have left. Where that was not
/// enough, the next turn is due at once.
pub const LOBBY_RANKS_PER_TURN: u64 = 500;

impl RoomState {
    /// What was drawn last.
    pub fn draw(&self) -> Option<Draw> {
        self.lobby.draw()
    }

    /// Before the opening a lobby stands; with the first turn after it the lobby is drawn, once the one before it is
    /// over. `nonce` is what nobody could know before.
    pub(in crate::queue) fn open_lobby(&mut self, terms: &Terms, nonce: u128) {
        if terms.order != Order::Shuffle {
            self.lobby.stands = false;
        } else if !terms.opened(self.now) {
            self.lobby.stands = true;
        } else if self.lobby.stands && !self.lobby_waits() {
            self.lobby.stands = false;
            if !self.waiting.is_empty() {
                self.draw_lobby(nonce);
            }
        }
    }

    /// The next to be called, and its rank; none when nobody is, or when `looks` ranks have been looked at.
    pub(super) fn next_waiting(&mut self, looks: &mut u64) -> Option<(u64, u64)> {
        let lowest = *self.waiting.first()?;
        if !self.lobby_waits() {
            self.frontier = self.lobby.draw().map_or(0, |draw| draw.last()).max(self.frontier);
            return (!self.lobby.stands).then_some((lowest, lowest));
        }
        while *looks > 0 {
            *looks -= 1;
            let rank = self.frontier + 1;
            let number = self.lobby.number(rank);
            if self.waiting.contains(&number) {
                return Some((number, rank));
            }
            self.frontier = rank;
        }
        None
    }

    /// Whether somebody of the last draw still waits to be called.
    fn lobby_waits(&self) -> bool {
        let current = self.lobby.current(self.frontier);
        let lowest = self.waiting.first();
        current
            .zip(lowest)
            .is_some_and(|(ranks, lowest)| *lowest <= ranks.draw().last())
    }

    fn draw_lobby(&mut self, nonce: u128) {
        let passed = self.lobby.draw().map_or(0, |draw| draw.last());
        self.frontier = self.frontier.max(passed);
        let draw = Draw {
            seed: Seed::draw(nonce, self.now.as_micros()),
            before: self.frontier,
            size: self.last - self.frontier,
            at: self.now,
        };
        self.lobby.ranks = Some(Ranks::new(draw));
    }
}

#[cfg(test)]
mod tests;
