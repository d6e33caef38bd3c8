//! Gathers the pieces of an answer, so that a head and its body are one call to the kernel: together in one packet
//! when the body is small, and side by side in one vectored write when it is not.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of an answer that are gathered before they are sent.
const WRITE_BUFFER_BYTES: usize = 2048;

/// A stream whose small writes wait for a flush or for a large one.
pub(super) struct Gathering<S> {
    stream: S,
    gathered: Vec<u8>,
    /// How much of `gathered` has been sent.
    sent: usize,
}

impl<S> Gathering<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            gathered: Vec::with_capacity(WRITE_BUFFER_BYTES),
            sent: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    /// Sends what is gathered and `more` behind it, until all that was gathered is gone; tells how much of `more`
    /// went with it.
    fn poll_send(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        while !self.gathered.is_empty() {
            let (stream, left) = (Pin::new(&mut self.stream), &self.gathered[self.sent..]);
            let count = ready!(if more.is_empty() {
                stream.poll_write(cx, left)
            } else {
                stream.poll_write_vectored(cx, &[IoSlice::new(left), IoSlice::new(more)])
            })?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let left = self.gathered.len() - self.sent;
            if count >= left {
                self.gathered.clear();
                self.sent = 0;
                return Poll::Ready(Ok(count - left));
            }
            self.sent += count;
        }
        Poll::Ready(Ok(0))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.gathered.len() + buf.len() > WRITE_BUFFER_BYTES {
            let taken = ready!(this.poll_send(cx, buf))?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
        }
        if buf.len() >= WRITE_BUFFER_BYTES {
            return Pin::new(&mut this.stream).poll_write(cx, buf);
        }
        this.gathered.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx, &[]))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx, &[]))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Takes everything and notes the size of each write.
    #[derive(Default)]
    struct Noting(Vec<usize>);

    impl AsyncWrite for Noting {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.get_mut().0.push(buf.len());
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes = bufs.iter().map(|buf| buf.len()).sum();
            self.get_mut().0.push(bytes);
            Poll::Ready(Ok(bytes))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_head_and_its_body_are_one_write() {
        for body in [100, WRITE_BUFFER_BYTES, 12_000] {
            let mut stream = Gathering::new(Noting::default());
            stream.write_all(&[1; 300]).await.unwrap();
            assert!(stream.stream.0.is_empty(), "the head waits for its body");
            stream.write_all(&vec![2; body]).await.unwrap();
            stream.flush().await.unwrap();
            assert_eq!(stream.stream.0, [300 + body]);
        }
    }

    #[tokio::test]
    async fn every_byte_arrives_in_order_however_little_the_other_end_takes() {
        for (seed, room) in [1, 7, 300, 2048, 5000].into_iter().enumerate() {
            let (near, mut far) = duplex(room);
            let mut random = fastrand::Rng::with_seed(seed as u64);
            let pieces: Vec<Vec<u8>> = (0..50)
                .map(|_| (0..random.usize(0..4000)).map(|_| random.u8(..)).collect())
                .collect();
            let sent = pieces.concat();
            let writing = async move {
                let mut stream = Gathering::new(near);
                for piece in &pieces {
                    stream.write_all(piece).await.unwrap();
                }
                stream.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let (_, read) = tokio::join!(writing, far.read_to_end(&mut received));
            read.unwrap();
            assert!(received == sent, "room {room}, seed {seed}");
        }
    }
}
