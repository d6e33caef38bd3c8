//! A client of HTTP/2 that sends what it is told to, frame by frame, and understands nothing.

use std::net::SocketAddr;

use super::client::Raw;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection on which frames can be sent.
pub(crate) struct Frames(Raw);

impl Frames {
    /// Connects, and says that HTTP/2 is spoken.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut frames = Self(Raw::connect(address).await);
        assert!(frames.0.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await);
        assert!(frames.send(SETTINGS, 0, 0, b"").await);
        frames
    }

    /// Asks for `/` of the host `a`; `ends` where no body follows.
    pub(crate) async fn ask(&mut self, stream: u32, method: &str, ends: bool) {
        let flags = if ends { END_STREAM | END_HEADERS } else { END_HEADERS };
        assert!(self.send(HEADERS, flags, stream, &head(method)).await);
    }

    /// Sends the first frame of a head that has more.
    pub(crate) async fn begin(&mut self, stream: u32) {
        assert!(self.send(HEADERS, END_STREAM, stream, &head("GET")).await);
    }

    /// Waits until the other side closes.
    pub(crate) async fn is_over(&mut self) {
        self.0.rest().await;
    }

    /// Sends a piece of a body.
    pub(crate) async fn data(&mut self, stream: u32, piece: &[u8]) -> bool {
        self.send(DATA, 0, stream, piece).await
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.0.send([&head, payload].concat()).await
    }
}

/// The fields of a head as literals, which need no table (RFC 7541, section 6.2.2).
fn head(method: &str) -> Vec<u8> {
    let fields = [
        (":method", method),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}
