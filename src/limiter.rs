//! Floor 1: the arithmetic of limits. Pure: no clock, no I/O, `now` is an argument, so that everything here can be
//! simulated and later held against the store's scripts. Whole numbers only, all below 2^53, because a script of the
//! store has doubles and nothing else.

pub mod bucket;
pub mod log;
pub mod ratio;
pub mod share;
pub mod sketch;
pub mod terms;
pub mod usage;
pub mod window;
