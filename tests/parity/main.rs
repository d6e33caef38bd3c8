//! The scripts of the Redis store against the store in memory: both get the same random conversations of several
//! gateways, and have to give equal answers.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]
#![expect(
    clippy::print_stderr,
    reason = "what is skipped, and which seeds were run, is said there"
)]
#![expect(clippy::print_stdout, reason = "what a turn costs is said there")]

#[path = "../it/support/redis.rs"]
#[expect(dead_code, reason = "the tests of faults need more of it")]
mod server;

mod limits;
mod restore;
mod rooms;
mod steering;

/// Says that a test cannot run here, and why. Where nothing may be skipped, that is a failure.
fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
    let strict = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!strict, "CI=true, and a test could not run: {why}");
}
