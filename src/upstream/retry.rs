//! How often a request may be tried again, all requests together: a share of those that set out. Without such a
//! budget every failing upstream is asked twice as much, just when it can bear it least.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What one retry costs.
const RETRY: i64 = 1_000_000;

/// Retries that may be saved up, so that a quiet upstream can retry at all.
const SAVED_MAX: i64 = 10;

/// A budget of retries, shared by all requests of an upstream.
#[derive(Debug)]
pub struct Budget {
    credit: AtomicI64,
    share: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            credit: AtomicI64::new(SAVED_MAX * RETRY),
            share: AtomicU64::new(0),
        }
    }
}

impl Budget {
    /// Sets what a request earns, as a share of a retry, 0 to 1.
    pub fn set_share(&self, share: f64) {
        self.share
            .store((share.clamp(0.0, 1.0) * RETRY as f64) as u64, Ordering::Relaxed);
    }

    /// Earns what one request is worth.
    pub fn earn(&self) {
        let share = self.share.load(Ordering::Relaxed) as i64;
        if self.credit.load(Ordering::Relaxed) < SAVED_MAX * RETRY {
            self.credit.fetch_add(share, Ordering::Relaxed);
        }
    }

    /// Pays for one retry, if there is enough. A budget with a share of nothing pays for none.
    pub fn spend(&self) -> bool {
        if self.share.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let pay = |credit| (credit >= RETRY).then_some(credit - RETRY);
        self.credit
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_a_tenth_of_requests_once_the_savings_are_gone() {
        let budget = Budget::default();
        budget.set_share(0.1);
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.earn();
            retries += i64::from(budget.spend());
        }
        assert!((1_000..=1_000 + SAVED_MAX).contains(&retries), "{retries}");
    }

    #[test]
    fn a_share_of_nothing_allows_no_retry() {
        assert!(!Budget::default().spend());
    }
}
