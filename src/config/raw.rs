//! What the operator wrote, value by value: right in itself, not yet compared with anything else, nothing computed.
//!
//! The descriptions here become the descriptions in the schemas. Paths are as written; see
//! [`Document::resolve`](super::document::Document::resolve).

mod address;
mod admit;
mod bypass;
mod eject;
mod page;
mod process;
mod rules;

pub use self::address::{Bind, StoreUrl};
pub use self::admit::Admit;
pub use self::bypass::Bypass;
pub use self::eject::Eject;
pub use self::page::RoomPage;
pub use self::process::{
    Admin, Limits, Listener, LogTarget, PasswordFile, Process, QueueApi, QueueEvents, Redis, SecretFile, Secrets,
    Store, Throttle, Timeouts, Tls, Topology,
};
pub use self::rules::{
    Balance, Capacity, Match, Retry, RetryOn, Room, Route, Rules, Server, Upstream, UpstreamTimeouts,
};
