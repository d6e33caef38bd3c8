//! One turn of a room: everything a gateway gathered, done at one moment, and what came of it.

use std::time::Duration;

use super::earlier::{Return, Returned};
use super::lobby::Draw;
use super::log::Change;
use super::order::RoomState;
use super::restore::{Memory, Restoring};
use super::terms::{Mode, Setting, Terms};
use crate::base::clock::Timestamp;
use crate::base::rate::Rate;

/// What a gateway gathered since its last turn. Done in the order of these fields, with the tick between the
/// leaves and the joins: places that came free go first to those who wait, then to those who come.
#[derive(Debug, Clone)]
pub struct Turn {
    /// The rule in force at the gateway.
    pub terms: Terms,
    /// The life of the queue that the numbers below belong to; inputs of another life are void.
    pub epoch: u64,
    /// What operators said.
    pub settings: Vec<Setting>,
    /// Passes that were used and live on until the moment beside them.
    pub renewals: Vec<(u64, Timestamp)>,
    /// Waiting numbers that gave a sign of life.
    pub touches: Vec<u64>,
    /// Called numbers that want to become passes.
    pub enters: Vec<u64>,
    /// Numbers that give back their place or pass.
    pub leaves: Vec<u64>,
    /// People of an earlier life of the room, who go before all that come now.
    pub returns: Vec<Return>,
    /// Whether those who wait may be called in this turn.
    pub tick: bool,
    /// Visitors who come.
    pub joins: Vec<Join>,
    /// What nobody could know before: a lobby is shuffled by the nonce of the turn that finds it open.
    pub nonce: u128,
    /// What the gateway remembers, for a room that listens.
    pub memory: Option<Memory>,
}

impl Turn {
    /// A turn that carries nothing.
    pub fn new(terms: Terms, epoch: u64) -> Self {
        Self {
            terms,
            epoch,
            settings: Vec::new(),
            renewals: Vec::new(),
            touches: Vec::new(),
            enters: Vec::new(),
            leaves: Vec::new(),
            returns: Vec::new(),
            tick: false,
            joins: Vec::new(),
            nonce: 0,
            memory: None,
        }
    }
}

/// A visitor who comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Join {
    /// Hash of the key the room gives one place per.
    pub owner: Option<u128>,
    /// What to do when there is no room at once.
    pub otherwise: Otherwise,
    /// Whose places are counted together, where the room bounds them.
    pub share: Option<Share>,
}

/// What a network may have of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Hash of the network.
    pub network: u64,
    /// Most places, waiting, called or inside, that it may have. One that has as many gets no new one.
    pub most: u32,
}

/// What a visitor wants who cannot go straight in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otherwise {
    /// A place in the queue.
    Wait,
    /// Nothing: who cannot see a waiting page would never come back for the place.
    Refuse,
}

/// What a place is worth, as the store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In the queue.
    Waiting,
    /// May enter.
    Called,
    /// Inside until this moment, unless renewed.
    Inside {
        /// When the pass expires.
        until: Timestamp,
    },
}

/// What came of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// A place: a new one, or the owner's own.
    Place {
        /// The order number.
        number: u64,
        /// When the number was given.
        since: Timestamp,
        /// Where it stands.
        stage: Stage,
    },
    /// No place.
    Refused(Refusal),
}

/// Why a join got no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The room is off: go through without a place.
    Off,
    /// The room drains: nobody new.
    Closed,
    /// As many wait as may.
    Full,
    /// The visitor's network has as many places as it may.
    Crowded,
    /// No room at once, and no place was wanted.
    NoRoom,
}

/// What came of an attempt to enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// This call turned the ticket into a pass.
    Now {
        /// When the pass expires.
        until: Timestamp,
    },
    /// An earlier call did.
    Already {
        /// When it did.
        since: Timestamp,
        /// When the pass expires.
        until: Timestamp,
    },
    /// It is not this number's turn.
    NotYet,
    /// Given up, or too late.
    Gone,
}

/// How many are where, and the terms in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// In the queue.
    pub waiting: u64,
    /// Called, not yet inside.
    pub called: u64,
    /// Holding a pass.
    pub inside: u64,
    /// The last number given.
    pub last: u64,
    /// The last number called.
    pub frontier: u64,
    /// The mode in force.
    pub mode: Mode,
    /// The capacity in force.
    pub visitors: Option<u64>,
    /// The rate in force.
    pub admit: Option<Rate>,
    /// Whether a lobby stands that will be shuffled.
    pub lobby: bool,
    /// The last lobby that was shuffled.
    pub draw: Option<Draw>,
}

/// What the turn itself brought about, for counters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Visitors called, those who went straight in included.
    pub called: u64,
    /// Passes given.
    pub entered: u64,
    /// Places given up before they were called, or left.
    pub abandoned: u64,
    /// Calls that nobody answered.
    pub unclaimed: u64,
    /// For each visitor called after waiting: how long it took.
    pub waits: Vec<Duration>,
}

/// What came of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The life of the queue.
    pub epoch: u64,
    /// When the turn was done, by the store's clock.
    pub now: Timestamp,
    /// One for each enter, in order.
    pub enters: Vec<Entered>,
    /// One for each return, in order.
    pub returns: Vec<Returned>,
    /// One for each join, in order.
    pub joins: Vec<Joined>,
    /// What changed, if anything did.
    pub change: Option<Change>,
    /// Where everyone is now.
    pub counts: Counts,
    /// When a tick will be worth while although the next is not due yet.
    pub tick_at: Option<Timestamp>,
    /// What the turn brought about.
    pub tally: Tally,
    /// The room listens, and the turn was not done.
    pub restoring: Option<Restoring>,
}

impl Outcome {
    /// The answer to a turn that was not done, because the room listens.
    pub fn restoring(restoring: Restoring, now: Timestamp) -> Self {
        Self {
            epoch: 0,
            now,
            enters: Vec::new(),
            returns: Vec::new(),
            joins: Vec::new(),
            change: None,
            counts: Counts::default(),
            tick_at: None,
            tally: Tally::default(),
            restoring: Some(restoring),
        }
    }
}

/// Does one turn at `now`. A clock that went back is taken to have stood still.
pub fn turn(state: &mut RoomState, turn: &Turn, now: Timestamp) -> Outcome {
    let now = state.begin(&turn.settings, now);
    let terms = state.terms(&turn.terms);
    state.open_lobby(&terms, turn.nonce);
    if turn.epoch == state.epoch() {
        state.revoke(&turn.settings);
        for (number, until) in &turn.renewals {
            state.renew(&terms, *number, *until);
        }
        for number in &turn.touches {
            state.touch(*number);
        }
    }
    state.expire(&terms);
    let enters = turn.enters.iter();
    let enters = enters.map(|number| match turn.epoch == state.epoch() {
        true => state.enter(&terms, *number),
        false => Entered::Gone,
    });
    let enters = enters.collect();
    if turn.epoch == state.epoch() {
        for number in &turn.leaves {
            state.leave(*number);
        }
    }
    let returns = state.come_back(&terms, &turn.returns);
    if turn.tick {
        state.call(&terms);
    }
    let joins = turn.joins.iter().map(|join| state.join(&terms, *join)).collect();
    let (change, tally) = state.end(turn.settings.iter().any(Setting::steers));
    Outcome {
        epoch: state.epoch(),
        now,
        enters,
        returns,
        joins,
        change,
        counts: state.counts(&terms),
        tick_at: state.tick_at(&terms),
        tally,
        restoring: None,
    }
}
