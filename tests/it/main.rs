//! The real binary between real clients and real servers, over loopback.
//!
//! Every test starts what it needs on ports of its own and in a directory of its own, so all of them run at once; and
//! every wait is for something to happen, with a deadline. What needs a program that is not installed says `SKIPPED`
//! and why, and fails where `CI=true`.
//!
//! | module | what it is about |
//! |---|---|
//! | `heads` | which requests are refused by their head alone, and how long a head may take |
//! | `framing` | where a message ends: smuggling, pipelining, HTTP/1.0, upgrades |
//! | `bodies` | request bodies, and answers that come before their end |
//! | `forwarding` | what a server is told, and what a client is told |
//! | `failing` | servers that are slow, gone, broken or full |

mod bodies;
mod failing;
mod forwarding;
mod framing;
mod heads;
mod support;
