//! The end of a process: no new connections, those idle are closed, those busy are waited for, and not a moment
//! longer than they need.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Ends when the process is asked to stop, or when nobody is left to ask it.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone.
    let _last = stop.wait_for(|stop| *stop).await;
}

/// Marks what must be finished before the process may end.
///
/// A channel on which nothing is ever sent: it closes when the last mark is gone.
#[derive(Debug, Clone)]
pub struct Tracker(mpsc::Sender<()>);

/// Something unfinished; dropping it says that it is done.
#[derive(Debug)]
pub struct Mark {
    _sender: mpsc::Sender<()>,
}

/// The other end of all marks.
#[derive(Debug)]
pub struct Unfinished(mpsc::Receiver<()>);

/// A tracker and what waits for it.
pub fn tracker() -> (Tracker, Unfinished) {
    let (sender, receiver) = mpsc::channel(1);
    (Tracker(sender), Unfinished(receiver))
}

impl Tracker {
    /// One more thing to finish.
    pub fn mark(&self) -> Mark {
        Mark {
            _sender: self.0.clone(),
        }
    }
}

impl Unfinished {
    /// Waits until every tracker and every mark is gone; `false` when that took longer than `within`.
    pub async fn finished(mut self, within: Duration) -> bool {
        timeout(within, self.0.recv()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_idle_process_ends_at_once() {
        let (tracker, unfinished) = tracker();
        drop(tracker);
        assert!(unfinished.finished(Duration::from_secs(30)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_process_waits_and_then_gives_up() {
        let (tracker, unfinished) = tracker();
        let mark = tracker.mark();
        drop(tracker);
        assert!(!unfinished.finished(Duration::from_secs(30)).await);
        drop(mark);
    }
}
