//! Loops that must go on: a panic in one turn ends that turn, and no limit or room of everybody else's.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

/// What breaks one turn may break the next, so there is a rest between them.
const REST: Duration = Duration::from_secs(1);

/// Runs a loop, and again whenever it has panicked, until it ends by itself. `what` is named in the log.
pub async fn after_panics<F>(what: &str, mut run: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        // A task of its own, so that a panic ends it alone; dropped with this one.
        let mut running = JoinSet::new();
        running.spawn(run());
        match running.join_next().await {
            Some(Err(broken)) if broken.is_panic() => {
                log::error!("{what}: a turn panicked; it goes on in a moment");
                sleep(REST).await;
            }
            _ => return,
        }
    }
}
