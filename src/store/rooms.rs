//! The contract of a store of rooms.
