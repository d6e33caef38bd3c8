//! What the tests are made of: a gateway, a server, a client, and waiting with a deadline.

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod meddler;
pub(crate) mod nginx;
pub(crate) mod origin;
pub(crate) mod redis;

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// How long anything may take that happens at once on an idle machine. Machines of CI are not idle.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How often [`eventually`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks again and again until `condition` gives something, and gives that. `what` is for the failure.
pub(crate) async fn eventually<T>(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(outcome) = condition().await {
            return outcome;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits for `event`, at most as long as [`PATIENCE`] lasts.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    timeout(PATIENCE, event)
        .await
        .unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Says that a test cannot run here, and why. Where nothing may be skipped, that is a failure.
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
    let strict = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!strict, "CI=true, and a test could not run: {why}");
}
