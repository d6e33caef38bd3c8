//! Rooms in memory.
