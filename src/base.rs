//! Floor 0: the words everything else is said in. Nothing here does I/O, and only [`clock`] reads time.

pub mod client_ip;
pub mod clock;
pub mod digits;
pub mod exchange;
pub mod header_rules;
pub mod key;
pub mod misfit;
pub mod mix;
pub mod name;
pub mod negotiate;
pub mod one_or_many;
pub mod parameters;
pub mod rate;
pub mod resume;
pub mod secret;
pub mod template;
pub mod unit;
