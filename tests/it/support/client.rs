//! Clients: a well-bred one, and a bare socket for everything that a well-bred one would not send.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// A client that follows nothing, keeps no cookies and uses no proxy.
pub(crate) fn plain() -> reqwest::Client {
    builder().build().unwrap()
}

/// The same, with a jar for cookies.
pub(crate) fn browser() -> reqwest::Client {
    builder().cookie_store(true).build().unwrap()
}

/// Installs what TLS clients compute with. Whoever comes second finds it installed, which is just as well.
pub(crate) fn provide() {
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// A client to be built.
pub(crate) fn builder() -> reqwest::ClientBuilder {
    provide();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
}

/// The text of a header of an answer; empty where there is none.
pub(crate) fn header<'a>(answer: &'a reqwest::Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// An answer as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// All up to the empty line.
    pub(crate) head: String,
    /// The body, without its chunks.
    pub(crate) body: String,
}

impl Answer {
    /// The first value of a header.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut named = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.trim())
    }
}

/// A connection on which anything can be sent.
pub(crate) struct Raw<S = TcpStream> {
    stream: S,
    pending: Vec<u8>,
}

impl Raw {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// A client on a stream that stands.
    pub(crate) fn over(stream: S) -> Self {
        Self {
            stream,
            pending: Vec::new(),
        }
    }

    /// Sends these bytes; `false` if the other side will not have them.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        soon("sending", self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Asks with GET for a path on the host `a`.
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        assert!(self.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await);
        self.answer().await
    }

    /// Reads an answer with its body.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer(true)
            .await
            .expect("an answer before the end of the connection")
    }

    /// Reads an answer that has no body whatever its headers say, as one to HEAD.
    pub(crate) async fn bodiless_answer(&mut self) -> Answer {
        self.try_answer(false)
            .await
            .expect("an answer before the end of the connection")
    }

    /// Reads an answer; none when the connection ends before its head does.
    pub(crate) async fn try_answer(&mut self, with_body: bool) -> Option<Answer> {
        let head = self.head().await?;
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: String::new(),
        };
        let bodiless = !with_body || status < 200 || status == 204 || status == 304;
        if bodiless {
            return Some(answer);
        }
        if answer.value("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                answer.body.push_str(&String::from_utf8_lossy(&chunk));
            }
        } else if let Some(length) = answer.value("content-length") {
            let length = length.parse().unwrap();
            answer.body = String::from_utf8_lossy(&self.take(length).await).into_owned();
        } else {
            answer.body = String::from_utf8_lossy(&self.rest().await).into_owned();
        }
        Some(answer)
    }

    /// Reads the head of an answer; none when the connection ends before.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let end = loop {
            if let Some(end) = self.pending.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head: Vec<u8> = self.pending.drain(..end).collect();
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    /// Reads a chunk of a body; none at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = loop {
            if let Some(end) = self.pending.windows(2).position(|window| window == b"\r\n") {
                break self.pending.drain(..end + 2).collect::<Vec<u8>>();
            }
            assert!(self.fill().await, "the connection ended within a chunked body");
        };
        let size = String::from_utf8_lossy(&line);
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let chunk = self.take(size).await;
        self.take(2).await;
        (size > 0).then_some(chunk)
    }

    /// Reads so many bytes.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.pending.len() < count {
            assert!(self.fill().await, "the connection ended within a body");
        }
        self.pending.drain(..count).collect()
    }

    /// Reads until the other side closes, however it does.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.pending)
    }

    /// Waits until the other side has closed without saying anything more.
    pub(crate) async fn is_closed(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "there was more: {}", String::from_utf8_lossy(&rest));
    }

    async fn fill(&mut self) -> bool {
        let read = soon("something to read", self.stream.read_buf(&mut self.pending)).await;
        read.is_ok_and(|count| count > 0)
    }
}
