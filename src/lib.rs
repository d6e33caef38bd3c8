//! Tidegate.

pub mod base;
pub mod cli;
pub mod config;
pub mod limiter;
pub mod plan;
pub mod plugins;
pub mod proxy;
pub mod queue;
pub mod room;
pub mod routing;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod throttle;
pub mod upstream;
