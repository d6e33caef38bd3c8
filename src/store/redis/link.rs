//! One connection, shared by all calls: how long a call may take, when the connection is given up, and when it is made
//! anew.
//!
//! No call of a turn waits for a connection; it fails at once and sees to it that one is being made, at most about one
//! attempt a second. A connection that says nothing for a second is given up too: a packet filter that swallows
//! everything looks like a slow server, and the kernel would go on hoping for minutes. Calls that were given up are
//! answered later or never; the crate matches answers by their order, so none is taken for another's. A call whose late
//! answer matters keeps its connection, even one that was given up, until it is answered or its patience ends.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};
use tokio::sync::watch;
use tokio::time::timeout;

use super::fault;
use super::script::Call;
use super::servers::{Connection, Servers};
use crate::base::clock::{Clock, Timestamp};
use crate::base::secret::random_bytes;
use crate::store::limits::StoreFault;

/// Between the beginnings of two attempts: from this long to half as long again, so that a fleet does not come as one.
const ATTEMPT_EVERY: Duration = Duration::from_millis(800);

/// A connection on which every call has timed out for so long is given up.
const SILENT_FOR: Duration = Duration::from_secs(1);

pub(super) struct Link {
    servers: Servers,
    /// For a call, a little less than callers wait: it is here that a silent connection must be noticed.
    within: Duration,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Counts attempts that ended.
    attempts: watch::Sender<u64>,
}

/// How long a call is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// After so long the connection counts as silent.
    pub(super) late_after: Duration,
    /// After so much longer nobody wants the answer any more.
    pub(super) give_up_after: Duration,
}

#[derive(Default)]
struct State {
    /// Counts connections, so that a fault of an old one does not end a new one.
    generation: u64,
    connection: Option<Connection>,
    connecting: bool,
    next_attempt: Timestamp,
    /// Since when every call has timed out.
    silent_since: Option<Timestamp>,
    /// Why there is no connection.
    trouble: Option<StoreFault>,
    /// Why attempts fail, as the log has it: it is said again only when it changes.
    said: Option<StoreFault>,
}

impl Link {
    pub(super) fn new(servers: Servers, timeout: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            servers,
            within: timeout * 9 / 10,
            clock,
            state: Mutex::default(),
            attempts: watch::Sender::new(0),
        }
    }

    /// Waits until there is a connection, or until the attempt to make one has failed, but no longer than for a call.
    pub(super) async fn connected(self: &Arc<Self>) {
        let mut attempts = self.attempts.subscribe();
        if self.connection().is_err() && self.locked().connecting {
            // Whether it ended or the time is up: the call says what comes of it.
            drop(timeout(self.within, attempts.changed()).await);
        }
    }

    /// Calls a script, which a server that does not have it gets as text, and reads the answer. A connection on which
    /// one makes no sense is given up: those after it may be answers to other calls.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        call: &Call<'_>,
        read: impl FnOnce(&[u8]) -> Result<T, StoreFault>,
    ) -> Result<T, StoreFault> {
        let impatient = Deadlines {
            late_after: self.within,
            give_up_after: Duration::ZERO,
        };
        self.ask_patiently(impatient, call, read).await
    }

    /// The same for whoever may still want an answer that is late. For the connection such a call has timed out.
    pub(super) async fn ask_patiently<T>(
        self: &Arc<Self>,
        deadlines: Deadlines,
        call: &Call<'_>,
        read: impl FnOnce(&[u8]) -> Result<T, StoreFault>,
    ) -> Result<T, StoreFault> {
        let (generation, mut connection) = self.connection()?;
        let mut answer = pin!(run(&mut connection, call));
        let mut answered = timeout(deadlines.late_after, answer.as_mut()).await;
        if answered.is_err() && !deadlines.give_up_after.is_zero() {
            self.note(generation, Some(StoreFault::Timeout));
            answered = timeout(deadlines.give_up_after, answer).await;
        }
        let outcome = match answered {
            Ok(Ok(answer)) => read(&answer),
            Ok(Err(error)) => Err(fault::kind(&error)),
            Err(_) => Err(StoreFault::Timeout),
        };
        self.note(generation, outcome.as_ref().err().copied());
        outcome
    }

    fn connection(self: &Arc<Self>) -> Result<(u64, Connection), StoreFault> {
        let mut state = self.locked();
        if let Some(connection) = &state.connection {
            return Ok((state.generation, connection.clone()));
        }
        let now = self.clock.now();
        if !state.connecting && now >= state.next_attempt {
            state.connecting = true;
            state.next_attempt = now + ATTEMPT_EVERY + ATTEMPT_EVERY.mul_f64(f64::from(random_bytes::<1>()[0]) / 512.0);
            tokio::spawn(Arc::clone(self).attempt());
        }
        Err(state.trouble.unwrap_or(StoreFault::Unavailable))
    }

    /// Gives up a connection that is broken, or silent for too long.
    fn note(&self, generation: u64, fault: Option<StoreFault>) {
        let mut state = self.locked();
        if state.generation != generation {
            return;
        }
        let ended = match fault {
            Some(StoreFault::Timeout) => {
                let now = self.clock.now();
                now.since(*state.silent_since.get_or_insert(now)) >= SILENT_FOR
            }
            other => {
                state.silent_since = None;
                other.is_some_and(fault::ends_connection)
            }
        };
        if ended {
            state.connection = None;
            state.silent_since = None;
            state.trouble = fault;
        }
    }

    async fn attempt(self: Arc<Self>) {
        let outcome = timeout(self.servers.connect_within(), self.servers.connect()).await;
        let outcome = outcome.unwrap_or_else(|_| Err((StoreFault::Timeout, "no answer".to_owned())));
        {
            let mut state = self.locked();
            state.connecting = false;
            match outcome {
                Ok((connection, greeting)) => {
                    log::info!("connected to the store: {greeting}");
                    state.generation += 1;
                    state.connection = Some(connection);
                    state.silent_since = None;
                    state.trouble = None;
                    state.said = None;
                }
                Err((fault, why)) => {
                    state.trouble = Some(fault);
                    if state.said.replace(fault) != Some(fault) {
                        log::warn!("no connection to the store at {}: {why}", self.servers);
                    }
                }
            }
        }
        self.attempts.send_modify(|ended| *ended += 1);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(connection: &mut Connection, call: &Call<'_>) -> Result<Vec<u8>, RedisError> {
    match connection.run(&call.by_sha()).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            let by_text: Cmd = call.by_text();
            connection.run(&by_text).await
        }
        outcome => outcome,
    }
}
