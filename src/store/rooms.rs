//! The contract of a store of rooms.
//!
//! A gateway speaks to a room in turns, one at a time: a turn carries everything its visitors did since the last
//! one, and the answer carries everything that happened in the room since then, by whichever gateway. So a room
//! costs a store a fixed number of calls per tick and gateway, and a visitor who polls costs it none.
//!
//! Obligations of a store:
//! * A turn is atomic, and all turns of a room are done one after another, at the store's own clock, which never
//!   goes back.
//! * A store that lost its state starts a new epoch.
//! * A turn whose answer was not waited for, or was lost, may have been done. Whoever goes on asking for such an answer
//!   hears it when it comes after all, or that it is given up, after a bounded time.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::base::name::Name;
use crate::queue::log::{Change, Cursor, Snapshot};
use crate::queue::turn::{Outcome, Turn};
use crate::store::limits::StoreFault;

/// Where the order of rooms is kept.
#[async_trait]
pub trait RoomStore: fmt::Debug + Send + Sync {
    /// Does one turn of a room.
    async fn room_turn(&self, room: &Name, turn: RoomTurn) -> Result<RoomReply, RoomFault>;
}

/// A turn, and how far this gateway has followed the room.
#[derive(Debug, Clone)]
pub struct RoomTurn {
    /// What the gateway gathered.
    pub turn: Turn,
    /// Where it stopped reading.
    pub cursor: Cursor,
}

/// What came of a turn, and what happened since the cursor.
#[derive(Debug, Clone)]
pub struct RoomReply {
    /// What came of it. Its own change is part of `news`.
    pub outcome: Outcome,
    /// What happened since.
    pub news: News,
    /// Where to go on reading.
    pub cursor: Cursor,
}

/// How a gateway catches up with a room.
#[derive(Debug, Clone)]
pub enum News {
    /// By these changes, in order.
    Changes(Vec<Arc<Change>>),
    /// By starting over: the gateway is new, or the log has forgotten what it missed, or the room is in another
    /// life.
    Snapshot(Snapshot),
}

/// Why a store did not do a turn, as far as anyone knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomFault {
    /// No answer in time. The turn may have been done.
    Timeout,
    /// The store cannot be reached, or has enough to do.
    Unavailable,
    /// The store was reached, and this is what keeps it from doing the turn.
    Refused(StoreFault),
}

impl From<StoreFault> for RoomFault {
    fn from(fault: StoreFault) -> Self {
        match fault {
            StoreFault::Timeout => Self::Timeout,
            StoreFault::Unavailable => Self::Unavailable,
            StoreFault::Garbled
            | StoreFault::OutOfMemory
            | StoreFault::ReadOnly
            | StoreFault::Loading
            | StoreFault::Auth
            | StoreFault::ClusterDown
            | StoreFault::Moving
            | StoreFault::Busy
            | StoreFault::Refused => Self::Refused(fault),
        }
    }
}

impl RoomFault {
    /// As a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Refused(fault) => fault.as_str(),
        }
    }
}

impl fmt::Display for RoomFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("the store did not answer in time"),
            Self::Unavailable => f.write_str("the store is unavailable"),
            Self::Refused(fault) => write!(f, "the store does not do it ({fault})"),
        }
    }
}

impl std::error::Error for RoomFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_a_room_is_called_what_the_stores_fault_is() {
        for fault in [
            StoreFault::Timeout,
            StoreFault::Unavailable,
            StoreFault::Garbled,
            StoreFault::OutOfMemory,
            StoreFault::ReadOnly,
            StoreFault::Loading,
            StoreFault::Auth,
            StoreFault::ClusterDown,
            StoreFault::Moving,
            StoreFault::Busy,
            StoreFault::Refused,
        ] {
            assert_eq!(RoomFault::from(fault).as_str(), fault.as_str());
        }
        let told = RoomFault::from(StoreFault::OutOfMemory).to_string();
        assert!(told.contains("out_of_memory"), "{told}");
    }
}
