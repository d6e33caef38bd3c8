//! How many requests an upstream is working on, counted by guards: a place is freed when its guard is dropped,
//! on every path, a panic included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::IntGauge;

/// The places of one upstream; clones share the count.
#[derive(Debug, Clone)]
pub struct InFlight {
    count: Arc<AtomicU64>,
    limit: u64,
    gauge: IntGauge,
}

/// One place; dropping it frees it.
#[derive(Debug)]
pub struct Permit {
    count: Arc<AtomicU64>,
    gauge: IntGauge,
}

impl InFlight {
    /// No bound yet, nobody in flight.
    pub fn new(gauge: IntGauge) -> Self {
        Self {
            count: Arc::default(),
            limit: u64::MAX,
            gauge,
        }
    }

    /// The same count under another bound; none for no bound.
    #[must_use]
    pub fn with_limit(&self, limit: Option<u64>) -> Self {
        Self {
            limit: limit.unwrap_or(u64::MAX),
            ..self.clone()
        }
    }

    /// Places that are taken now.
    pub fn taken(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Takes a place, if one is left.
    pub fn admit(&self) -> Option<Permit> {
        let room = |count| (count < self.limit).then_some(count + 1);
        self.count
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, room)
            .ok()?;
        self.gauge.inc();
        Some(Permit {
            count: Arc::clone(&self.count),
            gauge: self.gauge.clone(),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_guard_goes() {
        let places = InFlight::new(IntGauge::new("g", "g").unwrap()).with_limit(Some(2));
        let first = places.admit().unwrap();
        let _second = places.admit().unwrap();
        assert!(places.admit().is_none());
        drop(first);
        assert!(places.admit().is_some());
    }

    #[test]
    fn a_panic_frees_the_place() {
        let places = InFlight::new(IntGauge::new("g", "g").unwrap()).with_limit(Some(1));
        let held = places.clone();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _permit = held.admit().unwrap();
            panic!("a plugin's bug");
        }));
        assert!(panicked.is_err());
        assert!(places.admit().is_some());
    }

    #[test]
    fn a_new_bound_counts_those_already_there() {
        let places = InFlight::new(IntGauge::new("g", "g").unwrap());
        let _held = [places.admit().unwrap(), places.admit().unwrap()];
        assert!(places.with_limit(Some(2)).admit().is_none());
        assert!(places.with_limit(Some(3)).admit().is_some());
    }
}
