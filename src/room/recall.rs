//! How a gateway tells a room that was lost what it remembers: range by range, from the lowest number up, one with each
//! turn. What a room makes of it is told in `queue/restore`.

use super::replica::Replica;
use crate::base::clock::Timestamp;
use crate::queue::restore::{Memory, Restoring};
use crate::queue::terms::{Setting, Terms};
use crate::queue::turn::Counts;

/// Most numbers, from the frontier on, that one turn tells of: each is a bit. Those that are
/// new to the store take it 1.5 microseconds each, and it does nothing else meanwhile.
pub const NUMBERS_PER_TURN: u64 = 16_384;

/// Most numbers, called or inside, that one turn names: each is six bytes.
const PEOPLE_PER_TURN: usize = 4_096;

/// How far a gateway has come with telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recall {
    since: Timestamp,
    told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    UpTo(u64),
    All,
}

impl Recall {
    /// Where it stands after a turn that was answered so; `memory` is what the turn told. A turn whose answer was lost
    /// is told again, which changes nothing.
    pub fn after(before: Option<Self>, memory: Option<&Memory>, answer: &Restoring) -> Self {
        let same = before.filter(|before| before.since == answer.since);
        let told = match (same, memory) {
            (None, _) => Told::UpTo(0),
            (Some(_), Some(memory)) if memory.goes_on() => Told::UpTo(memory.to),
            (Some(_), Some(_)) => Told::All,
            (Some(before), None) => before.told,
        };
        Self {
            since: answer.since,
            told,
        }
    }

    /// What the next turn tells, if there is anything left; `written` is the rule at this gateway.
    pub fn next(&self, replica: &Replica, written: &Terms) -> Option<Memory> {
        match self.told {
            Told::UpTo(number) if replica.cursor().epoch != 0 => Some(Memory {
                said: said(replica.counts(), written),
                ..replica.recall(number + 1)
            }),
            Told::UpTo(_) | Told::All => None,
        }
    }

    /// Whether there is something left to tell.
    pub fn goes_on(&self, replica: &Replica) -> bool {
        self.told != Told::All && replica.cursor().epoch != 0
    }
}

/// What operators must have said, for the terms in force to be what they are.
fn said(counts: &Counts, written: &Terms) -> Vec<Setting> {
    let mode = Some(counts.mode).filter(|mode| *mode != written.mode);
    let visitors = counts.visitors.filter(|_| counts.visitors != written.visitors);
    let admit = counts.admit.filter(|_| counts.admit != written.admit);
    let said = [
        mode.map(Setting::Mode),
        visitors.map(Setting::Visitors),
        admit.map(Setting::Admit),
    ];
    said.into_iter().flatten().collect()
}

impl Replica {
    /// What it remembers of the numbers from `from` on, as far as one turn tells.
    fn recall(&self, from: u64) -> Memory {
        let (frontier, last) = (self.counts().frontier, self.counts().last);
        let mut memory = Memory {
            cursor: self.cursor(),
            frontier,
            last,
            from,
            lobby: self.counts().lobby,
            draw: self.counts().draw,
            ..Memory::default()
        };
        let floor = self.floor();
        (memory.called, memory.inside) = self.people_from(from, PEOPLE_PER_TURN);
        memory.to = if from > floor {
            last.min(from + NUMBERS_PER_TURN - 1)
        } else {
            floor
        };
        if memory.called.len() + memory.inside.len() >= PEOPLE_PER_TURN {
            let named = memory.called.last().max(memory.inside.last());
            memory.to = named.map_or(memory.to, |named| memory.to.min(*named));
        }
        memory.called.retain(|number| *number <= memory.to);
        memory.inside.retain(|number| *number <= memory.to);
        if from > floor {
            memory.waiting = self.waiting_among(from..=memory.to);
        }
        memory
    }
}
