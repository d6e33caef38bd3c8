//! Follows the frames of HTTP/2 as far as to know whether a head is under way. Nothing else can come on its connection
//! meanwhile (RFC 9113, section 4.3), and Pingora waits for its end for as long as it waits for a request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// Bytes that a frame begins with (RFC 9113, section 4.1).
const FRAME_HEAD_BYTES: usize = 9;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// A frame with this flag is the last of its head.
const END_HEADERS: u8 = 4;

/// What is under way on a connection.
#[derive(Debug)]
pub(super) struct Heads {
    /// Of a frame's first bytes, those that have come.
    begun: [u8; FRAME_HEAD_BYTES],
    begun_bytes: usize,
    /// What is still to come of a frame, or of what the connection begins with.
    left: usize,
    /// A head is under way.
    is_open: bool,
    /// With the frame that is under way it ends.
    ends: bool,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Heads {
    /// A connection whose first frame comes behind so many bytes.
    pub(super) fn behind(bytes: usize) -> Self {
        Self {
            begun: [0; FRAME_HEAD_BYTES],
            begun_bytes: 0,
            left: bytes,
            is_open: false,
            ends: false,
            deadline: None,
        }
    }

    /// These bytes have come.
    pub(super) fn note(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = if self.left > 0 {
                let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= payload.len();
                rest
            } else {
                self.begin(bytes)
            };
            if self.left == 0 && self.ends {
                (self.is_open, self.ends, self.deadline) = (false, false, None);
            }
        }
    }

    /// The first bytes of a frame; gives what comes behind them.
    fn begin<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (some, rest) = bytes.split_at((FRAME_HEAD_BYTES - self.begun_bytes).min(bytes.len()));
        self.begun[self.begun_bytes..][..some.len()].copy_from_slice(some);
        self.begun_bytes += some.len();
        if self.begun_bytes == FRAME_HEAD_BYTES {
            self.begun_bytes = 0;
            let [a, b, c, kind, flags, ..] = self.begun;
            self.left = u32::from_be_bytes([0, a, b, c]) as usize;
            if matches!(kind, HEADERS | CONTINUATION) {
                self.is_open = true;
                self.ends = flags & END_HEADERS != 0;
            }
        }
        rest
    }

    /// Ready once a head has been under way for too long.
    pub(super) fn poll_over(&mut self, within: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_open {
            return Poll::Pending;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(within)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{Instant, timeout};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u8::try_from(payload).unwrap();
        // Bytes that would be a frame of their own if they were read as one.
        [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], &vec![HEADERS; payload]].concat()
    }

    /// Whether a head is under way behind these bytes, in whatever pieces they come.
    fn is_open(bytes: &[u8]) -> bool {
        let mut seen = (1..=bytes.len()).map(|size| {
            let mut heads = Heads::behind(24);
            heads.note(&[b'P'; 24]);
            bytes.chunks(size).for_each(|piece| heads.note(piece));
            heads.is_open
        });
        let first = seen.next().unwrap();
        assert!(seen.all(|other| other == first), "{bytes:?}");
        first
    }

    #[test]
    fn a_head_is_under_way_from_its_first_frame_to_the_end_of_its_last() {
        let settings = frame(4, 0, 12);
        let (whole, half) = (frame(HEADERS, END_HEADERS, 40), frame(HEADERS, 1, 40));
        let (more, last) = (frame(CONTINUATION, 0, 0), frame(CONTINUATION, END_HEADERS, 3));
        let data = frame(0, END_HEADERS, 100);
        assert!(!is_open(&settings));
        assert!(!is_open(&[&settings[..], &whole, &data].concat()));
        assert!(is_open(&whole[..whole.len() - 1]));
        assert!(is_open(&[&settings[..], &half].concat()));
        assert!(is_open(&[&half[..], &more, &more].concat()));
        assert!(is_open(&[&half[..], &more, &last[..11]].concat()));
        assert!(!is_open(&[&half[..], &more, &last].concat()));
        assert!(!is_open(&[&half[..], &frame(CONTINUATION, END_HEADERS, 0)].concat()));
        assert!(!is_open(&data[..50]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_drips_in_between_gives_it_no_more_time_and_the_next_has_its_own() {
        let mut heads = Heads::behind(0);
        let begun = Instant::now();
        heads.note(&frame(HEADERS, 0, 5));
        for _ in 0..9 {
            let over = timeout(Duration::from_secs(1), poll_fn(|cx| heads.poll_over(WITHIN, cx)));
            assert!(over.await.is_err());
            heads.note(&frame(CONTINUATION, 0, 1));
        }
        poll_fn(|cx| heads.poll_over(WITHIN, cx)).await;
        assert!(begun.elapsed() < WITHIN + Duration::from_secs(1));
        heads.note(&frame(CONTINUATION, END_HEADERS, 1));
        heads.note(&frame(HEADERS, 0, 5));
        let over = timeout(WITHIN / 2, poll_fn(|cx| heads.poll_over(WITHIN, cx)));
        assert!(over.await.is_err());
    }
}
