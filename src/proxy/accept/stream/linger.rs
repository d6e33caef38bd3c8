//! The end of a connection whose client may still be sending. A system resets a connection that is closed with bytes
//! unread, and a reset can overtake the answer: so what is left is read, for a while, before the connection is closed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a client may go on sending behind an answer that ends its connection.
const LINGER_WITHIN: Duration = Duration::from_secs(5);

/// How much of that is read at once.
const READ_BYTES: usize = 16 * 1024;

/// Reads what nobody wants any more.
pub(super) struct Linger {
    timer: Pin<Box<Sleep>>,
    unwanted: Vec<u8>,
}

impl Linger {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self {
            timer: Box::pin(sleep(LINGER_WITHIN)),
            unwanted: vec![0; READ_BYTES],
        }
    }

    /// Ready once the client has closed, or has had its time.
    pub(super) fn poll_over(&mut self, stream: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_pending() {
            let mut room = ReadBuf::new(&mut self.unwanted);
            let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut room));
            if read.is_err() || room.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, duplex, repeat};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_the_client_closes_and_at_the_latest_in_time() {
        let (mut client, mut stream) = duplex(64);
        let sent = tokio::spawn(async move { client.write_all(&[b'a'; 100_000]).await });
        let begun = Instant::now();
        let mut linger = Linger::new();
        poll_fn(|cx| linger.poll_over(&mut stream, cx)).await;
        sent.await.unwrap().unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);

        let (_silent, mut stream) = duplex(64);
        let mut linger = Linger::new();
        poll_fn(|cx| linger.poll_over(&mut stream, cx)).await;
        assert!((LINGER_WITHIN..LINGER_WITHIN * 2).contains(&begun.elapsed()));

        // The time of this one is over before it is looked at.
        let mut linger = Linger::new();
        tokio::time::advance(LINGER_WITHIN * 2).await;
        poll_fn(|cx| linger.poll_over(&mut repeat(0), cx)).await;
    }
}
