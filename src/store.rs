//! Floor 2: where shared counts and queues live.

pub mod limits;
pub mod memory;
pub mod rooms;
