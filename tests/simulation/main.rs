//! State machines under seeded adversaries. `TIDEGATE_SIM_SEED=n` replays one seed.

#[cfg(test)]
mod room;
