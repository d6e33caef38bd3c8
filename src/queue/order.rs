//! Who stands where: the order of a room, from `waiting` over `called` and `inside` to gone.
//!
//! Numbers are given once, from 1 up. Calling takes the lowest waiting rank, always: a number is its own rank, but in a
//! lobby that was shuffled. The frontier is the last rank called and never goes back. Nothing here decides when a turn is
//! due or who is told.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::mem;
use std::time::Duration;

use self::shares::Shares;
use super::admission::Admission;
use super::deadlines::Deadlines;
use super::earlier::Earlier;
use super::lobby::Lobby;
use super::log::{Change, Snapshot};
use super::proposals::Proposals;
use super::restore::Heard;
use super::terms::{Mode, Overrides, Setting, Terms};
use super::turn::{Counts, Entered, Join, Joined, Otherwise, Refusal, Stage, Tally};
use crate::base::clock::Timestamp;

pub use self::lobby::LOBBY_RANKS_PER_TURN;

/// A slot outlives its pass by so much, so that a renewal which waits for its turn, or for a store that is being
/// failed over, never finds its slot given away: that would be one visitor more inside than fit.
pub const PASS_GRACE: Duration = Duration::from_secs(3);

/// Gateways turn once a second even if nobody comes. A room without a turn for so long was deaf: its store, or every
/// gateway, was away, and nobody's silence in that time means anything.
const DEAF_AFTER: Duration = Duration::from_secs(3);

/// So long after a room was deaf nobody loses anything by silence: until then every gateway has handed over the signs
/// of life that it kept, and not just the one that comes first.
pub const HEARING: Duration = Duration::from_secs(10);

/// Most deadlines looked at in one turn: a store does nothing else meanwhile. What is left over is looked at in the
/// next; until then slots are taken for occupied and places for alive.
const EXPIRIES_PER_TURN: usize = 2_000;

/// Most numbers called in one turn, the abandoned ones that are passed over included.
const CALLS_PER_TURN: u64 = 2_000;

/// Numbers revoked that a room remembers: as many visitors as an operator may send away one by one.
const REVOKED_MAX: usize = 1_024;

/// Passes given back that a room remembers. A renewal that another gateway gathered comes a tick later: so many passes
/// given back in that time, 5,000 a second, are more than a room sees.
const GIVEN_BACK_MAX: usize = 1_024;

/// The whole state of a room.
#[derive(Debug, Clone)]
pub struct RoomState {
    epoch: u64,
    now: Timestamp,
    /// Until then no deadline counts.
    patient_until: Timestamp,
    last: u64,
    frontier: u64,
    places: HashMap<u64, Place>,
    waiting: BTreeSet<u64>,
    called: u64,
    inside: u64,
    owners: HashMap<u128, u64>,
    shares: Shares,
    deadlines: Deadlines,
    admission: Admission,
    overrides: Overrides,
    proposals: Proposals,
    /// The last numbers revoked, so that a renewal which comes late brings none of them back.
    revoked: VecDeque<u64>,
    /// The last passes given back, or ended by the service: the same.
    given_back: VecDeque<u64>,
    change: Change,
    tally: Tally,
    lobby: Lobby,
    /// Whether more of the lobby might have been called, had one turn looked at more ranks.
    hurried: bool,
    heard: Heard,
    earlier: Earlier,
}

#[derive(Debug, Clone)]
struct Place {
    owner: Option<u128>,
    since: Timestamp,
    standing: Standing,
    /// When its entry in the heap comes up; an entry of another moment is stale.
    check: Timestamp,
}

#[derive(Debug, Clone, Copy)]
enum Standing {
    Waiting { seen: Timestamp },
    Called { by: Timestamp },
    Inside { since: Timestamp, until: Timestamp },
}

impl Place {
    fn deadline(&self, terms: &Terms) -> Timestamp {
        match self.standing {
            Standing::Waiting { seen } => seen + terms.abandon_after,
            Standing::Called { by } => by,
            Standing::Inside { until, .. } => until + PASS_GRACE,
        }
    }

    fn stage(&self) -> Stage {
        match self.standing {
            Standing::Waiting { .. } => Stage::Waiting,
            Standing::Called { .. } => Stage::Called,
            Standing::Inside { until, .. } => Stage::Inside { until },
        }
    }
}

impl RoomState {
    /// An empty room. `epoch` tells this life of the queue from every other; it is never 0.
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch: epoch.max(1),
            now: Timestamp::default(),
            patient_until: Timestamp::default(),
            last: 0,
            frontier: 0,
            places: HashMap::new(),
            waiting: BTreeSet::new(),
            called: 0,
            inside: 0,
            owners: HashMap::new(),
            shares: Shares::default(),
            deadlines: Deadlines::default(),
            admission: Admission::default(),
            overrides: Overrides::default(),
            proposals: Proposals::default(),
            revoked: VecDeque::new(),
            given_back: VecDeque::new(),
            change: Change::default(),
            tally: Tally::default(),
            lobby: Lobby::default(),
            hurried: false,
            heard: Heard::default(),
            earlier: Earlier::default(),
        }
    }

    /// This life of the queue.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The whole order.
    pub fn snapshot(&self) -> Snapshot {
        let numbers = |wanted: fn(&Standing) -> bool| {
            let places = self.places.iter().filter(|(_, place)| wanted(&place.standing));
            places.map(|(number, _)| *number).collect()
        };
        Snapshot {
            last: self.last,
            frontier: self.frontier,
            waiting: self.waiting.iter().copied().collect(),
            called: numbers(|standing| matches!(standing, Standing::Called { .. })),
            inside: numbers(|standing| matches!(standing, Standing::Inside { .. })),
        }
    }

    /// Starts a turn: what operators said holds from here on. Gives the moment at which the turn is done.
    pub(super) fn begin(&mut self, settings: &[Setting], now: Timestamp) -> Timestamp {
        let before = self.now;
        self.now = before.max(now);
        if before > Timestamp::default() && self.now.since(before) > DEAF_AFTER {
            self.patient_until = self.now + HEARING;
        }
        self.hurried = false;
        if self.overrides.hear(settings) {
            self.proposals.forget();
        }
        for setting in settings {
            self.proposals.hear(*setting, self.now);
        }
        self.now
    }

    /// The terms in force.
    pub(super) fn terms(&self, written: &Terms) -> Terms {
        self.overrides.over(written, self.proposals.lowest(self.now))
    }

    /// A pass was used. One whose slot is gone, because the renewal came later than the grace, gets a free slot
    /// if there is one; else it has ended, as has one that was revoked or given back.
    pub(super) fn renew(&mut self, terms: &Terms, number: u64, until: Timestamp) {
        if let Some(place) = self.places.get_mut(&number) {
            if let Standing::Inside { until: end, .. } = &mut place.standing {
                *end = until.max(*end);
            }
        } else if number == 0 || self.lobby.rank(number) > self.frontier {
            // Nobody has called it.
        } else if until > self.now && self.slots(terms) > 0 && !self.is_over(number) {
            let since = self.now;
            self.insert(terms, number, None, Standing::Inside { since, until });
            self.inside += 1;
            self.change.entered.push(number);
        } else {
            self.change.ended.push(number);
        }
    }

    /// A waiting visitor gave a sign of life.
    pub(super) fn touch(&mut self, number: u64) {
        if let Some(Place {
            standing: Standing::Waiting { seen },
            ..
        }) = self.places.get_mut(&number)
        {
            *seen = self.now;
        }
    }

    /// A called visitor comes.
    pub(super) fn enter(&mut self, terms: &Terms, number: u64) -> Entered {
        let patient = self.is_patient();
        let Some(place) = self.places.get_mut(&number) else {
            return Entered::Gone;
        };
        match place.standing {
            Standing::Waiting { .. } => Entered::NotYet,
            Standing::Inside { since, until } => Entered::Already { since, until },
            Standing::Called { by } if by <= self.now && !patient => {
                self.give_up(number);
                Entered::Gone
            }
            Standing::Called { .. } => {
                let until = self.now + terms.pass;
                place.standing = Standing::Inside { since: self.now, until };
                self.called -= 1;
                self.inside += 1;
                self.entered(number);
                self.watch(terms, number);
                Entered::Now { until }
            }
        }
    }

    /// A visitor gives back the place or the pass.
    pub(super) fn leave(&mut self, number: u64) {
        let Some(place) = self.remove(number) else { return };
        match place.standing {
            Standing::Inside { .. } => {
                remember(&mut self.given_back, number, GIVEN_BACK_MAX);
                self.change.ended.push(number);
            }
            Standing::Waiting { .. } | Standing::Called { .. } => {
                self.tally.abandoned += 1;
                self.change.left.push(number);
            }
        }
    }

    /// Ends the places and passes that operators want ended.
    pub(super) fn revoke(&mut self, settings: &[Setting]) {
        for setting in settings {
            let Setting::Revoke(number) = *setting else { continue };
            if number == 0 || number > self.last {
                continue;
            }
            remember(&mut self.revoked, number, REVOKED_MAX);
            self.leave(number);
        }
    }

    /// Takes back what nobody gave a sign of life for.
    pub(super) fn expire(&mut self, terms: &Terms) {
        if self.is_patient() {
            return;
        }
        for _ in 0..EXPIRIES_PER_TURN {
            let Some((at, number)) = self.deadlines.pop_due(self.now) else {
                break;
            };
            let Some(place) = self.places.get_mut(&number).filter(|place| place.check == at) else {
                continue;
            };
            let deadline = place.deadline(terms);
            if deadline > self.now {
                place.check = deadline;
                self.deadlines.push(deadline, number);
            } else {
                self.give_up(number);
            }
        }
    }

    /// Calls as many as there is room for, in the order of their ranks.
    pub(super) fn call(&mut self, terms: &Terms) {
        if !self.calls(terms) {
            return;
        }
        let free = self.free(terms);
        let (mut called, mut looks) = (0, LOBBY_RANKS_PER_TURN);
        for _ in 0..CALLS_PER_TURN {
            if called == free {
                break;
            }
            let Some((number, rank)) = self.next_waiting(&mut looks) else {
                break;
            };
            called += u64::from(self.call_one(terms, number, rank));
        }
        self.hurried = looks == 0 && called < free;
        self.spend(terms, called);
    }

    /// Calls `number`, unless it has shown no sign of life for too long and only not been looked at yet.
    fn call_one(&mut self, terms: &Terms, number: u64, rank: u64) -> bool {
        let (now, patient) = (self.now, self.is_patient());
        let alive = |place: &&mut Place| patient || place.deadline(terms) > now;
        let Some(place) = self.places.get_mut(&number).filter(alive) else {
            self.give_up(number);
            return false;
        };
        place.standing = Standing::Called {
            by: now + terms.claim_within,
        };
        self.tally.waits.push(now.since(place.since));
        self.waiting.remove(&number);
        self.called += 1;
        self.frontier = rank;
        self.watch(terms, number);
        true
    }

    /// A visitor comes: gets back the place held, goes straight in, or gets the next number.
    pub(super) fn join(&mut self, terms: &Terms, join: Join) -> Joined {
        if terms.mode == Mode::Off {
            return Joined::Refused(Refusal::Off);
        }
        if let Some(joined) = join.owner.and_then(|owner| self.held_by(owner)) {
            return joined;
        }
        if terms.mode == Mode::Drain {
            return Joined::Refused(Refusal::Closed);
        }
        if join.share.is_some_and(|share| self.shares.is_used_up(share)) {
            return Joined::Refused(Refusal::Crowded);
        }
        if self.calls(terms) && self.waiting.is_empty() && self.free(terms) > 0 {
            return self.straight_in(terms, join);
        }
        if join.otherwise == Otherwise::Refuse {
            return Joined::Refused(Refusal::NoRoom);
        }
        if self.waiting.len() as u64 >= terms.max_waiting {
            return Joined::Refused(Refusal::Full);
        }
        let number = self.next_number();
        self.shares.take(number, join.share);
        self.insert(terms, number, join.owner, Standing::Waiting { seen: self.now });
        self.waiting.insert(number);
        Joined::Place {
            number,
            since: self.now,
            stage: Stage::Waiting,
        }
    }

    fn held_by(&mut self, owner: u128) -> Option<Joined> {
        let number = *self.owners.get(&owner)?;
        self.touch(number);
        let place = self.places.get(&number)?;
        Some(Joined::Place {
            number,
            since: place.since,
            stage: place.stage(),
        })
    }

    fn straight_in(&mut self, terms: &Terms, join: Join) -> Joined {
        let number = self.next_number();
        self.shares.take(number, join.share);
        let (since, until) = (self.now, self.now + terms.pass);
        self.insert(terms, number, join.owner, Standing::Inside { since, until });
        self.inside += 1;
        self.frontier = number;
        self.spend(terms, 1);
        self.entered(number);
        Joined::Place {
            number,
            since,
            stage: Stage::Inside { until },
        }
    }

    /// Ends a turn: what changed, and what it brought about.
    pub(super) fn end(&mut self, steered: bool) -> (Option<Change>, Tally) {
        if self.deadlines.are_stale(self.places.len()) {
            let entries = self.places.iter().map(|(number, place)| (place.check, *number));
            self.deadlines.rebuild(entries);
        }
        let fresh = Change {
            last: self.last,
            frontier: self.frontier,
            ..Change::default()
        };
        let change = mem::replace(&mut self.change, fresh);
        let moved = (change.last, change.frontier) != (self.last, self.frontier);
        let changed = moved || steered || change.called > 0 || change.numbers() > 0;
        let change = Change {
            at: self.now,
            last: self.last,
            frontier: self.frontier,
            ..change
        };
        (changed.then_some(change), mem::take(&mut self.tally))
    }

    /// Where everyone is.
    pub(super) fn counts(&self, terms: &Terms) -> Counts {
        Counts {
            waiting: self.waiting.len() as u64,
            called: self.called,
            inside: self.inside,
            last: self.last,
            frontier: self.frontier,
            mode: terms.mode,
            visitors: terms.visitors,
            admit: terms.admit,
            lobby: self.lobby.stands,
            draw: self.lobby.draw(),
        }
    }

    /// When someone will be called who could be called now but for the rate, or for the bound of this turn's looks.
    pub(super) fn tick_at(&self, terms: &Terms) -> Option<Timestamp> {
        let could = self.calls(terms) && !self.waiting.is_empty() && self.slots(terms) > 0;
        if self.hurried && could {
            return Some(self.now);
        }
        terms
            .admit
            .as_ref()
            .filter(|_| could)
            .and_then(|rate| self.admission.window_reopens(rate))
    }

    /// Whether somebody ended this place or pass, and not silence.
    fn is_over(&self, number: u64) -> bool {
        self.revoked.contains(&number) || self.given_back.contains(&number)
    }

    fn is_patient(&self) -> bool {
        self.now < self.patient_until
    }

    fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn insert(&mut self, terms: &Terms, number: u64, owner: Option<u128>, standing: Standing) {
        let place = Place {
            owner,
            since: self.now,
            standing,
            check: self.now,
        };
        self.places.insert(number, place);
        if let Some(owner) = owner {
            self.owners.insert(owner, number);
        }
        self.watch(terms, number);
    }

    /// Has the place looked at when its deadline comes.
    fn watch(&mut self, terms: &Terms, number: u64) {
        if let Some(place) = self.places.get_mut(&number) {
            place.check = place.deadline(terms);
            self.deadlines.push(place.check, number);
        }
    }

    fn entered(&mut self, number: u64) {
        self.tally.entered += 1;
        self.change.entered.push(number);
    }

    /// Takes back a place whose deadline has passed.
    fn give_up(&mut self, number: u64) {
        let Some(place) = self.remove(number) else { return };
        match place.standing {
            Standing::Waiting { .. } => {
                self.tally.abandoned += 1;
                self.change.left.push(number);
            }
            Standing::Called { .. } => {
                self.tally.unclaimed += 1;
                self.change.unclaimed.push(number);
            }
            Standing::Inside { .. } => self.change.ended.push(number),
        }
    }

    fn remove(&mut self, number: u64) -> Option<Place> {
        let place = self.places.remove(&number)?;
        self.shares.free(number);
        match place.standing {
            Standing::Waiting { .. } => _ = self.waiting.remove(&number),
            Standing::Called { .. } => self.called -= 1,
            Standing::Inside { .. } => self.inside -= 1,
        }
        if let Some(owner) = place.owner {
            self.owners.remove(&owner);
        }
        Some(place)
    }
}

fn remember(numbers: &mut VecDeque<u64>, number: u64, most: usize) {
    if numbers.len() == most {
        numbers.pop_front();
    }
    numbers.push_back(number);
}

mod capacity;
mod earlier;
mod lobby;
mod recall;
mod shares;
#[cfg(test)]
mod tests;
