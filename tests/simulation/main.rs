//! State machines under seeded adversaries. `TIDEGATE_SIM_SEED=n` replays one seed.

mod room;
