//! Floor 2: what can be seen from outside: metrics, the access log, and the log of events.

pub mod access_log;
pub mod event_log;
pub mod metrics;
pub mod process;
pub mod route_meter;
pub mod vitals;
