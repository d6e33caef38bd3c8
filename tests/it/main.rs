//! The real binary between real clients and real servers, over loopback.
//!
//! Every test starts what it needs on ports of its own and in a directory of its own, so all of them run at once; and
//! every wait is for something to happen, with a deadline. What needs a program that is not installed says `SKIPPED`
//! and why, and fails where `CI=true`.
//!
//! | module | what it is about |
//! |---|---|
//! | `admin` | the operator's listener, and that nobody else sees it |
//! | `bodies` | request bodies, and answers that come before their end |
//! | `browser` | the waiting page in a real browser |
//! | `bypass` | who goes around a waiting room, by network or by link |
//! | `cli` | what the command line prints, and the codes it ends with |
//! | `ejection` | servers that fail while others do not, and those that come back |
//! | `failing` | servers that are slow, gone, broken or full |
//! | `fleet` | one waiting room of two gateways |
//! | `forwarding` | what a server is told, and what a client is told |
//! | `framing` | where a message ends: smuggling, pipelining, HTTP/1.0, upgrades |
//! | `heads` | which requests are refused by their head alone, and how long a head may take |
//! | `late_answers` | answers of the store that come when nobody waits for them |
//! | `limits` | who is refused, what they are told, and what a refusal costs |
//! | `lobby` | a room that opens at a moment and shuffles who came before |
//! | `logs` | every request once, and nothing that could hurt whoever reads it |
//! | `lost_room` | a room whose store loses everything while people wait |
//! | `newcomer` | a gateway that is started while windows are under way |
//! | `price` | what a place in a queue costs, for programs and browsers |
//! | `proxy_header` | the PROXY protocol: for whom a proxy connects |
//! | `queue_api` | the queue API as programs use it |
//! | `queue_events` | places followed as server-sent events |
//! | `regained` | a room that is lost with all that remembered it, and tickets |
//! | `reload` | new rules while requests go on |
//! | `rooms` | waiting rooms as visitors meet them |
//! | `rotation` | new keys for tickets while limits count |
//! | `shutdown` | the way out |
//! | `slips` | tickets and passes that are forged, altered, kept, copied or carried elsewhere |
//! | `steering` | rooms as operators steer them, from the command line |
//! | `store` | a fleet on Redis, and everything that can happen to that |
//! | `tls` | whose certificate, which protocol, whose clients |
//! | `tunnels` | WebSockets, and whatever else a connection is upgraded to |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is missing"
)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what a test has to say goes to whoever runs it"
)]
#![allow(clippy::type_complexity, reason = "tables of cases name their columns' types once")]

mod admin;
mod bodies;
mod browser;
mod bypass;
mod cli;
mod ejection;
mod failing;
mod fleet;
mod forwarding;
mod framing;
mod heads;
mod late_answers;
mod limits;
mod lobby;
mod logs;
mod lost_room;
mod newcomer;
mod price;
mod proxy_header;
mod queue_api;
mod queue_events;
mod regained;
mod reload;
mod rooms;
mod rotation;
mod shutdown;
mod slips;
mod steering;
mod store;
mod support;
mod tls;
mod tunnels;
