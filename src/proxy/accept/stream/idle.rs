//! How long a connection may wait for its next request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// One timer for all the waits of a connection. It is not set anew for every request: it goes off when the first wait
/// would have been over, and is then set for the one that is under way. Most connections never see it go off.
#[derive(Debug)]
pub(super) struct Idle {
    within: Duration,
    /// When the wait that is under way is over.
    until: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    /// No wait may be longer than `within`.
    pub(super) fn new(within: Duration) -> Self {
        Self {
            within,
            until: None,
            timer: None,
        }
    }

    /// The client has sent something.
    pub(super) fn end(&mut self) {
        self.until = None;
    }

    /// There is nothing to read; ready once that has been so for too long.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A sleep that nobody waits for costs nothing but the look at the clock, which is its own to take.
        let until = *self.until.get_or_insert_with(|| sleep(self.within).deadline());
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(60);

    async fn over(idle: &mut Idle) -> Duration {
        let begun = Instant::now();
        poll_fn(|cx| idle.poll_over(cx)).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn every_wait_is_as_long_as_the_first() {
        let mut idle = Idle::new(WITHIN);
        for busy in [0, 1, 59, 60, 61, 3600] {
            let waited = timeout(Duration::from_secs(7), over(&mut idle)).await;
            assert!(waited.is_err(), "a short wait is none too long");
            idle.end();
            advance(Duration::from_secs(busy)).await;
        }
        let waited = over(&mut idle).await;
        assert!(
            (WITHIN..WITHIN + Duration::from_millis(2)).contains(&waited),
            "{waited:?}"
        );
    }
}
