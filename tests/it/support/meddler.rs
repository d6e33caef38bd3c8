//! Stands between a gateway and its store, and meddles with the answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What becomes of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Answers {
    /// They arrive.
    Arrive,
    /// They are lost. Calls are not: the store does what it is told.
    AreLost,
    /// As many bytes of something else arrive.
    AreGarbage,
    /// They arrive as far as their first bytes, and then the connection ends.
    AreCut,
}

/// A proxy of one server. A connection of which an answer was lost ends with the first that would arrive again, as no
/// network leaves out bytes in the middle of a connection.
pub(crate) struct Meddler {
    pub(crate) address: SocketAddr,
    answers: Arc<AtomicU8>,
    accepts: JoinHandle<()>,
}

impl Meddler {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(AtomicU8::new(Answers::Arrive as u8));
        let mode = Arc::clone(&answers);
        let accepts = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(server).await {
                    join(client, server, Arc::clone(&mode));
                }
            }
        });
        Self {
            address,
            answers,
            accepts,
        }
    }

    /// From now on.
    pub(crate) fn let_answers(&self, answers: Answers) {
        self.answers.store(answers as u8, Ordering::SeqCst);
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

fn join(client: TcpStream, server: TcpStream, mode: Arc<AtomicU8>) {
    let (mut asks, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    tokio::spawn(async move {
        drop(tokio::io::copy(&mut asks, &mut to_server).await);
    });
    tokio::spawn(pass_answers(from_server, to_client, mode));
}

async fn pass_answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: Arc<AtomicU8>) {
    let (mut buffer, mut lost) = (vec![0; 64 * 1024], false);
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        let mode = mode.load(Ordering::SeqCst);
        let answer = &mut buffer[..size];
        if mode == Answers::AreLost as u8 {
            lost = true;
            continue;
        }
        if lost {
            return;
        }
        if mode == Answers::AreGarbage as u8 {
            answer.iter_mut().for_each(|byte| *byte = fastrand::u8(..));
        }
        let cut = mode == Answers::AreCut as u8;
        let sent = if cut { size.min(7) } else { size };
        if to.write_all(&answer[..sent]).await.is_err() || cut {
            return;
        }
    }
}
