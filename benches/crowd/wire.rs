//! A connection of the crowd's, and as much of HTTP/1.1 as a gateway's own answers need: a length, no chunks.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Fault;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Wire {
    address: SocketAddr,
    stream: TcpStream,
    /// The gateway said that it closes the connection.
    closed: bool,
    buffer: Vec<u8>,
}

pub(super) struct Answer<'w> {
    pub(super) status: u16,
    head: &'w str,
    body: &'w str,
}

impl Wire {
    pub(super) async fn to(address: SocketAddr) -> Result<Self, Fault> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self {
            address,
            stream,
            closed: false,
            buffer: Vec::with_capacity(2_048),
        })
    }

    pub(super) async fn ask(&mut self, request: &str) -> Result<Answer<'_>, Fault> {
        if self.closed {
            *self = Self::to(self.address).await?;
        }
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let (head, size) = loop {
            if timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await?? == 0 {
                return Err("the connection was closed".into());
            }
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffer[..at])?;
                let size = header(head, "content-length").map_or(Ok(0), str::parse::<usize>)?;
                break (at, size);
            }
        };
        while self.buffer.len() < head + 4 + size {
            if timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await?? == 0 {
                return Err("the connection was closed within a body".into());
            }
        }
        let body = std::str::from_utf8(&self.buffer[head + 4..head + 4 + size])?;
        let head = std::str::from_utf8(&self.buffer[..head])?;
        let status = head.get(9..12).ok_or("no status")?.parse()?;
        self.closed = header(head, "connection") == Some("close");
        Ok(Answer { status, head, body })
    }
}

fn headers<'h>(head: &'h str, name: &str) -> impl Iterator<Item = &'h str> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines
        .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    headers(head, name).next()
}

impl Answer<'_> {
    /// The cookie whose name has this in it, as `name=value`.
    pub(super) fn cookie(&self, part: &str) -> Option<Box<str>> {
        let pairs = headers(self.head, "set-cookie").filter_map(|line| line.split(';').next());
        let mut named = pairs.filter(|pair| pair.split_once('=').is_some_and(|(name, _)| name.contains(part)));
        named.next().map(Box::from)
    }

    /// A whole number in the body.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        let (_, rest) = self.body.split_once(&format!("\"{key}\":"))?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    }

    pub(super) fn state(&self) -> &str {
        self.text("state")
    }

    /// The moment as of which a standing is exact, in microseconds; 0 when it says none.
    pub(super) fn as_of(&self) -> u64 {
        let at = self.text("as_of").parse::<jiff::Timestamp>();
        at.map_or(0, |at| u64::try_from(at.as_microsecond()).unwrap_or(0))
    }

    fn text(&self, key: &str) -> &str {
        let rest = self
            .body
            .split_once(&format!("\"{key}\":\""))
            .map_or("", |(_, rest)| rest);
        rest.split('"').next().unwrap_or("")
    }
}
