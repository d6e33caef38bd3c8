//! Floor 1: the arithmetic of limits. Pure: no clock, no I/O, `now` is an argument, so that everything here can be
//! simulated and later held against the store's scripts.

pub mod share;
pub mod sketch;
pub mod terms;
pub mod window;
