//! The embedded store, for one gateway.

pub mod limits;
pub mod rooms;
