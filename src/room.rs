//! Floor 3: waiting rooms.

/// A room.
#[derive(Debug)]
pub struct Room {}
