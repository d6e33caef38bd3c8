//! By how much a limit was overshot: the truth beside the bound that its tolerance promises.
//!
//! Two counts above a limit break no promise and are not shown: what is debited once it is known, for that cannot be
//! refused; and what was admitted before the limit was lowered.

use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::Gauge;

use super::LimitRule;
use crate::telemetry::metrics::METRICS;

/// The window in which a limit is lowered, and so many after it, count what was admitted before.
const LOWERED_FOR: u64 = 2;

/// The largest overshoot that the store's answers showed, in this window and in the one before.
#[derive(Debug, Default)]
pub(super) struct Overshoot {
    worst: Mutex<Worst>,
}

/// Shares of the limit.
#[derive(Debug, Default)]
struct Worst {
    /// None where it is not shown.
    gauge: Option<Gauge>,
    window: u64,
    now: f64,
    before: f64,
    /// What the rule lets through at most, tolerance included.
    most: f64,
    /// Before this window it was more.
    lowered_until: u64,
}

impl Overshoot {
    /// Takes in which rule holds from now on, and shows its bound.
    pub(super) fn heed(&self, rule: &LimitRule) {
        let (mut worst, label) = (self.locked(), [rule.name.as_str()]);
        if rule.counting.debits {
            worst.gauge = None;
            hide(&label);
            return;
        }
        let most = rule.capacity() as f64 * (1.0 + rule.tolerance);
        if most < worst.most {
            worst.lowered_until = worst.window + LOWERED_FOR + 1;
            (worst.now, worst.before) = (0.0, 0.0);
        }
        worst.most = most;
        worst.gauge = Some(METRICS.throttle_overshoot.with_label_values(&label));
        METRICS
            .throttle_overshoot_bound
            .with_label_values(&label)
            .set(rule.tolerance);
    }

    /// Takes in that in `window` a key's count was `excess` above what the limit `allows`.
    pub(super) fn note(&self, window: u64, excess: u64, allows: u64) {
        let mut worst = self.locked();
        if window != worst.window {
            worst.before = if window == worst.window + 1 { worst.now } else { 0.0 };
            (worst.window, worst.now) = (window, 0.0);
        }
        if window >= worst.lowered_until {
            worst.now = worst.now.max(excess as f64 / allows.max(1) as f64);
        }
        if let Some(gauge) = &worst.gauge {
            gauge.set(worst.now.max(worst.before));
        }
    }

    fn locked(&self) -> MutexGuard<'_, Worst> {
        self.worst.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows nothing of a limit any more. What was never shown need not be taken away.
pub(super) fn hide(limit: &[&str; 1]) {
    drop(METRICS.throttle_overshoot.remove_label_values(limit));
    drop(METRICS.throttle_overshoot_bound.remove_label_values(limit));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::Counting;
    use crate::throttle::tests::rule;

    fn of(rule: &LimitRule) -> (Overshoot, Gauge) {
        let overshoot = Overshoot::default();
        overshoot.heed(rule);
        let gauge = METRICS.throttle_overshoot.with_label_values(&[rule.name.as_str()]);
        (overshoot, gauge)
    }

    #[test]
    fn the_worst_of_two_windows_is_shown() {
        let (overshoot, gauge) = of(&rule("worst-of-two", "100/min", 0.0));
        for (window, excess, shown) in [
            (7, 0, 0.0),
            (7, 4, 0.04),
            (7, 1, 0.04),
            (8, 2, 0.04),
            (9, 0, 0.02),
            (12, 0, 0.0),
        ] {
            overshoot.note(window, excess, 100);
            assert!((gauge.get() - shown).abs() < 1e-9, "window {window}: {}", gauge.get());
        }
    }

    #[test]
    fn what_was_admitted_before_a_limit_was_lowered_is_no_overshoot() {
        for lowered in [rule("lowered", "50/h", 0.05), rule("lowered", "500/h", 0.0)] {
            let (overshoot, gauge) = of(&rule("lowered", "500/h", 0.05));
            overshoot.note(7, 10, 500);
            assert!(gauge.get() > 0.0);
            overshoot.heed(&lowered);
            for window in 7..10 {
                overshoot.note(window, 450, lowered.capacity());
                assert_eq!(gauge.get(), 0.0, "window {window} of {}", lowered.rate);
            }
            overshoot.note(10, 5, lowered.capacity());
            assert!(gauge.get() > 0.0, "what comes later is");
            overshoot.heed(&rule("lowered", "1000/h", 0.05));
            overshoot.note(11, 5, 1_000);
            assert!(gauge.get() > 0.0, "nothing is forgotten where a limit is raised");
        }
    }

    #[test]
    fn what_is_debited_afterwards_overshoots_no_promise() {
        let plain = rule("debited", "100/min", 0.0);
        let debited = LimitRule {
            counting: Counting {
                debits: true,
                ..Counting::default()
            },
            ..plain.clone()
        };
        let (overshoot, _) = of(&plain);
        overshoot.heed(&debited);
        overshoot.note(7, 10_000, 100);
        let shows = || METRICS.render().contains("limit=\"debited\"");
        assert!(!shows(), "neither it nor its bound");
        overshoot.heed(&plain);
        assert!(shows());
    }
}
