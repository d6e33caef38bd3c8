//! Rooms in this process's memory: for one gateway, and for as long as it lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::base::clock::{Clock, Timestamp};
use crate::base::name::Name;
use crate::queue::log::{Cursor, Log};
use crate::queue::order::RoomState;
use crate::queue::restore::{Hearing, listen};
use crate::queue::turn::turn;
use crate::store::rooms::{News, RoomFault, RoomReply, RoomStore, RoomTurn};

/// Rooms by name. A room is made by its first turn; rooms are as many as the operator has named.
///
/// One lock a room, held for one turn: turns must be done one after another anyway, and a turn does no I/O. The
/// epoch is the moment of the start, so a ticket of an earlier life of the process is recognised as old.
#[derive(Debug)]
pub struct MemoryRooms {
    clock: Arc<dyn Clock>,
    epoch: u64,
    server: u64,
    rooms: Mutex<HashMap<Name, Arc<Mutex<Ledger>>>>,
}

#[derive(Debug, Clone)]
struct Ledger {
    state: RoomState,
    log: Log,
}

impl MemoryRooms {
    /// No rooms yet, and none that anybody could remember.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let epoch = clock.now().as_micros().max(1);
        Self {
            clock,
            epoch,
            server: 0,
            rooms: Mutex::default(),
        }
    }

    /// What stands in for a store that is another `server` now and may have lost its rooms, so that its rooms listen
    /// first: a model, to hold others against. `server` is never 0.
    pub fn on_server(clock: Arc<dyn Clock>, server: u64) -> Self {
        Self {
            server,
            ..Self::new(clock)
        }
    }

    /// What another server has that followed this one until now.
    #[must_use]
    pub fn copied_to(&self, server: u64) -> Self {
        let rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let copy = |ledger: &Mutex<Ledger>| ledger.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rooms = rooms
            .iter()
            .map(|(name, ledger)| (name.clone(), Arc::new(Mutex::new(copy(ledger)))));
        Self {
            clock: Arc::clone(&self.clock),
            epoch: self.epoch,
            server,
            rooms: Mutex::new(rooms.collect()),
        }
    }

    /// Does one turn at `now`.
    pub fn turn_at(&self, room: &Name, request: &RoomTurn, now: Timestamp) -> RoomReply {
        let ledger = self.ledger(room);
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.turn(request, self.server, now)
    }

    fn ledger(&self, room: &Name) -> Arc<Mutex<Ledger>> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ledger) = rooms.get(room) {
            return Arc::clone(ledger);
        }
        let ledger = Ledger {
            state: match self.server {
                0 => RoomState::new(self.epoch),
                _ => RoomState::unheard(self.epoch),
            },
            log: Log::default(),
        };
        Arc::clone(rooms.entry(room.clone()).or_insert(Arc::new(Mutex::new(ledger))))
    }
}

impl Ledger {
    fn turn(&mut self, request: &RoomTurn, server: u64, now: Timestamp) -> RoomReply {
        let room = (&mut self.state, &mut self.log);
        if let Hearing::On(outcome) = listen(room, &request.turn, request.cursor, server, now) {
            return RoomReply {
                outcome: *outcome,
                news: News::Changes(Vec::new()),
                cursor: Cursor::default(),
            };
        }
        let (drawn, earlier) = (self.state.draw(), self.state.earlier_life());
        let outcome = turn(&mut self.state, &request.turn, now);
        let left_out = earlier.is_none() && self.state.earlier_life().is_some();
        if outcome.counts.draw != drawn || left_out {
            // Ranks are not what they were, or numbers were left out for people of an earlier life: whoever follows the room starts over.
            self.log.forget();
        }
        if let Some(change) = &outcome.change {
            self.log.push(change.clone());
        }
        let here = Cursor {
            epoch: outcome.epoch,
            sequence: self.log.sequence(),
        };
        let followed = request.cursor.epoch == here.epoch;
        let changes = followed.then(|| self.log.since(request.cursor.sequence)).flatten();
        let news = changes.map_or_else(|| News::Snapshot(self.state.snapshot()), News::Changes);
        RoomReply {
            outcome,
            news,
            cursor: here,
        }
    }
}

#[async_trait]
impl RoomStore for MemoryRooms {
    async fn room_turn(&self, room: &Name, turn: RoomTurn) -> Result<RoomReply, RoomFault> {
        Ok(self.turn_at(room, &turn, self.clock.now()))
    }
}
