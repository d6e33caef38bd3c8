//! A limit as requests meet it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::counter::{Counter, Path};
use super::{LimitRule, OnStoreFault};
use crate::base::clock::Timestamp;
use crate::base::key::Key;

/// Turns of the store that one request waits for at most.
const DRAWS_MAX: usize = 3;

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
    /// Only the store can tell: see [`Limit::draw`].
    Draw,
}

/// Proof of a spending, to undo it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt(pub(super) Path);

/// A limit of one plan, on the counts that all plans share.
#[derive(Debug)]
pub struct Limit {
    rule: LimitRule,
    counter: Arc<Counter>,
}

impl Limit {
    pub(super) fn new(rule: LimitRule, counter: Arc<Counter>) -> Self {
        Self { rule, counter }
    }

    /// The rule.
    pub fn rule(&self) -> &LimitRule {
        &self.rule
    }

    pub(super) fn counter(&self) -> &Arc<Counter> {
        &self.counter
    }

    pub(super) fn take_effect(&self) {
        self.counter.set_rule(&self.rule);
    }

    /// Decides without waiting, if it can be decided so.
    pub fn try_spend(&self, key: Key, cost: u64, now: Timestamp) -> Decision {
        self.counter.try_spend(key, cost, self.counter.clock.at(now))
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
        for _ in 0..DRAWS_MAX {
            let turned = counter.next_turn(key);
            tokio::pin!(turned);
            turned.as_mut().enable();
            counter.want_draw(key, cost);
            if timeout(counter.store_timeout(), turned).await.is_err() || counter.is_cut_off() {
                return self.on_fault(key, cost, at);
            }
            at = counter.now();
            match counter.try_spend(key, cost, at) {
                Decision::Draw => {}
                decided => return decided,
            }
            if let Some(decided) = counter.spend_coupon(key, cost, at) {
                return decided;
            }
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
            OnStoreFault::Deny => Decision::Limited {
                retry_after: self.counter.pace(),
            },
        }
    }

    /// Undoes a spending, because another limit refused the request.
    pub fn give_back(&self, key: Key, cost: u64, receipt: Receipt) {
        self.counter.give_back(key, cost, receipt.0);
    }
}
