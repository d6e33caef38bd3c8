//! What one request owes its limits until all of them have answered.

use std::time::Duration;

use super::answer::Standing;
use super::{COST, LIMITS_MAX, Missing, Rule};
use crate::base::clock::Timestamp;
use crate::base::exchange::Request;
use crate::base::key::Key;
use crate::throttle::{Decision, Receipt};

/// How far a request has come.
#[must_use]
pub(super) enum Progress {
    /// Every limit has been paid.
    Passed,
    /// The current limit refuses; it will not for so long.
    Refused(Duration),
    /// The current limit must ask the store first.
    Draw,
}

/// Limits are paid in order. What is paid and not settled is given back when the tab is dropped, so a client that
/// goes away while its request is held has spent nothing.
pub(super) struct Tab<'a> {
    rules: &'a [Rule],
    now: Timestamp,
    entries: [Entry; LIMITS_MAX],
    /// The limit that is asked now.
    current: usize,
}

#[derive(Clone, Copy)]
enum Entry {
    /// The limit does not apply to this request, or only looks on.
    Out,
    Open(Key),
    /// The receipt is there as long as the payment can be taken back.
    Paid {
        key: Key,
        receipt: Option<Receipt>,
        remaining: u64,
        reset: Duration,
    },
    Refused(Duration),
}

/// How long a limit is taken to refuse whose draw was not answered with a decision.
const UNDECIDED: Duration = Duration::from_secs(1);

impl<'a> Tab<'a> {
    /// Finds out what each limit counts this request by, before any is paid.
    ///
    /// # Errors
    /// The limit that the request may not pass for want of a key.
    pub(super) fn open(rules: &'a [Rule], request: &Request<'_>) -> Result<Self, &'a Rule> {
        let mut entries = [Entry::Out; LIMITS_MAX];
        for (entry, rule) in entries.iter_mut().zip(rules) {
            *entry = match (rule.extractor.extract(request), rule.missing) {
                (Some(key), _) => Entry::Open(key),
                (None, Missing::Together) => Entry::Open(rule.extractor.of_the_missing()),
                (None, Missing::Skip) => {
                    rule.tally.skipped.inc();
                    Entry::Out
                }
                (None, Missing::Reject) if rule.dry_run => {
                    rule.tally.would_limit.inc();
                    Entry::Out
                }
                (None, Missing::Reject) => {
                    rule.tally.rejected_missing.inc();
                    return Err(rule);
                }
            };
        }
        Ok(Self {
            rules,
            now: request.now,
            entries,
            current: 0,
        })
    }

    /// Pays the limits from the current one on, until one refuses or has to ask the store.
    pub(super) fn spend(&mut self) -> Progress {
        while let Some(rule) = self.rules.get(self.current) {
            let Entry::Open(key) = self.entries[self.current] else {
                self.current += 1;
                continue;
            };
            let decision = rule.limit.try_spend(key, COST, self.now);
            if let Decision::Draw = decision {
                return Progress::Draw;
            }
            if let Some(wait) = self.note(key, decision) {
                return Progress::Refused(wait);
            }
        }
        Progress::Passed
    }

    /// Lets the current limit ask the store, and goes on with those after it.
    pub(super) async fn draw(&mut self) -> Progress {
        if let Entry::Open(key) = self.entries[self.current] {
            let decision = self.current().limit.draw(key, COST, self.now).await;
            if let Some(wait) = self.note(key, decision) {
                return Progress::Refused(wait);
            }
        }
        self.spend()
    }

    /// The request goes on: what it paid is spent.
    pub(super) fn settle(&mut self) {
        for (entry, rule) in self.entries.iter_mut().zip(self.rules) {
            if let Entry::Paid { receipt, .. } = entry {
                *receipt = None;
                rule.tally.allowed.inc();
            }
        }
    }

    /// The request goes no further: what it paid was never spent.
    pub(super) fn give_back(&mut self) {
        for (entry, rule) in self.entries.iter_mut().zip(self.rules) {
            let Entry::Paid {
                key,
                receipt,
                remaining,
                ..
            } = entry
            else {
                continue;
            };
            if let Some(receipt) = receipt.take() {
                rule.limit.give_back(*key, COST, receipt);
                *remaining += COST;
            }
        }
    }

    /// The limit that was asked last.
    ///
    /// # Panics
    /// When every limit has been paid: then there is none.
    pub(super) fn current(&self) -> &'a Rule {
        &self.rules[self.current]
    }

    /// What clients are told: of every limit that has answered and is no dry run.
    pub(super) fn standings(&self) -> impl Iterator<Item = Standing<'a>> {
        self.entries.iter().zip(self.rules).filter_map(|(entry, rule)| {
            let (remaining, reset) = match *entry {
                Entry::Paid { remaining, reset, .. } => (remaining, reset),
                Entry::Refused(wait) => (0, wait),
                Entry::Out | Entry::Open(_) => return None,
            };
            (!rule.dry_run).then_some(Standing {
                notice: &rule.notice,
                remaining,
                reset,
            })
        })
    }

    /// Enters what the current limit decided; gives the wait if it refuses, else the next limit is current.
    fn note(&mut self, key: Key, decision: Decision) -> Option<Duration> {
        let rule = self.current();
        let wait = match decision {
            Decision::Spent {
                receipt,
                remaining,
                reset,
            } => {
                let receipt = Some(receipt);
                self.entries[self.current] = Entry::Paid {
                    key,
                    receipt,
                    remaining,
                    reset,
                };
                self.current += 1;
                return None;
            }
            Decision::Limited { retry_after } => retry_after,
            Decision::Draw => UNDECIDED,
        };
        if rule.dry_run {
            rule.tally.would_limit.inc();
            self.entries[self.current] = Entry::Out;
            self.current += 1;
            return None;
        }
        rule.tally.limited.inc();
        self.entries[self.current] = Entry::Refused(wait);
        Some(wait)
    }
}

impl Drop for Tab<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}
