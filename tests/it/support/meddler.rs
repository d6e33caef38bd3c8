//! Stands between a gateway and its store, and meddles with the answers.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// They arrive.
    Arrive,
    /// They are lost. Calls are not: the store does what it is told.
    AreLost,
    /// As many bytes of something else arrive.
    AreGarbage,
    /// They are kept back until something else becomes of them.
    AreLate,
    /// They arrive as far as their first bytes, and then the connection ends.
    AreCut,
}

/// A proxy of one server. A connection of which an answer was lost ends with the first that would arrive again, as no
/// network leaves out bytes in the middle of a connection.
pub(crate) struct Meddler {
    pub(crate) address: SocketAddr,
    answers: watch::Sender<Answers>,
    accepts: JoinHandle<()>,
}

impl Meddler {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = watch::Sender::new(Answers::Arrive);
        let mode = answers.subscribe();
        let accepts = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(server) = TcpStream::connect(server).await {
                    join(client, server, mode.clone());
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
        self.answers.send_replace(answers);
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

fn join(client: TcpStream, server: TcpStream, mode: watch::Receiver<Answers>) {
    let (mut asks, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    tokio::spawn(async move {
        drop(tokio::io::copy(&mut asks, &mut to_server).await);
    });
    tokio::spawn(pass_answers(from_server, to_client, mode));
}

async fn pass_answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Answers>) {
    let (mut buffer, mut lost) = (vec![0; 64 * 1024], false);
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        let Ok(mode) = mode.wait_for(|mode| *mode != Answers::AreLate).await.map(|mode| *mode) else {
            return;
        };
        let answer = &mut buffer[..size];
        if mode == Answers::AreLost {
            lost = true;
            continue;
        }
        if lost {
            return;
        }
        if mode == Answers::AreGarbage {
            answer.iter_mut().for_each(|byte| *byte = fastrand::u8(..));
        }
        let cut = mode == Answers::AreCut;
        let sent = if cut { size.min(7) } else { size };
        if to.write_all(&answer[..sent]).await.is_err() || cut {
            return;
        }
    }
}
