//! The protocols in virtual time: many gateways, a store that loses calls and answers late, and invariants that are
//! checked after every step. A failure names its seed; `TIDEGATE_SIM_SEED=<seed>` runs that one again, and
//! `TIDEGATE_SIM_SEEDS=<count>` runs more of them.

#[cfg(test)]
mod algorithms;
#[cfg(test)]
mod regain;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod room;
#[cfg(test)]
mod throttle;

/// The seeds to run: the one asked for, or so many from 1.
#[cfg(test)]
fn seeds(default: u64) -> Vec<u64> {
    let asked = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text: String| text.parse::<u64>().ok())
    };
    match asked("TIDEGATE_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=asked("TIDEGATE_SIM_SEEDS").unwrap_or(default)).collect(),
    }
}

/// Names the seed when an assertion fails.
#[cfg(test)]
struct Seed(u64);

#[cfg(test)]
impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with TIDEGATE_SIM_SEED={}", self.0);
        }
    }
}
