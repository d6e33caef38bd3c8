//! A key that is counted exactly: what this gateway may still spend on it without asking.
//!
//! Budget is an atomic, so that spending takes no lock. One task writes grants; requests only take away.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::demand::{Demand, Outlook};
use crate::base::clock::Timestamp;
use crate::limiter::terms::Terms;
use crate::limiter::window::Counts;

/// More is asked for when so much of the budget is left.
const LOW_OF_BUDGET: u64 = 2;

/// A store that has nothing says when what was used will no longer count. What others hold in vain, or have not reported,
/// comes back earlier: so it is asked again after so long, and after twice as long each time it still has nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const LOOK_AGAIN_DOUBLED_MOST: u32 = 16;

/// A pooled key.
#[derive(Debug, Default)]
pub(super) struct HotKey {
    /// May be spent until `valid_until`. All of it is of one lot.
    budget: AtomicU64,
    valid_until: AtomicU64,
    lot: AtomicU64,
    /// A lot that another took the place of, with what was unspent of it.
    replaced: Mutex<Option<(u64, u64)>>,
    /// Admitted ahead of any grant: not yet told to the store, or told and not covered by the limit.
    overdraft: AtomicU64,
    /// The part of it that the store has not been told.
    untold: AtomicU64,
    /// Until this moment the store need not be asked: there is nothing to be had.
    saturated_until: AtomicU64,
    /// How often in a row there was.
    in_vain: AtomicU32,
    /// When something will be left again, as far as is known.
    free_at: AtomicU64,
    remaining: AtomicU64,
    demand: Demand,
    /// Little was left in the store when it was last heard of.
    scarce: AtomicBool,
    /// Until this moment the store is taken to have nothing: it granted less than was asked for.
    dry_until: AtomicU64,
    /// The same, where it granted so much less that there is no use in waiting for more.
    overrun_until: AtomicU64,
    /// Below this much budget the next turn should bring more.
    low: AtomicU64,
    /// The most that one request wanted in vain since the last grant.
    missed: AtomicU64,
    /// It is in its partition's inbox already.
    queued: AtomicBool,
    /// The store does not know that this gateway has given up its free share.
    unreported: AtomicBool,
    /// What this gateway drew and did not give back, or admitted ahead of any grant: what a store that has
    /// forgotten everything must be told.
    own: Mutex<Counts>,
}

/// How a request fared with a pooled key.
pub(super) enum HotSpend {
    /// From this lot.
    Budget(u64),
    Overdraft,
    Limited(Duration),
    /// There may be budget in the store, and it is worth waiting for.
    Dry,
    /// The next turn may bring budget, for whoever comes then.
    Overrun,
}

impl HotKey {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            demand: Demand::new(now),
            ..Self::default()
        }
    }

    /// Spends from the budget; else ahead of it, as long as that stays within `overdraft_max`. While calls of the store
    /// are `short`, they are left to those of whose keys something may remain.
    pub(super) fn spend(&self, cost: u64, overdraft_max: u64, short: bool, now: Timestamp) -> HotSpend {
        self.demand.note(cost);
        // Read before the budget is taken: should another lot take its place in between, nothing can be undone, and
        // that errs towards less.
        let lot = self.lot.load(Ordering::Acquire);
        let is_valid = self.valid_until.load(Ordering::Acquire) > now.as_micros();
        if is_valid && take(&self.budget, cost) {
            return HotSpend::Budget(lot);
        }
        // What has expired here is there to be had again as soon as it is given back, whatever the store said.
        let gives_back = !is_valid && self.budget.load(Ordering::Acquire) >= cost;
        if !gives_back && self.saturated_until.load(Ordering::Acquire) > now.as_micros() {
            return HotSpend::Limited(Timestamp::from_micros(self.free_at.load(Ordering::Relaxed)).since(now));
        }
        let ahead = |overdraft: u64| overdraft.checked_add(cost).filter(|sum| *sum <= overdraft_max);
        if self
            .overdraft
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, ahead)
            .is_ok()
        {
            self.untold.fetch_add(cost, Ordering::AcqRel);
            return HotSpend::Overdraft;
        }
        self.missed.fetch_max(cost, Ordering::Relaxed);
        let in_vain_until = if short { &self.dry_until } else { &self.overrun_until };
        if !gives_back && in_vain_until.load(Ordering::Relaxed) > now.as_micros() {
            HotSpend::Overrun
        } else {
            HotSpend::Dry
        }
    }

    /// Takes what has been spent already: from the budget as far as it goes, and the rest is debt in this frame.
    pub(super) fn debit(&self, cost: u64, frame: u64, now: Timestamp) {
        self.demand.note(cost);
        let valid = self.valid_until.load(Ordering::Acquire) > now.as_micros();
        let paid = if valid { take_up_to(&self.budget, cost) } else { 0 };
        self.count(frame, cost - paid);
        self.overdraft.fetch_add(cost - paid, Ordering::AcqRel);
        self.untold.fetch_add(cost - paid, Ordering::AcqRel);
    }

    /// Pays debt that the store has not been told of from budget, which the store has counted.
    fn pay_debt(&self, frame: u64) {
        let owed = self.untold.load(Ordering::Acquire);
        if owed > 0 {
            let paid = take_up_to(&self.untold, take_up_to(&self.budget, owed));
            take_up_to(&self.overdraft, paid);
            self.uncount(frame, paid);
        }
    }

    /// Undoes a spending from a lot of the budget. When that lot is gone, so is this.
    pub(super) fn give_back_budget(&self, cost: u64, lot: u64) {
        if self.lot.load(Ordering::Acquire) == lot {
            self.budget.fetch_add(cost, Ordering::AcqRel);
        }
    }

    /// Spends ahead of any grant and without a bound of its own: the caller has one.
    pub(super) fn spend_untold(&self, index: u64, cost: u64) {
        self.overdraft.fetch_add(cost, Ordering::AcqRel);
        self.untold.fetch_add(cost, Ordering::AcqRel);
        self.count(index, cost);
    }

    /// Undoes a spending ahead of the budget. What the store has been told of since stays counted.
    pub(super) fn give_back_overdraft(&self, index: u64, cost: u64) {
        if take(&self.untold, cost) {
            take(&self.overdraft, cost);
            self.uncount(index, cost);
        }
    }

    /// What was drawn or admitted here, seen from window `index`.
    pub(super) fn own(&self, index: u64) -> Counts {
        self.locked_own().turned_to(index)
    }

    pub(super) fn count(&self, index: u64, cost: u64) {
        let mut own = self.locked_own();
        *own = own.plus(Counts {
            index,
            prev: 0,
            cur: cost,
        });
    }

    fn uncount(&self, index: u64, cost: u64) {
        let mut own = self.locked_own();
        *own = own.without(Counts {
            index,
            prev: 0,
            cur: cost,
        });
    }

    fn locked_own(&self) -> MutexGuard<'_, Counts> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the one place in the inbox; `false` when it is there already.
    pub(super) fn queue(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }

    pub(super) fn unqueue(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// The store has forgotten, or never heard, what was used of the free share.
    pub(super) fn report_again(&self) {
        self.unreported.store(true, Ordering::Release);
    }

    pub(super) fn take_unreported(&self) -> bool {
        self.unreported.swap(false, Ordering::AcqRel)
    }

    /// What the store should be told now. Nothing is told twice.
    pub(super) fn take_untold(&self) -> u64 {
        self.untold.swap(0, Ordering::AcqRel)
    }

    /// Budget that is no longer good, with its lot.
    pub(super) fn take_expired(&self, terms: &Terms, now: Timestamp) -> Option<(u64, u64)> {
        let expired = self.locked_replaced().take().or_else(|| self.take_overdue(now));
        if let Some((lot, unspent)) = expired {
            self.uncount(terms.frame_of_lot(lot), unspent);
        }
        expired
    }

    /// Whether there is budget that is no longer good.
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        let overdue = self.valid_until.load(Ordering::Acquire) <= now.as_micros();
        overdue && self.budget.load(Ordering::Acquire) > 0 || self.locked_replaced().is_some()
    }

    fn take_overdue(&self, now: Timestamp) -> Option<(u64, u64)> {
        if self.valid_until.load(Ordering::Acquire) > now.as_micros() {
            return None;
        }
        let unspent = self.budget.swap(0, Ordering::AcqRel);
        (unspent > 0).then(|| (self.lot.load(Ordering::Acquire), unspent))
    }

    fn locked_replaced(&self) -> MutexGuard<'_, Option<(u64, u64)>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to ask for: what is expected, less what is still there; at least one, so that the rest does not end, where it
    /// is to be renewed.
    pub(super) fn ask(&self, outlook: &Outlook, renewal: &Renewal, now: Timestamp) -> u64 {
        let expected = self.demand.expect(outlook, now);
        let there = self.budget(now);
        let renews = expected > 0 && there > 0 && self.ends_soon(renewal, now);
        expected.saturating_sub(there).max(u64::from(renews))
    }

    /// Takes in what the store granted; gives what is stranded: budget for which there is no way back.
    pub(super) fn granted(&self, grant: &Grant, now: Timestamp) -> u64 {
        let mut stranded = 0;
        if grant.budget > 0 {
            self.count(grant.frame, grant.budget);
            if self.lot.load(Ordering::Acquire) == grant.lot {
                self.valid_until.store(grant.valid_until.as_micros(), Ordering::Release);
            } else if !self.joins_old_lot(grant, now) {
                stranded = self.replace_lot(grant.lot);
                self.valid_until.store(grant.valid_until.as_micros(), Ordering::Release);
            }
            let budget = grant.budget + self.budget.fetch_add(grant.budget, Ordering::AcqRel);
            self.low.store(budget / LOW_OF_BUDGET, Ordering::Relaxed);
            self.pay_debt(grant.frame);
        }
        if grant.budget > 0 {
            self.in_vain.store(0, Ordering::Relaxed);
        } else if grant.saturated_until > now {
            self.in_vain.fetch_add(1, Ordering::Relaxed);
        }
        self.scarce.store(grant.scarce, Ordering::Relaxed);
        self.dry_until.store(grant.dry_until.as_micros(), Ordering::Relaxed);
        self.overrun_until
            .store(grant.overrun_until.as_micros(), Ordering::Relaxed);
        self.remaining.store(grant.remaining, Ordering::Relaxed);
        self.free_at.store((now + grant.wait).as_micros(), Ordering::Relaxed);
        self.saturated_until
            .store(grant.saturated_until.as_micros(), Ordering::Release);
        if grant.covered {
            let untold = self.untold.load(Ordering::Acquire);
            self.overdraft.fetch_min(untold, Ordering::AcqRel);
        }
        stranded
    }

    /// What was to last until some moment would last for too long.
    pub(super) fn time_went_back(&self) {
        self.look_again();
        self.valid_until.store(0, Ordering::Release);
    }

    /// The store is asked again for whoever comes next.
    pub(super) fn look_again(&self) {
        self.in_vain.store(0, Ordering::Relaxed);
        for until in [&self.saturated_until, &self.dry_until, &self.overrun_until] {
            until.store(0, Ordering::Release);
        }
    }

    /// How soon to ask again, should the store have nothing now.
    pub(super) fn looks_again_in(&self) -> Duration {
        LOOK_AGAIN * (1 << self.in_vain.load(Ordering::Relaxed).min(LOOK_AGAIN_DOUBLED_MOST))
    }

    /// Whether a grant is to be spent as if it were of the lot that is there: when a request wants more than either has.
    /// The older lot ends earlier, and what comes back of it counts for no more, so that errs towards less.
    fn joins_old_lot(&self, grant: &Grant, now: Timestamp) -> bool {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        let valid_until = self.valid_until.load(Ordering::Acquire);
        let lives = valid_until > now.as_micros() && valid_until <= grant.valid_until.as_micros();
        grant.may_join && lives && grant.budget < missed && self.budget.load(Ordering::Acquire) > 0
    }

    /// Lots are not mixed: the store counts each as of its own moment, and the old one must not live on in the new. What
    /// is unspent of it goes back with the next turn, unless another is on its way back already.
    fn replace_lot(&self, lot: u64) -> u64 {
        let unspent = self.budget.swap(0, Ordering::AcqRel);
        let old = self.lot.swap(lot, Ordering::AcqRel);
        let mut replaced = self.locked_replaced();
        if unspent == 0 || replaced.is_some() {
            return unspent;
        }
        *replaced = Some((old, unspent));
        0
    }

    /// What a client may be told is left: here, and in the store when it was last heard of.
    pub(super) fn remaining(&self) -> u64 {
        self.budget
            .load(Ordering::Relaxed)
            .saturating_add(self.remaining.load(Ordering::Relaxed))
    }

    /// Budget that may be spent now.
    pub(super) fn budget(&self, now: Timestamp) -> u64 {
        let valid = self.valid_until.load(Ordering::Acquire) > now.as_micros();
        if valid { self.budget.load(Ordering::Relaxed) } else { 0 }
    }

    /// How much of it is wanted here.
    pub(super) const fn demand(&self) -> &Demand {
        &self.demand
    }

    /// Whether there is budget that will have to be given back.
    pub(super) fn holds_budget(&self) -> bool {
        self.budget.load(Ordering::Acquire) > 0 || self.locked_replaced().is_some()
    }

    /// Whether so little budget is left that the next turn should bring more.
    pub(super) fn runs_low(&self, cost: u64) -> bool {
        let low = self.low.load(Ordering::Relaxed).max(cost.saturating_mul(4));
        self.budget.load(Ordering::Relaxed) < low
    }

    /// Whether budget ends so soon that the next turn should bring more, or what is left would have to go back.
    pub(super) fn ends_soon(&self, renewal: &Renewal, now: Timestamp) -> bool {
        let latest = renewal.before.min(now + renewal.within);
        self.valid_until.load(Ordering::Relaxed) < latest.as_micros()
    }

    /// What was left in the store when it was last heard of.
    pub(super) fn left_there(&self) -> u64 {
        self.remaining.load(Ordering::Relaxed)
    }

    /// Whether little was left of it in the store.
    pub(super) fn is_scarce(&self) -> bool {
        self.scarce.load(Ordering::Relaxed)
    }

    /// When the budget is no longer good; what was replaced is not good now.
    pub(super) fn valid_until(&self) -> Timestamp {
        if self.locked_replaced().is_some() {
            return Timestamp::default();
        }
        Timestamp::from_micros(self.valid_until.load(Ordering::Acquire))
    }
}

/// Which budget is renewed while it is spent: that which ends so soon, and before its frame does, which none outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Renewal {
    pub(super) within: Duration,
    pub(super) before: Timestamp,
}

/// What a reply of the store means for a key here.
pub(super) struct Grant {
    pub(super) budget: u64,
    pub(super) lot: u64,
    pub(super) frame: u64,
    pub(super) valid_until: Timestamp,
    pub(super) remaining: u64,
    pub(super) wait: Duration,
    pub(super) saturated_until: Timestamp,
    pub(super) covered: bool,
    pub(super) scarce: bool,
    pub(super) dry_until: Timestamp,
    pub(super) overrun_until: Timestamp,
    /// Lots are of single moments: a request that wants more than one has may spend two.
    pub(super) may_join: bool,
}

fn take(from: &AtomicU64, amount: u64) -> bool {
    from.fetch_update(Ordering::AcqRel, Ordering::Acquire, |there| there.checked_sub(amount))
        .is_ok()
}

/// Takes `amount`, or what is there of it; gives what was taken.
fn take_up_to(from: &AtomicU64, amount: u64) -> u64 {
    let rest = |there: u64| Some(there.saturating_sub(amount));
    let there = from.fetch_update(Ordering::AcqRel, Ordering::Acquire, rest);
    there.unwrap_or_default().min(amount)
}
