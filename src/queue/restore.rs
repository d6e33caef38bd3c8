//! How a room finds its order again when its store has lost it.
//!
//! A store may come back empty, or with an older state: restarted from a snapshot, or a replica that lagged when it took
//! over. Then the gateways remember more than the store. So a room whose store knows nothing, or has become another
//! server, **listens** before it does anything else: each gateway tells what it remembers, range by range, and until
//! all had the time to do so nobody is called and no number is given. Gateways meanwhile answer from memory, and those
//! who are inside go on.
//!
//! # Why the order holds
//!
//! * What a gateway remembers divides *all* numbers up to the last it heard of into waiting, called, inside and gone. So
//!   does the room, up to its own last. A number moves one way only, from waiting to gone; so where two disagree, the
//!   one who saw it further on saw it later, and of every number the **furthest stage** is the truth. A number that one
//!   of them never heard of stands where the other says. So the result does not depend on who speaks first, or twice.
//! * A gateway tells from the lowest number up, and a range that does not follow what is known already is not heard, or
//!   the numbers between would be taken for gone. The frontier follows the ranges: it never goes back, and what lies at
//!   or below it does not wait.
//! * Ranges are ranges of numbers, in a lobby that was shuffled too, whose frontier is a rank. So the frontier comes no
//!   further than to the beginning of a lobby that is being called. That is sound because calling passes over whoever
//!   does not wait: it walks up again to where it was, and calls nobody on the way who had been called. A draw is taken
//!   over when all of its lobby has been told. A lobby that still stands goes on to stand.
//! * **No number is given twice.** A gateway takes in the answer to a turn before it tells its visitors. So the greatest
//!   last number of all gateways is at least the greatest number that any of *their* visitors holds. Numbers of which
//!   nobody living knows were given through a gateway that died with the store, after the others' last turn, which is
//!   little more than a second ago. [`GAP`] numbers are left out for these: a server gives some 210,000 a second at most.
//! * Of what operators said, the memory that has followed the log furthest has the last word: what they say is a change
//!   in it.
//! * A visitor whose number is known to be used cannot use it again: inside and gone win. One who is found inside is
//!   never given a copy of the pass: when they entered is not known, so it was not a moment ago.
//! * The room waits [`RESTORE_WITHIN`] from the first turn on. An idle gateway turns every second, and one that lost its
//!   connection is back within two. One that is still telling, or remembers what nobody has told of yet, is
//!   waited for longer, up to [`RESTORE_MAX`].
//!
//! Where no gateway remembers the room either, people come back by what they hold: see [`super::earlier`].
//!
//! What is lost with an empty store: when places were given and to which owner, and calls of a rate's window that
//! is longer than the listening. Passes and calls begin their time anew; a pass that is used says its own expiry.

use std::time::Duration;

use super::earlier::{Shown, latest};
use super::lobby::Draw;
use super::log::{Cursor, Log};
use super::order::{HEARING, RoomState};
use super::terms::{Setting, Terms};
use super::turn::{Outcome, Turn};
use crate::base::clock::Timestamp;

/// How long a room listens at least.
pub const RESTORE_WITHIN: Duration = Duration::from_secs(3);

/// Longest that a room listens, whoever has more to tell.
pub const RESTORE_MAX: Duration = Duration::from_secs(30);

/// Numbers that are left out after a loss: more than a server gives in the time that no gateway may know of.
pub const GAP: u64 = 1 << 18;

/// What a gateway remembers of the numbers `from` to `to`: those that it does not name are gone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// How far it had followed the room.
    pub cursor: Cursor,
    /// The last number called.
    pub frontier: u64,
    /// The last number given.
    pub last: u64,
    /// The first number told of.
    pub from: u64,
    /// The last number told of; the last range ends at `last`.
    pub to: u64,
    /// Numbers waiting, ascending, all of ranks beyond the frontier.
    pub waiting: Vec<u64>,
    /// Numbers called and not yet inside, ascending.
    pub called: Vec<u64>,
    /// Numbers inside, ascending.
    pub inside: Vec<u64>,
    /// What operators had said, from nothing on, and under which rule file.
    pub said: Vec<Setting>,
    /// Whether a lobby stood that would be shuffled.
    pub lobby: bool,
    /// The last lobby that was shuffled. While it is called, numbers of it wait on both sides of the frontier.
    pub draw: Option<Draw>,
}

impl Memory {
    /// Whether there is more to tell.
    pub fn goes_on(&self) -> bool {
        self.to < self.last
    }
}

/// A room listens: the turn was not done, apart from what it told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restoring {
    /// Since when, by the store's clock. Another moment is another loss: everything is to be told again.
    pub since: Timestamp,
    /// How much longer, unless somebody has more to tell.
    pub left: Duration,
}

/// What a room has heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// Whether it knows nothing: no number was given, no memory taken in.
    pub(super) fresh: bool,
    /// Which server did the last turn; 0 if that is not known.
    server: u64,
    listens: Option<Listening>,
    /// What people of an earlier life have shown meanwhile.
    shown: Option<Shown>,
}

#[derive(Debug, Clone, Copy)]
struct Listening {
    since: Timestamp,
    until: Timestamp,
}

/// Whether a turn may be done.
#[derive(Debug)]
pub enum Hearing {
    /// It may.
    Over,
    /// Not yet: this is its answer.
    On(Box<Outcome>),
}

/// Comes before every turn: hears what it tells, if the room has reason to listen. `server` tells the store's server
/// from any other, 0 if that is not known.
pub fn listen(
    (state, log): (&mut RoomState, &mut Log),
    turn: &Turn,
    cursor: Cursor,
    server: u64,
    now: Timestamp,
) -> Hearing {
    let now = state.begin(&turn.settings, now);
    let terms = state.terms(&turn.terms);
    let ahead = cursor.epoch == state.epoch() && cursor.sequence > log.sequence();
    let Some(mut listening) = state.heard().notice(server, ahead, now) else {
        return Hearing::Over;
    };
    if let Some(memory) = &turn.memory {
        take_in((state, log), &terms, memory);
    }
    let own = state.epoch();
    state.heard().shown = latest(state.heard().shown, &turn.returns, own, now);
    let ahead = cursor.epoch == state.epoch() && cursor.sequence > log.sequence();
    let unheard = ahead || (state.heard().fresh && cursor.epoch != 0 && cursor.epoch != state.epoch());
    if unheard || turn.memory.as_ref().is_some_and(Memory::goes_on) {
        let longer = (now + RESTORE_WITHIN).min(listening.since + RESTORE_MAX);
        listening.until = listening.until.max(longer);
    }
    if now >= listening.until {
        settle((state, log), &terms, now);
        return Hearing::Over;
    }
    state.heard().listens = Some(listening);
    let restoring = Restoring {
        since: listening.since,
        left: listening.until.since(now),
    };
    Hearing::On(Box::new(Outcome::restoring(restoring, now)))
}

impl Heard {
    /// A room that was made just now and has reason to listen.
    pub(super) fn nothing() -> Self {
        Self {
            fresh: true,
            ..Self::default()
        }
    }

    /// What the room listens for, if it does.
    fn notice(&mut self, server: u64, ahead: bool, now: Timestamp) -> Option<Listening> {
        let moved = server != 0 && self.server != 0 && server != self.server;
        if server != 0 {
            self.server = server;
        }
        let begins = moved || (self.listens.is_none() && (self.fresh || ahead));
        if begins {
            self.shown = None;
            self.listens = Some(Listening {
                since: now,
                until: now + RESTORE_WITHIN,
            });
        }
        self.listens
    }
}

fn take_in((state, log): (&mut RoomState, &mut Log), terms: &Terms, memory: &Memory) {
    let adopts = state.heard().fresh;
    let same = memory.cursor.epoch == state.epoch();
    if memory.cursor.epoch == 0 || !(adopts || same) || !state.is_followed_by(memory) {
        return;
    }
    if adopts {
        state.adopt(memory.cursor.epoch);
        state.heard().fresh = false;
    }
    if adopts || memory.cursor.sequence > log.sequence() {
        state.said(memory);
    }
    log.skip_to(memory.cursor.sequence);
    state.recall(terms, memory);
}

/// The room has heard enough. Nobody can follow it from where they were.
fn settle((state, log): (&mut RoomState, &mut Log), terms: &Terms, now: Timestamp) {
    let is_unknown = state.heard().fresh;
    state.resume(if is_unknown { 0 } else { GAP }, now + HEARING);
    if is_unknown {
        let shown = state.heard().shown;
        state.began_anew(terms, shown);
    }
    state.heard().fresh = false;
    state.heard().listens = None;
    log.start_over();
}
