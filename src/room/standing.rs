//! Where a visitor stands, as the queue API and the waiting page tell it.

use std::time::Duration;

use crate::base::clock::Timestamp;

/// What a place in a room is worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In the queue.
    Waiting,
    /// It is this visitor's turn: the ticket becomes a pass when they come.
    Called,
    /// Let in.
    Inside,
}

impl State {
    /// As it stands in the queue API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Called => "called",
            Self::Inside => "inside",
        }
    }
}

/// What else a waiting visitor should be told about the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The queue moves.
    Moving,
    /// The room opens at this moment; until then everyone waits.
    OpensAt(Timestamp),
    /// The room opens at this moment, and so many stand in its lobby: they are shuffled then, and nobody has a place yet.
    Lobby {
        /// When it opens.
        opens: Timestamp,
        /// How many are there.
        size: u64,
    },
    /// The operator holds the room: nobody is called for now.
    Held,
}

/// Where a visitor stands, exact as of `as_of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Waiting, called or inside.
    pub state: State,
    /// Visitors who will be called before this one. Never grows.
    pub ahead: u64,
    /// Visitors who will be called after this one.
    pub behind: u64,
    /// The expected wait from now; none while nobody has been called yet.
    pub eta: Option<Duration>,
    /// When to ask next.
    pub next_poll: Duration,
    /// What the room as a whole is doing.
    pub notice: Notice,
    /// When the visitor took this place, as the ticket says; none where no ticket was looked at.
    pub since: Option<Timestamp>,
    /// When the gateway last heard from the store.
    pub as_of: Timestamp,
}
