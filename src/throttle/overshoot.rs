//! By how much a limit was overshot: the truth beside the bound that its tolerance promises.

use std::sync::{Mutex, PoisonError};

use prometheus::Gauge;

/// The largest overshoot that the store's answers showed, in this window and in the one before.
#[derive(Debug)]
pub(super) struct Overshoot {
    gauge: Gauge,
    worst: Mutex<Worst>,
}

/// Shares of the limit.
#[derive(Debug, Default)]
struct Worst {
    window: u64,
    now: f64,
    before: f64,
}

impl Overshoot {
    pub(super) fn new(gauge: Gauge) -> Self {
        let worst = Mutex::default();
        Self { gauge, worst }
    }

    /// Takes in that in `window` a key's count was `excess` above what the limit `allows`.
    pub(super) fn note(&self, window: u64, excess: u64, allows: u64) {
        let mut worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        if window != worst.window {
            let before = if window == worst.window + 1 { worst.now } else { 0.0 };
            *worst = Worst {
                window,
                now: 0.0,
                before,
            };
        }
        worst.now = worst.now.max(excess as f64 / allows.max(1) as f64);
        self.gauge.set(worst.now.max(worst.before));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_two_windows_is_shown() {
        let gauge = Gauge::new("overshoot", "of a test").unwrap();
        let overshoot = Overshoot::new(gauge.clone());
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
}
