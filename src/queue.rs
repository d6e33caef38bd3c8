#![doc = include_str!("queue/README.md")]

pub mod admission;
mod deadlines;
pub mod log;
pub mod order;
pub mod restore;
pub mod terms;
pub mod ticket;
pub mod turn;
