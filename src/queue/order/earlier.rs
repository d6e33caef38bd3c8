//! Taking in people of an earlier life. Why this is sound is told in `queue/earlier`.

use super::{Place, RoomState, Standing};
use crate::base::clock::Timestamp;
use crate::queue::earlier::{Life, Return, Returned, Shown, Shows, latest};
use crate::queue::terms::{Order, Terms};

impl RoomState {
    /// The earlier life whose people are taken in.
    pub fn earlier_life(&self) -> Option<u64> {
        self.earlier.life.as_ref().map(|life| life.epoch)
    }

    /// Nobody remembered the room: it begins now. `shown` is what was shown while it listened.
    pub(in crate::queue) fn began_anew(&mut self, terms: &Terms, shown: Option<Shown>) {
        self.earlier.began = Some(self.now);
        let awaits_lobby = terms.order == Order::Shuffle && !terms.opened(self.now);
        if let Some(shown) = shown.filter(|_| !awaits_lobby) {
            self.begin_life(shown);
        }
        self.change.last = self.last;
    }

    /// Whether those who wait may be called at all.
    pub(super) fn calls(&self, terms: &Terms) -> bool {
        terms.calls(self.now) && !self.earlier.holds(terms, self.now)
    }

    /// People show what they held in an earlier life.
    pub(in crate::queue) fn come_back(&mut self, terms: &Terms, returns: &[Return]) -> Vec<Returned> {
        self.earlier.close(terms, self.now);
        let has_lobby = self.lobby.stands || self.lobby.draw().is_some();
        let may_begin = self.earlier.began.is_some() && self.earlier.life.is_none() && !has_lobby;
        if may_begin
            && self.earlier.listens(terms, self.now)
            && let Some(shown) = latest(None, returns, self.epoch, self.now)
        {
            self.begin_life(shown);
        }
        if let Some(life) = &mut self.earlier.life {
            life.note(returns);
        }
        let returned = returns.iter().map(|one| self.come_back_one(terms, one));
        returned.map(|place| place.unwrap_or(Returned::Unknown)).collect()
    }

    fn begin_life(&mut self, shown: Shown) {
        let life = Life::new(shown, self.last);
        self.last = life.last();
        self.earlier.life = Some(life);
    }

    fn come_back_one(&mut self, terms: &Terms, one: &Return) -> Option<Returned> {
        let life = self.earlier.life.as_ref()?;
        let own = life.number(one.rank).filter(|_| life.epoch == one.epoch)?;
        let number = life.moved.get(&own).copied().unwrap_or(own);
        match one.shows {
            Shows::Pass { until } if until <= self.now => None,
            Shows::Pass { until } => self.go_on_inside(terms, (own, number), one.owner, until),
            // After another loss a place may be known, and not whose ticket it came from.
            Shows::Ticket { .. } if life.taken.contains(&own) || self.places.contains_key(&number) => {
                self.stands_again(number)
            }
            Shows::Ticket { heard } => self.stand_again(terms, own, one.owner, heard),
        }
    }

    /// The place of a ticket that was shown before; none once somebody has entered by it, or it was given up.
    fn stands_again(&mut self, number: u64) -> Option<Returned> {
        self.touch(number);
        let place = self.places.get(&number)?;
        let entered = matches!(place.standing, Standing::Inside { .. });
        (!entered).then(|| returned(number, place))
    }

    /// A ticket that was not shown before.
    fn stand_again(&mut self, terms: &Terms, own: u64, owner: Option<u128>, heard: Timestamp) -> Option<Returned> {
        let elsewhere = owner.is_some_and(|owner| self.owners.contains_key(&owner));
        if elsewhere || self.lobby.draw().is_some() || !self.earlier.takes_tickets(terms, self.now) {
            return None;
        }
        let life = self.earlier.life.as_mut()?;
        if !life.was_kept(heard, terms, self.now) {
            return None;
        }
        let number = if own > self.frontier {
            own
        } else {
            let spare = life.spare(self.frontier, |number| !self.places.contains_key(&number))?;
            life.moved.insert(own, spare);
            spare
        };
        life.taken.insert(own);
        self.insert(terms, number, owner, Standing::Waiting { seen: self.now });
        self.waiting.insert(number);
        self.change.returned.push(number);
        self.places.get(&number).map(|place| returned(number, place))
    }

    /// A pass. Whether there is a free slot does not matter; when it was given is not known, so it was not lately.
    fn go_on_inside(
        &mut self,
        terms: &Terms,
        (own, number): (u64, u64),
        owner: Option<u128>,
        until: Timestamp,
    ) -> Option<Returned> {
        let taken = !self.earlier.life.as_mut()?.taken.insert(own);
        if let Some(Standing::Inside { until: end, .. }) = self.places.get_mut(&number).map(|place| &mut place.standing)
        {
            *end = until.max(*end);
        } else {
            let before = self.remove(number);
            if taken && before.is_none() {
                return None;
            }
            let owner = before.and_then(|place| place.owner).or(owner);
            let owner = owner.filter(|owner| !self.owners.contains_key(owner));
            let since = Timestamp::default();
            self.insert(terms, number, owner, Standing::Inside { since, until });
            self.inside += 1;
            self.change.entered.push(number);
        }
        self.places.get(&number).map(|place| returned(number, place))
    }
}

fn returned(number: u64, place: &Place) -> Returned {
    Returned::Place {
        number,
        since: place.since,
        stage: place.stage(),
    }
}

#[cfg(test)]
mod tests;
