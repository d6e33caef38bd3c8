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
    /// The store cannot be reached, or refuses.
    Unavailable,
}

impl RoomFault {
    /// As a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for RoomFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "the store did not answer in time",
            Self::Unavailable => "the store is unavailable",
        })
    }
}

impl std::error::Error for RoomFault {}
