//! Which servers there are and how they belong together: one, one of several that sentinels name, or a cluster.

use std::fmt;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError};

use super::{check, fault};
use crate::store::limits::StoreFault;

/// Where the store is.
pub struct Servers {
    kind: Kind,
    /// For log lines: without passwords.
    name: String,
}

enum Kind {
    Standalone(Client),
}

/// A connection, cheap to clone: all clones are one.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
}

impl Servers {
    /// One server.
    pub fn standalone(client: Client) -> Self {
        Self {
            name: client.get_connection_info().addr().to_string(),
            kind: Kind::Standalone(client),
        }
    }

    /// Connects, and looks whether the server suits. What it is, or why not, is said without passwords.
    pub(super) async fn connect(&self) -> Result<(Connection, String), (StoreFault, String)> {
        match &self.kind {
            Kind::Standalone(client) => single(client).await,
        }
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Connection {
    pub(super) async fn run(&mut self, command: &Cmd) -> Result<Vec<u8>, RedisError> {
        match self {
            Self::Single(connection) => command.query_async(connection).await,
        }
    }
}

async fn single(client: &Client) -> Result<(Connection, String), (StoreFault, String)> {
    // The link has deadlines of its own, for connecting as for calls.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    let connected = client.get_multiplexed_async_connection_with_config(&config).await;
    let mut connection = connected.map_err(refused)?;
    let info = redis::cmd("INFO").query_async::<String>(&mut connection).await;
    let seen = check::check(&info.map_err(refused)?)?;
    for warning in seen.warnings {
        log::warn!("{warning}");
    }
    let address = client.get_connection_info().addr();
    Ok((Connection::Single(connection), format!("{} at {address}", seen.name)))
}

/// Why a server did not let us in. What a server says is not repeated, only its error's code.
fn refused(error: RedisError) -> (StoreFault, String) {
    let why = match error.code() {
        Some(code) => format!("it answers {code}"),
        None if error.is_io_error() => error.to_string(),
        None => error.category().to_owned(),
    };
    (fault::kind(&error), why)
}
