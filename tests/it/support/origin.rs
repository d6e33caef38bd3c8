//! A server that does as it is told and keeps what it was sent, byte by byte.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{PATIENCE, eventually};

/// Longest head that is read, in bytes.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// A step of an answer.
pub(crate) enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes again and again, until nobody takes them.
    SendForEver(Vec<u8>),
    /// Waits until the gate is open.
    Wait(Gate),
    /// Closes the connection.
    Close,
    /// Closes the connection with a reset.
    Reset,
    /// Sends back whatever comes in, to the end of the connection.
    Echo,
}

/// What a server answers to a request.
pub(crate) type Script = Vec<Step>;

/// An answer with a length, in full.
pub(crate) fn answer(status: &str, headers: &[&str], body: &str) -> Script {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    send(&format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    ))
}

/// Sends this text.
pub(crate) fn send(text: &str) -> Script {
    vec![Step::Send(text.as_bytes().to_vec())]
}

/// Closed, until it is opened for good.
#[derive(Clone)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// All up to the empty line.
    pub(crate) head: String,
    /// As much of the body as was declared.
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The method.
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    /// The path and the query.
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// All values of a header, in the order sent.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let named = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim()).collect()
    }

    /// The only value of a header; nothing if there is none.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() < 2, "{name} stands there more than once: {values:?}");
        values.first().copied()
    }
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Received>>,
    connections: AtomicUsize,
}

/// A server that runs as long as this lives.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Answers every request by `script`.
    pub(crate) async fn scripted(script: impl Fn(&Received) -> Script + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    /// The same, on a socket that listens already.
    pub(crate) fn on(socket: TcpListener, script: impl Fn(&Received) -> Script + Send + Sync + 'static) -> Self {
        let address = socket.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(accept(socket, Arc::clone(&seen), Arc::new(script)));
        Self { address, seen, task }
    }

    /// Answers every request with 200 and this text.
    pub(crate) async fn saying(text: &'static str) -> Self {
        Self::scripted(move |_| answer("200 OK", &["content-type: text/plain"], text)).await
    }

    /// What has arrived so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// The last request that arrived.
    pub(crate) fn last(&self) -> Received {
        self.requests().pop().expect("the origin has seen a request")
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Waits until so many requests have arrived.
    pub(crate) async fn has_seen(&self, count: usize) {
        let what = format!("{count} requests at the origin");
        eventually(&what, PATIENCE, async || (self.requests().len() >= count).then_some(())).await;
    }

    /// Rules with this server as the only one, behind a route that takes everything.
    pub(crate) fn rules(&self) -> String {
        self.rules_with("", "[]")
    }

    /// The same with more keys of the upstream, and a chain.
    pub(crate) fn rules_with(&self, upstream: &str, chain: &str) -> String {
        let address = self.address;
        format!(
            "upstreams:\n  app:\n    servers: [{address}]\n    {upstream}\n\
             routes:\n  - name: all\n    chain: {chain}\n    upstream: app\n"
        )
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<F>(socket: TcpListener, seen: Arc<Seen>, script: Arc<F>)
where
    F: Fn(&Received) -> Script + Send + Sync + 'static,
{
    while let Ok((stream, _)) = socket.accept().await {
        seen.connections.fetch_add(1, Ordering::Relaxed);
        let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
        // A client that goes away ends the connection and nothing else.
        tokio::spawn(async move { drop(serve(stream, &seen, script.as_ref()).await) });
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: &Seen,
    script: &(dyn Fn(&Received) -> Script + Send + Sync),
) -> io::Result<()> {
    let mut pending = Vec::new();
    while let Some(request) = read(&mut stream, &mut pending).await? {
        let steps = script(&request);
        seen.requests.lock().unwrap().push(request);
        for step in steps {
            match step {
                Step::Send(bytes) => stream.write_all(&bytes).await?,
                Step::SendForEver(bytes) => loop {
                    stream.write_all(&bytes).await?;
                },
                Step::Wait(gate) => gate.opened().await,
                Step::Close => return Ok(()),
                Step::Reset => return stream.set_zero_linger(),
                Step::Echo => return echo(&mut stream).await,
            }
        }
    }
    Ok(())
}

async fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await.map(drop)
}

/// Reads one request, with its body; none at the end of the connection.
async fn read(stream: &mut TcpStream, pending: &mut Vec<u8>) -> io::Result<Option<Received>> {
    let end = loop {
        if let Some(end) = find(pending, b"\r\n\r\n") {
            break end + 4;
        }
        if pending.len() > HEAD_BYTES_MAX || stream.read_buf(pending).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&pending[..end]).into_owned();
    pending.drain(..end);
    let mut request = Received { head, body: Vec::new() };
    let chunked = request
        .value("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    if chunked {
        while let Some(chunk) = read_chunk(stream, pending).await? {
            request.body.extend(chunk);
        }
    } else {
        let length = request
            .value("content-length")
            .map_or(0, |value| value.parse().unwrap());
        if length > pending.len() && request.value("expect").is_some() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        request.body = take(stream, pending, length).await?;
    }
    Ok(Some(request))
}

async fn read_chunk(stream: &mut TcpStream, pending: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let line = loop {
        if let Some(end) = find(pending, b"\r\n") {
            break pending.drain(..end + 2).collect::<Vec<u8>>();
        }
        fill(stream, pending).await?;
    };
    let size = String::from_utf8_lossy(&line);
    let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
    let chunk = take(stream, pending, size).await?;
    take(stream, pending, 2).await?;
    Ok((size > 0).then_some(chunk))
}

async fn take(stream: &mut TcpStream, pending: &mut Vec<u8>, count: usize) -> io::Result<Vec<u8>> {
    while pending.len() < count {
        fill(stream, pending).await?;
    }
    Ok(pending.drain(..count).collect())
}

async fn fill(stream: &mut TcpStream, pending: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(pending).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
