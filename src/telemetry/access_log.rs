//! The access log: one line for each request.
//!
//! A request renders its line and appends it to a buffer; it never waits for the disk or the pipe behind it. One
//! thread swaps that buffer for an empty one and writes it in one go. When the writer is so far behind that the
//! buffer is full, lines are dropped and counted (`tidegate_access_log_dropped_total`).
//!
//! What a line holds is [`line`]'s business; it holds no secret.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

pub use self::line::Record;
use super::metrics::METRICS;
use crate::base::secret::random_bytes;

pub mod line;

/// Most lines that wait to be written: a second's worth at 65,000 requests per second.
const LINES_MAX: usize = 65_536;

/// Most bytes that wait to be written. The writer holds as much again while it writes.
const BYTES_MAX: usize = 16 << 20;

/// As soon as so many bytes wait, they are written.
const BATCH_BYTES: usize = 64 << 10;

/// Fewer bytes are written after this long, so that a quiet gateway's log is not late, nor a busy one's writer woken for
/// every line.
const GATHER_FOR: Duration = Duration::from_millis(50);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error, where the event log goes too.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// The combined format of Apache and nginx, times in UTC.
    Combined,
}

/// What requests hold: a cheap handle. The writer ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct AccessLog {
    handle: Arc<Handle>,
    format: Format,
}

/// Closes the queue when the last [`AccessLog`] goes.
#[derive(Debug)]
struct Handle(Arc<Queue>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.wake.notify_all();
    }
}

impl AccessLog {
    /// A log whose target is not touched until its [`Writer`] is spawned.
    pub fn new(to: &Target, format: Format) -> (Self, Writer) {
        let (sink, path): (Box<dyn Write + Send>, _) = match to {
            Target::Stdout => (Box::new(io::stdout()), None),
            Target::Stderr => (Box::new(io::stderr()), None),
            Target::File(path) => (Box::new(io::sink()), Some(path.clone())),
        };
        Self::with_sink(sink, path, format)
    }

    fn with_sink(sink: Box<dyn Write + Send>, path: Option<PathBuf>, format: Format) -> (Self, Writer) {
        let queue = Arc::new(Queue::default());
        let handle = Arc::new(Handle(Arc::clone(&queue)));
        let writer = Writer {
            queue,
            sink,
            path,
            is_failing: false,
            is_torn: false,
        };
        (Self { handle, format }, writer)
    }

    /// Logs a request. Costs the rendering and a short lock; never waits for the writer.
    pub fn log(&self, record: &Record<'_>) {
        let mut line = Vec::with_capacity(line::BYTES_USUAL);
        match self.format {
            Format::Json => line::render_json(&mut line, record),
            Format::Combined => line::render_combined(&mut line, record),
        }
        line.push(b'\n');
        if !self.handle.0.push(&line) {
            METRICS.access_log_dropped_total.inc();
        }
    }

    /// Waits until all that was logged before is written, at most for `patience`; tells whether it is.
    ///
    /// Blocks the thread; for shutdown, not for requests.
    pub fn flush(&self, patience: Duration) -> bool {
        let queue = &self.handle.0;
        let mut waiting = queue.lock();
        let target = waiting.pushed;
        waiting.is_urgent = true;
        queue.wake.notify_all();
        let waited = queue
            .written
            .wait_timeout_while(waiting, patience, |waiting| waiting.written < target);
        waited.unwrap_or_else(PoisonError::into_inner).0.written >= target
    }

    /// Has the file opened anew, so that it can be moved away first (log rotation). Does nothing for a stream.
    pub fn reopen(&self) {
        self.handle.0.lock().is_to_reopen = true;
        self.handle.0.wake.notify_all();
    }
}

/// Lines between requests and the writer. A plain mutex: it is held for one `memcpy` of a line or a swap of two
/// buffers, never for I/O.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Tells the writer that there is something to do.
    wake: Condvar,
    /// Tells those who flush that something has been written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines: usize,
    /// Lines taken into the buffer since the start.
    pushed: u64,
    /// Lines that the writer is done with since the start.
    written: u64,
    is_urgent: bool,
    is_to_reopen: bool,
    is_closed: bool,
}

/// What the writer found to do, besides the bytes.
struct Turn {
    pushed: u64,
    is_to_reopen: bool,
    is_last: bool,
}

impl Queue {
    /// Appends a line, unless the buffer is full or nobody will write it.
    fn push(&self, line: &[u8]) -> bool {
        let mut waiting = self.lock();
        let before = waiting.bytes.len();
        let after = before + line.len();
        if waiting.is_closed || waiting.lines >= LINES_MAX || after > BYTES_MAX {
            return false;
        }
        waiting.bytes.extend_from_slice(line);
        waiting.lines += 1;
        waiting.pushed += 1;
        drop(waiting);
        if before == 0 || (before < BATCH_BYTES && after >= BATCH_BYTES) {
            self.wake.notify_one();
        }
        true
    }

    /// Waits for something to do, and swaps what waits for `batch`, which is empty.
    fn take(&self, batch: &mut Vec<u8>) -> Turn {
        let is_called = |waiting: &Waiting| waiting.is_urgent || waiting.is_to_reopen || waiting.is_closed;
        let idle = self
            .wake
            .wait_while(self.lock(), |waiting| waiting.lines == 0 && !is_called(waiting));
        let idle = idle.unwrap_or_else(PoisonError::into_inner);
        let gathered = self.wake.wait_timeout_while(idle, GATHER_FOR, |waiting| {
            waiting.bytes.len() < BATCH_BYTES && !is_called(waiting)
        });
        let mut waiting = gathered.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::swap(&mut waiting.bytes, batch);
        waiting.lines = 0;
        waiting.is_urgent = false;
        Turn {
            pushed: waiting.pushed,
            is_to_reopen: std::mem::take(&mut waiting.is_to_reopen),
            is_last: waiting.is_closed,
        }
    }

    fn done(&self, turn: &Turn) {
        self.lock().written = turn.pushed;
        self.written.notify_all();
    }

    /// No line is lost or doubled by a panic elsewhere: every change under the lock is complete before it can panic.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other end: writes what requests have logged.
pub struct Writer {
    queue: Arc<Queue>,
    sink: Box<dyn Write + Send>,
    /// What is opened anew on rotation.
    path: Option<PathBuf>,
    is_failing: bool,
    /// The last write ended within a line.
    is_torn: bool,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for Writer {
    /// Lines that nobody will write are counted as dropped from now on.
    fn drop(&mut self) {
        self.queue.lock().is_closed = true;
    }
}

impl Writer {
    /// Opens the target and runs on a thread of its own, which ends by itself when the last [`AccessLog`] is gone.
    ///
    /// # Errors
    /// With the file's name, when it cannot be opened.
    pub fn spawn(mut self) -> io::Result<JoinHandle<()>> {
        if let Some(path) = &self.path {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            self.sink = Box::new(open(path).map_err(named)?);
        }
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(|| self.run())
    }

    /// Writes until the last [`AccessLog`] is gone and all is written.
    pub fn run(mut self) {
        let mut batch = Vec::with_capacity(2 * BATCH_BYTES);
        loop {
            let turn = self.queue.take(&mut batch);
            self.write(&batch);
            // A burst's buffer is not kept: this memory would never be given back.
            batch.clear();
            batch.shrink_to(4 * BATCH_BYTES);
            if turn.is_to_reopen {
                self.reopen();
            }
            self.queue.done(&turn);
            if turn.is_last {
                return;
            }
        }
    }

    /// Writes a batch. What cannot be written (disk full, reader gone) is dropped and counted, since keeping it would
    /// only delay the loss; the next batch is tried again.
    fn write(&mut self, batch: &[u8]) {
        if batch.is_empty() {
            return;
        }
        let (written, fault) = match self.end_torn_line() {
            Ok(()) => write_all(&mut *self.sink, batch),
            Err(fault) => (0, Some(fault)),
        };
        if written > 0 {
            self.is_torn = batch[written - 1] != b'\n';
        }
        let lost = batch[written..].iter().filter(|byte| **byte == b'\n').count();
        METRICS.access_log_dropped_total.inc_by(lost as u64);
        match fault {
            Some(fault) if !self.is_failing => {
                log::error!("the access log cannot be written, lines are dropped: {fault}")
            }
            None if self.is_failing => log::info!("the access log is written again"),
            _ => {}
        }
        self.is_failing = lost > 0;
    }

    /// After a write that ended within a line, the next line must not be glued to it.
    fn end_torn_line(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.sink.write_all(b"\n")?;
            self.is_torn = false;
        }
        Ok(())
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open(path) {
            Ok(file) => {
                self.sink = Box::new(file);
                self.is_torn = false;
            }
            Err(fault) => log::error!(
                "the access log {} cannot be opened anew, the old file is kept: {fault}",
                path.display()
            ),
        }
    }
}

/// Whether a log could be written to `path`. No line is written, and no file is left behind.
///
/// # Errors
/// Why not, without the file's name.
pub fn rehearse(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(there) if there.is_dir() => Err(io::Error::other("it is a directory")),
        Ok(there) if there.is_file() => OpenOptions::new().append(true).open(path).map(drop),
        // To open a pipe is to wait for its reader.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_and_remove_beside(path),
        Err(error) => Err(error),
    }
}

/// Permissions alone do not tell: a whole file system may be read-only, and root may write where nobody else may.
fn make_and_remove_beside(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        let message = format!("there is no directory `{}`", directory.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    }
    let other = directory.join(format!(".tidegate-{:016x}", u64::from_le_bytes(random_bytes())));
    drop(OpenOptions::new().write(true).create_new(true).open(&other)?);
    std::fs::remove_file(other)
}

/// Appends: what was there stays, and several processes may share a file.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// How much could be written, and why not all.
fn write_all(sink: &mut dyn Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match sink.write(&bytes[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return (written, Some(fault)),
        }
    }
    (written, sink.flush().err())
}

#[cfg(test)]
mod tests;
