//! A limit as requests meet it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::counter::{Counter, Path};
use super::line::{Patience, Place};
use super::tally::Tally;
use super::{LimitRule, OnStoreFault};
use crate::base::clock::Timestamp;
use crate::base::key::Key;

/// Turns of the store that one request of cost 1 waits for at most. Where several gateways ask, each turn brings part of
/// what is left, so a request waits for as many more as it takes to halve its cost to 1.
const DRAWS_MAX: u32 = 3;

/// The first in a line looks for budget at most so often in a pace, should the store's wait be shorter.
const NAPS_PER_PACE: u32 = 4;

/// What a limit says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Admitted, and counted.
    Spent {
        /// To undo it.
        receipt: Receipt,
        /// What is left for the key, as far as this gateway knows.
        remaining: u64,
        /// Until the window ends.
        reset: Duration,
    },
    /// Limited; nothing was counted.
    Limited {
        /// When to come back.
        retry_after: Duration,
    },
    /// Refused, because the store cannot be asked and the rule says so; nothing was counted.
    Denied,
    /// Only the store can tell: see [`Limit::draw`].
    Draw,
}

/// What became of a request that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Never `Draw`.
    pub decision: Decision,
    /// It had to wait for budget, and not only for the store to say that there was some.
    pub waited: bool,
}

/// Proof of a spending, to undo it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt(pub(super) Path);

/// A limit of one plan, on the counts that all plans share.
#[derive(Debug)]
pub struct Limit {
    rule: LimitRule,
    counter: Arc<Counter>,
    tally: Tally,
}

impl Limit {
    pub(super) fn new(rule: LimitRule, counter: Arc<Counter>) -> Self {
        let tally = Tally::of(&rule.name);
        Self { rule, counter, tally }
    }

    /// The rule.
    pub fn rule(&self) -> &LimitRule {
        &self.rule
    }

    /// What became of its requests.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn counter(&self) -> &Arc<Counter> {
        &self.counter
    }

    pub(super) fn take_effect(&self) {
        self.counter.set_rule(&self.rule);
        self.counter.overshoot.heed(&self.rule);
    }

    /// Decides without waiting, if it can be decided so. Nobody spends past those who are held for the same key.
    pub fn try_spend(&self, key: Key, cost: u64, now: Timestamp) -> Decision {
        if let Some(ahead) = self.counter.line.ahead(key).filter(|_| !self.admits_all()) {
            // Whatever comes, those ahead get first.
            let behind = self.counter.terms().brings_in(ahead.cost);
            return Decision::Limited {
                retry_after: ahead.nothing_before.since(now).max(behind),
            };
        }
        self.spend_at(key, cost, self.counter.clock.at(now))
    }

    fn spend_at(&self, key: Key, cost: u64, at: Timestamp) -> Decision {
        match self.counter.try_spend(key, cost, at) {
            // What a key was refused for before the store went matters no more.
            Decision::Limited { .. } if self.admits_all() => self.on_fault(key, cost, at),
            decided => decided,
        }
    }

    fn admits_all(&self) -> bool {
        self.rule.on_fault == OnStoreFault::Allow && self.counter.is_cut_off()
    }

    /// Takes the place in the key's line behind all who came before `came`; none when as many are held as may be.
    pub fn join_line(&self, key: Key, cost: u64, came: Timestamp, patience: Patience) -> Option<Place<'_>> {
        self.counter.line.join(key, cost, came, patience.queue)
    }

    /// What those want together who are held here for a key.
    pub fn held_for(&self, key: Key) -> u64 {
        self.counter.line.ahead(key).map_or(0, |ahead| ahead.cost)
    }

    /// Decides in its turn, once there is budget, and not after `until`: then `Limited` is the answer. It is so at
    /// once when it is known that there will be no budget before. Never answers `Draw`.
    pub async fn hold(&self, place: Place<'_>, key: Key, cost: u64, until: Timestamp) -> Held {
        let decision = self.decide_in_turn(&place, key, cost, until).await;
        Held {
            decision,
            waited: place.has_waited(),
        }
    }

    async fn decide_in_turn(&self, place: &Place<'_>, key: Key, cost: u64, until: Timestamp) -> Decision {
        let counter = &self.counter;
        loop {
            // One that came earlier may have joined, and is first now.
            let patience = until.since(self.now());
            if timeout(patience, place.is_first()).await.is_err() {
                return Decision::Limited {
                    retry_after: counter.pace(),
                };
            }
            let turned = counter.next_turn(key);
            tokio::pin!(turned);
            turned.as_mut().enable();
            let decision = self.decide_until(key, cost, until).await;
            let Decision::Limited { retry_after } = decision else {
                return decision;
            };
            let now = self.now();
            if now >= until || now + retry_after > until {
                return decision;
            }
            place.expect_nothing_before(now + retry_after);
            let nap = retry_after.max(counter.pace() / NAPS_PER_PACE).min(until.since(now));
            tokio::select! {
                () = turned => {}
                () = place.woken() => {}
                () = sleep(nap) => {}
            }
        }
    }

    async fn decide_until(&self, key: Key, cost: u64, until: Timestamp) -> Decision {
        let now = self.now();
        match self.spend_at(key, cost, self.counter.clock.at(now)) {
            Decision::Draw => timeout(until.since(now), self.draw(key, cost, now))
                .await
                .unwrap_or(Decision::Limited {
                    retry_after: self.counter.pace(),
                }),
            decided => decided,
        }
    }

    /// The present moment on this machine, which requests and those who are held are told the time by.
    pub fn now(&self) -> Timestamp {
        self.counter.clock.local()
    }

    /// Decides after [`Decision::Draw`]: waits for the store, at most as long as its deadline. Never answers `Draw`.
    pub async fn draw(&self, key: Key, cost: u64, now: Timestamp) -> Decision {
        let counter = &self.counter;
        let mut at = counter.clock.at(now);
        if counter.is_cut_off() {
            return self.on_fault(key, cost, at);
        }
        let Some(_place) = counter.wait_in_line() else {
            return Decision::Limited {
                retry_after: counter.pace(),
            };
        };
        let mut deadline = pin!(sleep(counter.store_timeout()));
        for turns_heard in 0..DRAWS_MAX + cost.max(1).ilog2() {
            let turned = counter.next_turn(key);
            tokio::pin!(turned);
            turned.as_mut().enable();
            counter.want_draw(key, cost);
            let late = tokio::select! {
                biased;
                () = turned => false,
                () = &mut deadline => true,
            };
            at = counter.now();
            if counter.is_cut_off() || counter.awaits_answer(key, late && turns_heard == 0) {
                return self.on_fault(key, cost, at);
            }
            if late {
                break; // The store is well; the calls it may be bothered with were used up.
            }
            match counter.try_spend(key, cost, at) {
                Decision::Draw => {}
                decided => return decided,
            }
            if let Some(decided) = counter.spend_coupon(key, cost, at) {
                return decided;
            }
        }
        if counter.awaits_answer(key, false) {
            return self.on_fault(key, cost, at);
        }
        Decision::Limited {
            retry_after: counter.pace(),
        }
    }

    fn on_fault(&self, key: Key, cost: u64, now: Timestamp) -> Decision {
        match self.rule.on_fault {
            OnStoreFault::Local => self.counter.spend_locally(key, cost, now),
            OnStoreFault::Allow => {
                let reset = self.counter.terms().reset(0, now);
                Decision::Spent {
                    receipt: Receipt(Path::Uncounted),
                    remaining: 0,
                    reset,
                }
            }
            OnStoreFault::Deny => Decision::Denied,
        }
    }

    /// Debits what has been spent already, whether there is budget or not. Nothing is admitted until it is made up for.
    pub fn charge(&self, key: Key, cost: u64) {
        if cost > 0 {
            self.counter.charge(key, cost, self.counter.now());
        }
    }

    /// Undoes a spending, because another limit refused the request.
    pub fn give_back(&self, key: Key, cost: u64, receipt: Receipt) {
        self.counter.give_back(key, cost, receipt.0);
        self.counter.line.wake(key);
    }
}
