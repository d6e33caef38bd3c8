//! Rooms in Redis or Valkey: one queue for a fleet of gateways.
//!
//! A turn is one script, `lua/room_turn.lua`, that does what `queue/` does; its keys share one hash tag, so a room
//! lives on one server of a cluster. Not decided here: what a gateway does while the store is away (`room/`).

mod memory;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::link::{Deadlines, Link};
use super::script::Script;
use crate::base::clock::Timestamp;
use crate::base::name::Name;
use crate::store::limits::StoreFault;
use crate::store::rooms::{RoomFault, RoomReply, RoomStore, RoomTurn};

/// What a room is kept in, in the order in which the script names it.
const PARTS: [&str; 11] = [
    "state", "queue", "bits", "joined", "called", "inside", "people", "owners", "log", "networks", "earlier",
];

/// When a turn is late: a little before the room itself stops waiting, for it is here that a silent connection must be
/// noticed. It is longer than for a limit, because what a turn gave whose answer was not waited for is nobody's.
const TURN_WITHIN: Duration = Duration::from_millis(450);

/// How much longer a late answer is listened for, on its own connection: a server that stood still does then what it was
/// told before.
const LATE_WITHIN: Duration = Duration::from_secs(60);

/// The rooms of a fleet. Made by [`super::RedisLimits::rooms`].
pub struct RedisRooms {
    link: Arc<Link>,
    prefix: String,
    turn: Script,
}

impl RedisRooms {
    pub(super) fn new(link: Arc<Link>, prefix: &str) -> Self {
        Self {
            link,
            prefix: prefix.to_owned(),
            turn: Script::room(),
        }
    }

    /// Does one turn at a given moment instead of the server's, and as if by that `server`, so that it can be compared
    /// with another store.
    ///
    /// # Errors
    /// Those of [`RoomStore::room_turn`].
    pub async fn turn_at(
        &self,
        room: &Name,
        request: &RoomTurn,
        now: Timestamp,
        server: u64,
    ) -> Result<RoomReply, RoomFault> {
        let pretended = (now.as_micros().to_string(), format!("{server:016x}"));
        self.apply(room, request, (&pretended.0, &pretended.1)).await
    }

    async fn apply(
        &self,
        room: &Name,
        request: &RoomTurn,
        (now, server): (&str, &str),
    ) -> Result<RoomReply, RoomFault> {
        let keys = PARTS.map(|part| format!("{}:{{room:{room}}}:{part}", self.prefix));
        let memory = memory::memory(request.turn.memory.as_ref());
        let args = [&wire::turn(request), now.as_bytes(), &memory, server.as_bytes()];
        let call = self.turn.call(keys, &args);
        self.link.connected().await;
        let read = |reply: &[u8]| wire::read_reply(reply, &request.turn);
        let deadlines = Deadlines {
            late_after: TURN_WITHIN,
            give_up_after: LATE_WITHIN,
        };
        self.link.ask_patiently(deadlines, &call, read).await.map_err(fault)
    }
}

/// A visitor is told no more than whether the answer may still come true.
fn fault(fault: StoreFault) -> RoomFault {
    match fault {
        StoreFault::Timeout => RoomFault::Timeout,
        StoreFault::Unavailable
        | StoreFault::Garbled
        | StoreFault::OutOfMemory
        | StoreFault::ReadOnly
        | StoreFault::Loading
        | StoreFault::Auth
        | StoreFault::ClusterDown
        | StoreFault::Moving
        | StoreFault::Busy
        | StoreFault::Refused => RoomFault::Unavailable,
    }
}

impl fmt::Debug for RedisRooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisRooms({})", self.prefix)
    }
}

#[async_trait]
impl RoomStore for RedisRooms {
    async fn room_turn(&self, room: &Name, turn: RoomTurn) -> Result<RoomReply, RoomFault> {
        self.apply(room, &turn, ("", "")).await
    }
}
