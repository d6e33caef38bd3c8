//! The PROXY protocol header: who the client is, in the words of the proxy that connects in its name (HAProxy's
//! `proxy-protocol.txt`, versions 1 and 2).
//!
//! Only the addresses are taken. Extensions (TLVs) are skipped unread, and whether the sender may be believed is the
//! listener's business. Exactly the header's bytes are taken off the connection: what follows is TLS or HTTP.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Whom a connection is from, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A client at this address, for whom the proxy connects.
    At(SocketAddr),
    /// The proxy itself (it looks whether we live), or a client that it cannot name.
    Peer,
}

/// Why a connection's first bytes are no header that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// They begin like neither version.
    NoHeader,
    /// A line of version 1 that is not as the protocol has it.
    Line,
    /// A version, command or family of version 2 that does not exist, or that is not of TCP.
    Kind,
    /// A header of version 2 with fewer bytes than its addresses take, or more than [`V2_BODY_BYTES_MAX`].
    Length,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "no PROXY header at the start of the connection",
            Self::Line => "a PROXY header of version 1 that is not as the protocol has it",
            Self::Kind => "a PROXY header of version 2 that is not of a TCP connection",
            Self::Length => "a PROXY header of version 2 whose length is wrong",
        })
    }
}

impl std::error::Error for Malformed {}

/// Bytes of the longest line of version 1, its end included.
const V1_BYTES_MAX: usize = 107;

/// Bytes of version 2 before its addresses.
const V2_HEAD_BYTES: usize = 16;

/// Most bytes of addresses and extensions of version 2. Those that proxies send take less than half of it.
const V2_BODY_BYTES_MAX: usize = 536;

/// Takes the header off a connection, and not one byte more. To be called under a deadline.
///
/// # Errors
/// As the connection gives them; `UnexpectedEof` when it ends within the header; `InvalidData`, with a [`Malformed`],
/// when it begins with something else.
pub async fn read(stream: &mut TcpStream) -> io::Result<Client> {
    let mut seen = [0; V2_HEAD_BYTES + V2_BODY_BYTES_MAX];
    let mut taken = 0;
    loop {
        let there = taken + stream.peek(&mut seen[taken..]).await?;
        if there == taken {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let parsed =
            parse(&seen[..there]).map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?;
        // As long as the header has no end, all that is there belongs to it.
        let end = parsed.map_or(there, |(end, _)| end);
        stream.read_exact(&mut seen[taken..end]).await?;
        if let Some((_, client)) = parsed {
            return Ok(client);
        }
        taken = end;
    }
}

/// Reads the header at the start of `bytes`: where it ends, and whom it names. None: all of `bytes` belongs to a
/// header that goes on.
///
/// # Errors
/// When no header begins like this, whatever may follow.
pub fn parse(bytes: &[u8]) -> Result<Option<(usize, Client)>, Malformed> {
    if begins(bytes, V2_SIGNATURE) {
        return parse_v2(bytes);
    }
    if begins(bytes, V1_START) {
        return parse_v1(bytes);
    }
    Err(Malformed::NoHeader)
}

const V1_START: &[u8] = b"PROXY ";

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Whether `bytes` begin with `mark`, as far as they go.
fn begins(bytes: &[u8], mark: &[u8]) -> bool {
    let both = bytes.len().min(mark.len());
    bytes[..both] == mark[..both]
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(usize, Client)>, Malformed> {
    let line = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        let goes_on = line.len() < V1_BYTES_MAX;
        return if goes_on { Ok(None) } else { Err(Malformed::Line) };
    };
    let client = line[..end].strip_suffix(b"\r").and_then(client_v1);
    client.map(|client| Some((end + 1, client))).ok_or(Malformed::Line)
}

/// The client of a line without its end; none when the line is wrong.
fn client_v1(line: &[u8]) -> Option<Client> {
    let line = line.strip_prefix(V1_START)?;
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Some(Client::Peer);
    }
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, _destination) = (address()?, address()?);
    let (port, _destination) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| Client::At((source, port).into()))
}

/// Digits alone: the standard library would take a sign too.
fn port(word: &str) -> Option<u16> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|_| digits)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(usize, Client)>, Malformed> {
    let Some((head, rest)) = bytes.split_first_chunk::<V2_HEAD_BYTES>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (least, client): (_, ClientOf) = match (command, family) {
        // Whatever else such a header holds is to be skipped.
        (LOCAL, _) | (PROXY, UNSPECIFIED) => (0, |_| Some(Client::Peer)),
        (PROXY, TCP4) => (2 * (4 + 2), client_v2::<4>),
        (PROXY, TCP6) => (2 * (16 + 2), client_v2::<16>),
        _ => return Err(Malformed::Kind),
    };
    if !(least..=V2_BODY_BYTES_MAX).contains(&length) {
        return Err(Malformed::Length);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let client = client(body).ok_or(Malformed::Length)?;
    Ok(Some((V2_HEAD_BYTES + length, client)))
}

/// How a body of one family names the client; none when it is too short.
type ClientOf = fn(&[u8]) -> Option<Client>;

/// The version in the upper half, the command in the lower.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// The family in the upper half, the transport in the lower.
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Two addresses of so many bytes, the source first, and their ports in the same order.
fn client_v2<const BYTES: usize>(body: &[u8]) -> Option<Client>
where
    IpAddr: From<[u8; BYTES]>,
{
    let (source, rest) = body.split_first_chunk::<BYTES>()?;
    let (_destination, ports) = rest.split_first_chunk::<BYTES>()?;
    let port = u16::from_be_bytes(*ports.first_chunk()?);
    Some(Client::At((IpAddr::from(*source), port).into()))
}

#[cfg(test)]
mod tests;
