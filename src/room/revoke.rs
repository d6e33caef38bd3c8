//! Ending one visitor's place or pass by the operator's word, at every gateway.
//!
//! It travels like anything else an operator says: with a turn, into the room's log, and so into every gateway's
//! replica, where a pass is looked up anyway. It is no ban: who was revoked may queue again, at the end.

use super::Room;
use super::replica::Place;
use super::standing::State;
use crate::queue::terms::Setting;
use crate::store::rooms::RoomFault;

impl Room {
    /// Ends the place or the pass of `number`, and says what it was; none when there was neither. Other gateways
    /// have heard of it with their next turn: within a tick where somebody waits, else within a second. One that is
    /// cut off from the store has not until it is back.
    ///
    /// # Errors
    /// When the store was not heard in time. The number may have been revoked.
    pub async fn revoke(&self, number: u64) -> Result<Option<State>, RoomFault> {
        self.caught_up().await?;
        let was = self.state_of(number);
        if was.is_some() {
            self.set(Setting::Revoke(number)).await?;
        }
        Ok(was)
    }

    fn state_of(&self, number: u64) -> Option<State> {
        let replica = self.replica();
        if number > replica.counts().last {
            return None;
        }
        match replica.place(number) {
            Place::Waiting { .. } => Some(State::Waiting),
            Place::Called => Some(State::Called),
            Place::Inside => Some(State::Inside),
            Place::Gone => None,
        }
    }
}
