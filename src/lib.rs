//! Tidegate: an edge gateway for services that must survive a rush.
//!
//! # The life of a request
//!
//! ```text
//!  a client connects       server/listen     a worker accepts, ends TLS, puts the stream under guard
//!                          proxy/accept      the plan is pinned; who asks, under which id, until when
//!  its request is read     proxy/dispatch    host and path get their one spelling; the queue API answers; a route is found
//!                          proxy/filter      the route's chain decides, step by step: go on, answer, or hold
//!                             plugins/rate_limit     spends budget that throttle/ has drawn from store/
//!                             plugins/waiting_room   lets a pass through, or gives a place in room/, in front of store/
//!  nobody has answered     proxy/forward     a server of upstream/ gets it, with headers that say who asked
//!  the answer comes        proxy/respond     headers are edited; refusals and failures become answers
//!  it is over              proxy/tally       one log line, one set of metrics; places in flight are free again
//! ```
//!
//! # How it is built
//!
//! In floors: a module uses lower floors only, and `tests/architecture.rs` holds it to that. From the ground up:
//! [`base`] has the words; [`limiter`] and [`queue`] decide, purely; [`store`] remembers and [`telemetry`] shows;
//! [`throttle`], [`room`], [`routing`] and [`upstream`] are the engines; [`plugins`] are what may be done to a
//! request; [`plan`] is the compiled gateway; [`config`] makes plans of YAML; [`proxy`] is the path above; [`server`]
//! is the process; [`cli`] the command line.
//!
//! # What holds everywhere
//!
//! * Decisions are pure: `(state, rule, cost, now) -> (decision, state)`. One file reads a clock.
//! * A plan is immutable and swapped whole; a request keeps the plan it came under. Counts, queues and places in
//!   flight outlive plans and are found by name.
//! * What is wrong in a configuration is found when it is loaded, all of it, with line and column. A plan that exists
//!   works.
//! * Plugins never see the connection; only `proxy/` writes to a client.
//! * Every queue and table has a bound, every wait a deadline, every bound a name with a unit.
//! * No secret and no client's value stands in a log line of events or in a metric label. One exception: who looks for
//!   the reason at `debug` is told from where a connection came that was cut off before it could send a request.

pub mod base;
pub mod limiter;
pub mod queue;

pub mod store;
pub mod telemetry;

pub mod room;
pub mod routing;
pub mod throttle;
pub mod upstream;

pub mod plugins;

pub mod plan;

pub mod config;

pub mod proxy;

pub mod server;

pub mod cli;
