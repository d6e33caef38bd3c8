//! Floor 2: where shared counts and queues live.

pub mod limits;
pub mod memory;
pub mod redis;
pub mod rooms;
