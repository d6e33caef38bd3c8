//! What a room does with what a gateway remembers. Why this is sound is told in `restore`.

use super::{Place, RoomState, Standing};
use crate::base::clock::Timestamp;
use crate::queue::lobby::{Draw, Ranks};
use crate::queue::restore::{Heard, Memory};
use crate::queue::terms::{Overrides, Terms};

/// How far a number has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Waiting,
    Called,
    Inside,
    Gone,
}

impl Memory {
    fn stage(&self, number: u64) -> Stage {
        if self.waiting.binary_search(&number).is_ok() {
            Stage::Waiting
        } else if self.called.binary_search(&number).is_ok() {
            Stage::Called
        } else if self.inside.binary_search(&number).is_ok() {
            Stage::Inside
        } else {
            Stage::Gone
        }
    }
}

impl Place {
    fn far(&self) -> Stage {
        match self.standing {
            Standing::Waiting { .. } => Stage::Waiting,
            Standing::Called { .. } => Stage::Called,
            Standing::Inside { .. } => Stage::Inside,
        }
    }
}

/// Within a lobby that is being called a frontier is a rank, and no number of the lobby stands for it.
fn before_lobby(current: Option<Draw>, told: u64) -> u64 {
    let within = current.filter(|draw| told > draw.before && told < draw.last());
    within.map_or(told, |draw| draw.before)
}

impl RoomState {
    /// An empty room that may have been lost: it listens before it does anything.
    pub fn unheard(epoch: u64) -> Self {
        Self {
            heard: Heard::nothing(),
            ..Self::new(epoch)
        }
    }

    pub(in crate::queue) fn heard(&mut self) -> &mut Heard {
        &mut self.heard
    }

    /// Whether a range leaves out none of those that are not known here, and none that wait here and come to lie below
    /// the frontier.
    pub(in crate::queue) fn is_followed_by(&self, memory: &Memory) -> bool {
        let reach = self.current().map_or(self.frontier, |draw| draw.last());
        let moves_frontier = self.frontier_told(memory) > self.frontier;
        memory.from <= self.last + 1 && (!moves_frontier || memory.from <= reach + 1)
    }

    /// The frontier that a range brings. It comes to the beginning of a lobby that is being called, and then to its end.
    fn frontier_told(&self, memory: &Memory) -> u64 {
        let theirs = memory.draw.filter(|draw| memory.frontier < draw.last());
        let told = before_lobby(theirs, memory.frontier.min(memory.to));
        before_lobby(self.current(), told)
    }

    /// The lobby that is being called.
    fn current(&self) -> Option<Draw> {
        self.draw().filter(|draw| self.frontier < draw.last())
    }

    /// Goes on with a life that somebody remembers.
    pub(in crate::queue) fn adopt(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// What operators have said is this, and a lobby stands or does not.
    pub(in crate::queue) fn said(&mut self, memory: &Memory) {
        self.overrides = Overrides::default();
        self.overrides.hear(&memory.said);
        self.lobby.stands = memory.lobby;
    }

    /// Takes in what a gateway remembers: of each number the furthest stage counts.
    pub(in crate::queue) fn recall(&mut self, terms: &Terms, memory: &Memory) {
        let frontier = self.frontier_told(memory);
        if self.current().is_some_and(|draw| frontier >= draw.last()) {
            // The lobby turns out to be over, and nobody waits below the range.
            let over: Vec<u64> = self.waiting.range(..memory.from).copied().collect();
            for number in over {
                self.remove(number);
            }
        }
        let range = memory.from..=memory.to;
        let known = self.places.iter().filter(|(number, _)| range.contains(number));
        let known: Vec<_> = known.map(|(number, place)| (*number, place.far())).collect();
        for (number, stage) in known {
            let theirs = memory.stage(number);
            if theirs > stage {
                let owner = self.remove(number).and_then(|place| place.owner);
                self.stand(terms, number, owner, theirs);
            }
        }
        let all = [
            (&memory.waiting, Stage::Waiting),
            (&memory.called, Stage::Called),
            (&memory.inside, Stage::Inside),
        ];
        let before = self.last;
        for (numbers, stage) in all {
            for number in numbers.iter().filter(|number| **number > before) {
                self.stand(terms, *number, None, stage);
            }
        }
        self.last = before.max(memory.to);
        self.frontier = self.frontier.max(frontier);
        self.recall_draw(memory);
        (self.change.last, self.change.frontier) = (self.last, self.frontier);
    }

    /// Takes over a lobby that was drawn later than the last one known here, if all of it has been told.
    fn recall_draw(&mut self, memory: &Memory) {
        let Some(draw) = memory.draw.filter(|draw| draw.size > 0 && memory.to >= draw.last()) else {
            return;
        };
        let follows = |own: Draw| draw.before > own.before && self.frontier >= own.last();
        let reached = self.frontier == draw.before || self.frontier >= draw.last();
        if reached && self.draw().is_none_or(follows) {
            self.lobby.ranks = Some(Ranks::new(draw));
        }
    }

    /// Goes on after a loss, so many numbers further on.
    pub(in crate::queue) fn resume(&mut self, gap: u64, patient_until: Timestamp) {
        self.last += gap;
        self.change.last = self.last;
        self.patient_until = patient_until;
    }

    /// Gives a number a place, as of now. When somebody entered is not known, so it was not lately.
    fn stand(&mut self, terms: &Terms, number: u64, owner: Option<u128>, stage: Stage) {
        let now = self.now;
        let standing = match stage {
            Stage::Waiting => Standing::Waiting { seen: now },
            Stage::Called => Standing::Called {
                by: now + terms.claim_within,
            },
            Stage::Inside => Standing::Inside {
                since: Timestamp::default(),
                until: now + terms.pass,
            },
            Stage::Gone => return,
        };
        match stage {
            Stage::Waiting => _ = self.waiting.insert(number),
            Stage::Called => self.called += 1,
            Stage::Inside => self.inside += 1,
            Stage::Gone => (),
        }
        self.insert(terms, number, owner, standing);
    }
}
