//! What one request owes its limits until all of them have answered.

use std::sync::Arc;
use std::time::Duration;

use super::answer::Standing;
use super::{Cost, LIMITS_MAX, Missing, Rule};
use crate::base::clock::Timestamp;
use crate::base::exchange::{AtEnd, LimitedBy, Request};
use crate::base::key::{Key, Keyless};
use crate::room::Room;
use crate::throttle::{Decision, Place, Receipt};

/// How far a request has come.
#[must_use]
pub(super) enum Progress<'a> {
    /// Every limit has been paid.
    Passed,
    /// The current limit refuses; it will not for so long.
    Refused(Duration),
    /// The current limit will never have as much as the request costs.
    Never,
    /// The current limit cannot be counted now, and its rule refuses meanwhile.
    Denied,
    /// The current limit must ask the store first.
    Draw,
    /// The current limit has no budget, and the request is held for it: see [`Tab::wait`].
    Held(Place<'a>),
    /// The current limit refuses for so long and hands the request to this room.
    Room(&'a Arc<Room>, Duration),
}

/// Limits are paid in order. What is paid and not settled is given back when the tab is dropped, so a client that
/// goes away while its request is held has spent nothing.
///
/// A request that is held by one limit holds no budget of the others meanwhile: what it paid is given back before it
/// waits, and paid again afterwards. So a client that waits for its own budget takes nothing from what everybody
/// shares. Paying again may mean waiting again; how often is bounded, and so is the moment at which it ends.
pub(super) struct Tab<'a> {
    rules: &'a [Rule],
    arrived: Timestamp,
    now: Timestamp,
    entries: [Entry; LIMITS_MAX],
    /// The limit that is asked now.
    current: usize,
    /// Whom a limit refused, or would have, for the log.
    limited: Option<LimitedBy>,
    holds_left: usize,
}

#[derive(Clone, Copy)]
struct Due {
    key: Key,
    cost: u64,
}

impl Due {
    fn limited_by(self, rule: &Rule) -> LimitedBy {
        LimitedBy {
            limit: rule.limit.rule().name.clone(),
            key: self.key,
        }
    }
}

#[derive(Clone, Copy)]
enum Entry {
    /// The limit does not apply to this request, or only looks on.
    Out,
    Open(Due),
    /// The limit looks on, and the store is asked aside. What the answer costs is charged.
    Aside(Due),
    /// The receipt is there as long as the payment can be taken back.
    Paid {
        due: Due,
        receipt: Option<Receipt>,
        remaining: u64,
        reset: Duration,
    },
    Refused(Duration),
}

/// How often one request may be held, by all its limits together: as many times as it has limits.
const HOLDS_MAX: usize = LIMITS_MAX;

impl<'a> Tab<'a> {
    /// Finds out what each limit counts this request by, before any is paid.
    ///
    /// # Errors
    /// The limit that the request may not pass for want of a key.
    pub(super) fn open(rules: &'a [Rule], request: &Request<'_>) -> Result<Self, &'a Rule> {
        let mut entries = [Entry::Out; LIMITS_MAX];
        for (entry, rule) in entries.iter_mut().zip(rules) {
            if rule.except.contain(request.client_ip) {
                rule.tally().skipped.inc();
                continue;
            }
            let due = |key| Due {
                key,
                cost: rule.cost.of(request),
            };
            *entry = match (rule.extractor.extract(request), rule.missing) {
                (Ok(key), _) => Entry::Open(due(key)),
                (Err(Keyless::Missing), Missing::Skip) => {
                    rule.tally().skipped.inc();
                    Entry::Out
                }
                (Err(keyless), Missing::Together | Missing::Skip) => Entry::Open(due(rule.extractor.of_all(keyless))),
                (Err(_), Missing::Reject) if rule.dry_run => {
                    rule.tally().would_limit.inc();
                    Entry::Out
                }
                (Err(_), Missing::Reject) => {
                    rule.tally().rejected_missing.inc();
                    return Err(rule);
                }
            };
        }
        Ok(Self {
            rules,
            arrived: request.came,
            now: request.now,
            entries,
            current: 0,
            limited: None,
            holds_left: HOLDS_MAX,
        })
    }

    /// Pays the limits from the current one on, until one refuses or takes time.
    pub(super) fn spend(&mut self) -> Progress<'a> {
        while let Some(rule) = self.rules.get(self.current) {
            let Entry::Open(due) = self.entries[self.current] else {
                self.current += 1;
                continue;
            };
            if due.cost > rule.limit.rule().capacity() {
                self.limited = Some(due.limited_by(rule));
                if let Some(never) = self.never(rule) {
                    return never;
                }
                continue;
            }
            let decision = rule.limit.try_spend(due.key, due.cost, self.now);
            if let Some(halted) = self.note(due, decision) {
                return halted;
            }
        }
        Progress::Passed
    }

    /// Lets the current limit ask the store, and goes on with those after it.
    pub(super) async fn draw(&mut self) -> Progress<'a> {
        if let Entry::Open(due) = self.entries[self.current] {
            let limit = &self.current().limit;
            let decision = limit.draw(due.key, due.cost, self.now).await;
            self.now = self.now.max(limit.now());
            if let Some(halted) = self.note(due, decision) {
                return halted;
            }
        }
        self.spend()
    }

    /// Waits in the current limit's line; then pays what the other limits were given back.
    pub(super) async fn wait(&mut self, place: Place<'a>) -> Progress<'a> {
        let (rule, until) = (self.current(), self.patience_ends());
        if let (Entry::Open(due), Some(until)) = (self.entries[self.current], until) {
            let held = rule.limit.hold(place, due.key, due.cost, until).await;
            self.now = self.now.max(rule.limit.now());
            match held.decision {
                Decision::Limited { retry_after } => {
                    rule.tally().expired.inc();
                    return self.next_rung(due, retry_after);
                }
                decided => {
                    rule.tally().delayed.inc_by(u64::from(held.waited));
                    if let Some(halted) = self.note(due, decided) {
                        return halted;
                    }
                }
            }
        }
        self.current = 0;
        self.spend()
    }

    /// Refuses, though there is a room: the request is none that it decides about.
    pub(super) fn reject(&mut self, wait: Duration) -> Progress<'a> {
        self.current().tally().limited.inc();
        self.entries[self.current] = Entry::Refused(wait);
        Progress::Refused(wait)
    }

    /// The room decides from here on; the client is told what the limit said.
    pub(super) fn hand_over(&mut self, wait: Duration) {
        self.current().tally().to_room.inc();
        self.reopen();
        self.entries[self.current] = Entry::Refused(wait);
    }

    /// The room lets the request through: the current limit costs it nothing. The others are paid again.
    pub(super) fn excuse(&mut self) -> Progress<'a> {
        self.entries[self.current] = Entry::Out;
        self.limited = None;
        self.now = self.now.max(self.current().limit.now());
        self.current = 0;
        self.spend()
    }

    /// Which limit refused the request, or would have.
    pub(super) fn limited(&mut self) -> Option<LimitedBy> {
        self.limited.take()
    }

    /// What is charged for the answer once it is over, beyond what has been paid before it.
    pub(super) fn owed(&self) -> impl Iterator<Item = AtEnd> {
        self.entries
            .iter()
            .zip(self.rules)
            .filter_map(|(entry, rule)| match entry {
                Entry::Paid { due, .. } | Entry::Aside(due) if rule.cost == Cost::ResponseBytes => {
                    let (limit, key, paid) = (Arc::clone(&rule.limit), due.key, due.cost);
                    Some(AtEnd::new(move |bytes| limit.charge(key, bytes.saturating_sub(paid))))
                }
                _ => None,
            })
    }

    /// The request goes on: what it paid is spent.
    pub(super) fn settle(&mut self) {
        for (entry, rule) in self.entries.iter_mut().zip(self.rules) {
            if let Entry::Paid { receipt, .. } = entry {
                *receipt = None;
                rule.tally().allowed.inc();
            }
        }
    }

    /// The request goes no further: what it paid was never spent.
    pub(super) fn give_back(&mut self) {
        for (entry, rule) in self.entries.iter_mut().zip(self.rules) {
            let Entry::Paid {
                due,
                receipt,
                remaining,
                ..
            } = entry
            else {
                continue;
            };
            if let Some(receipt) = receipt.take() {
                rule.limit.give_back(due.key, due.cost, receipt);
                *remaining += due.cost;
            }
        }
    }

    /// The request waits: what it paid is given back, and will be paid again.
    fn reopen(&mut self) {
        self.give_back();
        for entry in &mut self.entries {
            if let Entry::Paid { due, .. } = *entry {
                *entry = Entry::Open(due);
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

    /// What clients are told: of every limit that has answered and is announced.
    pub(super) fn standings(&self) -> impl Iterator<Item = Standing<'a>> {
        self.entries.iter().zip(self.rules).filter_map(|(entry, rule)| {
            let (remaining, reset) = match *entry {
                Entry::Paid { due, .. } if rule.notice.leaks => rule.notice.places(rule.limit.held_for(due.key)),
                Entry::Paid { remaining, reset, .. } => (remaining, reset),
                Entry::Refused(wait) => (0, wait),
                Entry::Out | Entry::Open(_) | Entry::Aside(_) => return None,
            };
            rule.announced.then_some(Standing {
                notice: &rule.notice,
                remaining,
                reset,
            })
        })
    }

    fn never(&mut self, rule: &Rule) -> Option<Progress<'a>> {
        self.entries[self.current] = Entry::Out;
        if rule.dry_run {
            rule.tally().would_limit.inc();
            return None;
        }
        rule.tally().limited.inc();
        Some(Progress::Never)
    }

    /// Enters what the current limit decided. None: the next limit is current.
    fn note(&mut self, due: Due, decision: Decision) -> Option<Progress<'a>> {
        let rule = self.current();
        match decision {
            Decision::Spent {
                receipt,
                remaining,
                reset,
            } => {
                self.entries[self.current] = Entry::Paid {
                    due,
                    receipt: Some(receipt),
                    remaining,
                    reset,
                };
                self.current += 1;
                None
            }
            Decision::Limited { .. } | Decision::Denied if rule.dry_run => {
                rule.tally().would_limit.inc();
                self.limited = Some(due.limited_by(rule));
                self.entries[self.current] = Entry::Out;
                self.current += 1;
                None
            }
            Decision::Draw if rule.dry_run => {
                draw_aside(rule, due, self.now);
                self.entries[self.current] = Entry::Aside(due);
                self.current += 1;
                None
            }
            Decision::Limited { retry_after } => match self.join(due, retry_after) {
                Some(place) => Some(Progress::Held(place)),
                None => Some(self.next_rung(due, retry_after)),
            },
            Decision::Denied => {
                rule.tally().store_fault.inc();
                self.limited = Some(due.limited_by(rule));
                Some(Progress::Denied)
            }
            // In line from the start: who asks the store first must not come second for having asked.
            Decision::Draw => Some(self.join(due, Duration::ZERO).map_or(Progress::Draw, Progress::Held)),
        }
    }

    /// A place in the current limit's line, where it has one and `wait` is not longer than its patience.
    fn join(&mut self, due: Due, wait: Duration) -> Option<Place<'a>> {
        let rule = self.current();
        let patience = rule.over.delay.filter(|_| !rule.dry_run)?;
        let until = self.patience_ends()?;
        if self.now >= until || self.now + wait > until || self.holds_left == 0 {
            return None;
        }
        let place = rule.limit.join_line(due.key, due.cost, self.arrived, patience)?;
        self.holds_left -= 1;
        self.reopen();
        Some(place)
    }

    /// What the current limit does with a request that it holds no longer, or not at all.
    fn next_rung(&mut self, due: Due, wait: Duration) -> Progress<'a> {
        self.limited = Some(due.limited_by(self.current()));
        match &self.current().over.room {
            Some(room) => Progress::Room(room, wait),
            None => self.reject(wait),
        }
    }

    fn patience_ends(&self) -> Option<Timestamp> {
        let delay = self.current().over.delay?;
        Some(self.arrived + delay.within)
    }
}

/// Nobody waits for the store because of a limit that only looks on: it is asked all the same, and counted what it says.
fn draw_aside(rule: &Rule, due: Due, now: Timestamp) {
    let limit = Arc::clone(&rule.limit);
    tokio::spawn(async move {
        let decision = limit.draw(due.key, due.cost, now).await;
        let tally = limit.tally();
        if matches!(decision, Decision::Spent { .. }) {
            tally.allowed.inc();
        } else {
            tally.would_limit.inc();
        }
    });
}

impl Drop for Tab<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}
