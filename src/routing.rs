//! Floor 3: which route takes a request.
//!
//! A request's host and path are first brought into one spelling ([`host::normalise_host`],
//! [`path::normalise`]); what has several readings is refused there. Then [`table::Table`] finds the most
//! specific route. What is matched is what must be sent on: an upstream that is sent the client's own spelling
//! may read it differently, and then a rule has been passed by.
//!
//! Nothing here does I/O, and nothing here answers a client.

pub mod host;
pub mod path;
pub mod pattern;
pub mod table;
