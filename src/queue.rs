#![doc = include_str!("queue/README.md")]

pub mod admission;
mod deadlines;
pub mod earlier;
pub mod governor;
pub mod lobby;
pub mod log;
pub mod order;
pub mod proposals;
pub mod restore;
pub mod shuffle;
pub mod terms;
pub mod ticket;
pub mod turn;
pub mod work;
