//! Floor 3: waiting rooms: a replica of the queue, the queue API and the page, in front of a store.

pub mod page;
pub mod standing;

/// A room.
#[derive(Debug)]
pub struct Room {}
