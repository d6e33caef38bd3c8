//! How people come back into a room that nobody remembers: by what they hold.
//!
//! Where the store and every gateway were lost, nobody is left to say who waited ([`super::restore`] is for when somebody
//! is). But a ticket is signed. It says in which life of the room its holder stood, at which rank, and when they last
//! gave a sign of life. So a room that began with nobody remembering it takes such people in, ahead of all who come now.
//!
//! # What is done
//!
//! * The room is **known to be lost** once a slip of an earlier life is shown, while it listens or within
//!   [`listening`] of its beginning. Then it leaves out a window of numbers: every rank of that life for a million to
//!   either side of the one that was shown stands for one even number of the window. Who comes back gets that number, so
//!   they stand in their old order, whoever shows theirs first. New numbers are given from above the window.
//! * Until [`listening`] is over **nobody is called**: it is the longest time between two polls, so everyone who kept
//!   polling has shown their ticket by then, and everyone inside who was active has shown their pass.
//! * A **straggler**, whose number the frontier has passed, gets the next odd number beyond it: they are put next. Tickets
//!   are taken for as long as a place is kept without a sign of life.
//!   Once so many have been called that the frontier is beyond the window, whoever comes yet joins anew.
//! * A **pass** goes on until it expires, and takes a slot, whether or not there is a free one: nobody who is inside is
//!   queued again. Nobody is called until enough slots are free.
//!
//! # What a slip is worth
//!
//! * Each gives one place. Whoever shows it again, or a copy, is shown the same place; and nothing once that place is
//!   over, or somebody has entered by it. Who shows the pass of a number is inside, whoever shows its ticket.
//! * A ticket counts if its holder was heard of within two times `abandon_after` of the one who was heard of last, and
//!   within [`EARLIER_MAX`] of now: others had given their place up. So a ticket that was used shortly before the loss,
//!   and whose pass is not shown meanwhile, may be used again. Nobody is left who knows better.
//! * A rank, and not a number, is what says who is first: of a lobby that was shuffled the draw is lost too. A ticket of a
//!   lobby that was not drawn yet has no rank. It gives no place: in a lobby there is no order to be lost.
//! * A place that an operator revoked may come back: nobody is left who remembers.
//!
//! Whoever took a number of the new life before the first slip was shown stays ahead.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::terms::Terms;
use super::turn::Stage;
use crate::base::clock::Timestamp;

/// Longest that a room listens for people who come back: the longest time between two polls.
const EARLIER_LISTEN_MAX: Duration = Duration::from_secs(75);

/// Of `abandon_after`, where that is short: visitors are told to poll so much more often.
const LISTEN_PART: (u32, u32) = (5, 16);

/// A ticket whose holder was not heard of for so long says nothing about a loss.
pub(super) const EARLIER_MAX: Duration = Duration::from_secs(6 * 3_600);

/// Ranks to either side of the first that is shown whose holders are taken in.
pub(super) const RANKS_EITHER_WAY: u64 = 1 << 20;

/// Ranks whose holders are taken in. Each has two numbers: its own, and one for a straggler.
const RANKS: u64 = 2 * RANKS_EITHER_WAY;

/// Numbers that are looked at for one that is free, for a straggler.
const SPARES_TRIED: usize = 64;

/// A window begins and ends with a chunk of numbers that a store keeps together.
const CHUNK: u64 = 64;

/// How long a room listens for people of an earlier life, from its beginning on.
pub fn listening(terms: &Terms) -> Duration {
    let (part, whole) = LISTEN_PART;
    EARLIER_LISTEN_MAX.min(terms.abandon_after.saturating_mul(part) / whole)
}

/// Somebody who shows a genuine slip of an earlier life of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return {
    /// That life.
    pub epoch: u64,
    /// By which its holder was to be called, or was called; 0 for none.
    pub rank: u64,
    /// What is shown.
    pub shows: Shows,
    /// Hash of the key the room gives one place per.
    pub owner: Option<u128>,
}

/// A slip of an earlier life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// A ticket.
    Ticket {
        /// When its holder last gave a sign of life, as the ticket says.
        heard: Timestamp,
    },
    /// A pass.
    Pass {
        /// When it expires.
        until: Timestamp,
    },
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// A place.
    Place {
        /// The order number, in this life.
        number: u64,
        /// When this life gave it.
        since: Timestamp,
        /// Where it stands.
        stage: Stage,
    },
    /// No place: the slip is worth nothing here.
    Unknown,
}

/// By which slip a room learned that it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) epoch: u64,
    pub(super) rank: u64,
}

impl Return {
    /// Whether it may tell a room of this life that it was lost.
    fn tells(&self, own: u64, now: Timestamp) -> bool {
        let recent = match self.shows {
            Shows::Ticket { heard } => heard + EARLIER_MAX > now,
            Shows::Pass { until } => until > now,
        };
        recent && self.rank > 0 && self.epoch != 0 && self.epoch != own
    }
}

/// The first slip of the latest life among `returns`, if it is of a later one than `before`.
pub(super) fn latest(before: Option<Shown>, returns: &[Return], own: u64, now: Timestamp) -> Option<Shown> {
    let telling = returns.iter().filter(|one| one.tells(own, now));
    telling.fold(before, |best, one| match best {
        Some(best) if best.epoch >= one.epoch => Some(best),
        _ => Some(Shown {
            epoch: one.epoch,
            rank: one.rank,
        }),
    })
}

/// What a room knows of its earlier life.
#[derive(Debug, Clone, Default)]
pub(super) struct Earlier {
    /// When it began with nobody remembering it; none where somebody did, or when that is long past.
    pub(super) began: Option<Timestamp>,
    /// Once a slip has been shown.
    pub(super) life: Option<Life>,
}

impl Earlier {
    /// Whether nobody may be called yet.
    pub(super) fn holds(&self, terms: &Terms, now: Timestamp) -> bool {
        self.life.is_some() && self.listens(terms, now)
    }

    /// Whether a slip may still tell that the room was lost.
    pub(super) fn listens(&self, terms: &Terms, now: Timestamp) -> bool {
        self.began.is_some_and(|began| now < began + listening(terms))
    }

    /// Whether tickets are still taken.
    pub(super) fn takes_tickets(&self, terms: &Terms, now: Timestamp) -> bool {
        self.began.is_some_and(|began| now < began + terms.abandon_after)
    }

    /// Forgets it all once nothing of that life can be worth anything.
    pub(super) fn close(&mut self, terms: &Terms, now: Timestamp) {
        let longest = terms.abandon_after.max(terms.pass);
        if self.began.is_some_and(|began| now >= began + longest) {
            *self = Self::default();
        }
    }
}

/// An earlier life, and the numbers that stand for its ranks.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) epoch: u64,
    /// The first number of the window; its ranks begin after this one.
    start: u64,
    lowest: u64,
    /// When the holder of a ticket was last heard of.
    newest: Timestamp,
    /// No odd number below it is free.
    spare: u64,
    /// Numbers of the window that were given.
    pub(super) taken: HashSet<u64>,
    /// Whose number the frontier had passed, and the number given instead.
    pub(super) moved: HashMap<u64, u64>,
}

impl Life {
    /// Its window begins above `last`.
    pub(super) fn new(shown: Shown, last: u64) -> Self {
        let start = (last / CHUNK + 1) * CHUNK;
        Self {
            epoch: shown.epoch,
            start,
            lowest: shown.rank.saturating_sub(RANKS_EITHER_WAY),
            newest: Timestamp::default(),
            spare: start + 1,
            taken: HashSet::new(),
            moved: HashMap::new(),
        }
    }

    /// The last number of the window.
    pub(super) fn last(&self) -> u64 {
        self.start + 2 * RANKS + CHUNK - 1
    }

    /// The number that stands for a rank.
    pub(super) fn number(&self, rank: u64) -> Option<u64> {
        let index = rank.checked_sub(self.lowest)?;
        (1..=RANKS).contains(&index).then(|| self.start + 2 * index)
    }

    /// Takes note of when people were last heard of, before any of them is judged by it.
    pub(super) fn note(&mut self, returns: &[Return]) {
        for one in returns.iter().filter(|one| one.epoch == self.epoch) {
            if let Shows::Ticket { heard } = one.shows {
                self.newest = self.newest.max(heard);
            }
        }
    }

    /// Whether a place was kept for who was last heard of then.
    pub(super) fn was_kept(&self, heard: Timestamp, terms: &Terms, now: Timestamp) -> bool {
        heard + EARLIER_MAX > now && heard + terms.abandon_after.saturating_mul(2) >= self.newest
    }

    /// The next number for a straggler. After another loss the next ones may have been given already, and not be free.
    pub(super) fn spare(&mut self, frontier: u64, is_free: impl Fn(u64) -> bool) -> Option<u64> {
        let first = self.spare.max(frontier + 1) | 1;
        let mut tried = (first..=self.last()).step_by(2).take(SPARES_TRIED);
        let number = tried.find(|number| is_free(*number))?;
        self.spare = number + 2;
        Some(number)
    }
}
