//! Which servers there are and how they belong together: one, one of several that sentinels name, or a cluster.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionInfo, ErrorKind, RedisError, ServerErrorKind,
    TlsCertificates, TlsMode,
};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::address::{Address, AddressKind};
use super::{check, fault};
use crate::store::limits::StoreFault;

/// For connecting, ending in a server that has been greeted and looked at.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// The same where sentinels are asked first. They are all asked at once, but heard in order, and one that is silent is
/// waited for a second. Then the server that they name has to answer, twice: to tell its role, and to be used.
const CONNECT_BY_SENTINEL_WITHIN: Duration = Duration::from_secs(4);

/// For all servers of a cluster to say how they are set up. Nobody waits for that.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// Times that a call is sent to another server of a cluster, because the first had moved on.
const CLUSTER_RETRIES: u32 = 2;

/// Longest wait before that, in milliseconds: a call has a deadline anyway.
const CLUSTER_RETRY_WAIT: u64 = 20;

/// What is needed to reach the servers.
#[derive(Default)]
pub struct Access {
    /// At least one; whom they name depends on the topology.
    pub addresses: Vec<Address>,
    /// How the servers belong together.
    pub topology: Topology,
    /// The user to log in as, if not the one in the URL.
    pub user: Option<String>,
    /// The password, if not the one in the URL.
    pub password: Option<String>,
    /// Authorities in PEM, one of which must have signed the servers' certificates. None: those of this machine.
    pub authorities: Option<Vec<u8>>,
    /// The certificate that servers are shown which ask for one, and its key, in PEM.
    pub own: Option<(Vec<u8>, Vec<u8>)>,
}

/// How the servers of a store belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    #[default]
    Standalone,
    /// One server out of several. The addresses are those of sentinels, and so are user and password in them.
    Sentinel {
        /// The name under which sentinels know it.
        master: String,
    },
    /// Several servers, each with a share of the keys.
    Cluster,
}

/// Where the store is.
pub struct Servers {
    kind: Kind,
    /// For log lines: without passwords.
    name: String,
}

enum Kind {
    Standalone(Box<Client>),
    /// Locked by the one attempt to connect that runs.
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster(Box<ClusterClient>),
}

/// A connection, cheap to clone: all clones are one.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Servers {
    /// The servers of that description. `timeout` is how long a server of a cluster may take to answer.
    ///
    /// # Errors
    /// What cannot be meant, in words and without passwords.
    pub fn new(access: &Access, timeout: Duration) -> Result<Self, String> {
        let names: Vec<_> = access.addresses.iter().map(Address::to_string).collect();
        let kind = match &access.topology {
            Topology::Standalone => Kind::Standalone(Box::new(standalone(access)?)),
            Topology::Sentinel { master } => Kind::Sentinel(Box::new(Mutex::new(sentinel(access, master)?))),
            Topology::Cluster => Kind::Cluster(Box::new(cluster(access, timeout)?)),
        };
        Ok(Self {
            kind,
            name: names.join(", "),
        })
    }

    /// How long connecting may take. Nobody waits for it for longer than for a call.
    pub(super) const fn connect_within(&self) -> Duration {
        match self.kind {
            Kind::Sentinel(_) => CONNECT_BY_SENTINEL_WITHIN,
            Kind::Standalone(_) | Kind::Cluster(_) => CONNECT_WITHIN,
        }
    }

    /// Connects, and looks whether the server suits. What it is, or why not, is said without passwords.
    pub(super) async fn connect(&self) -> Result<(Connection, String), (StoreFault, String)> {
        match &self.kind {
            Kind::Standalone(client) => single(client).await,
            Kind::Sentinel(sentinels) => {
                let client = sentinels.lock().await.async_get_client().await.map_err(refused)?;
                single(&client).await
            }
            Kind::Cluster(client) => {
                let connection = client.get_async_connection().await.map_err(refused)?;
                tokio::spawn(look_at_all(connection.clone()));
                Ok((Connection::Cluster(connection), format!("a cluster at {self}")))
            }
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
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

fn standalone(access: &Access) -> Result<Client, String> {
    let address = access.addresses.first().ok_or("there is no server")?;
    let info = logged_in(address.info()?, access);
    let client = match certificates(access) {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    };
    client.map_err(unusable)
}

/// The sentinels' users are those in their URLs; the server's are given apart.
fn sentinel(access: &Access, master: &str) -> Result<SentinelClient, String> {
    let infos: Vec<_> = access.addresses.iter().map(Address::info).collect::<Result<_, _>>()?;
    let first = infos.first().ok_or("there is no sentinel")?.clone();
    let addresses = infos.iter().map(|info| info.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master).map_err(unusable)?;
    builder = builder
        .set_client_to_redis_tcp_settings(at_once())
        .set_client_to_redis_db(first.redis_settings().db())
        .set_client_to_redis_protocol(first.redis_settings().protocol());
    if access
        .addresses
        .iter()
        .any(|address| address.kind() == AddressKind::Tls)
    {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates(access) {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    if let Some(user) = first.redis_settings().username() {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = first.redis_settings().password() {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if let Some(user) = &access.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &access.password {
        builder = builder.set_client_to_redis_password(password);
    }
    builder.build().map_err(unusable)
}

fn cluster(access: &Access, timeout: Duration) -> Result<ClusterClient, String> {
    let infos: Vec<_> = access.addresses.iter().map(Address::info).collect::<Result<_, _>>()?;
    let infos = infos.into_iter().map(|info| logged_in(info, access));
    let mut builder = ClusterClientBuilder::new(infos)
        .tcp_settings(at_once())
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(1)
        .max_retry_wait(CLUSTER_RETRY_WAIT)
        .connection_timeout(timeout)
        .response_timeout(timeout);
    if let Some(certificates) = certificates(access) {
        builder = builder.certs(certificates);
    }
    builder.build().map_err(unusable)
}

fn logged_in(info: ConnectionInfo, access: &Access) -> ConnectionInfo {
    let mut settings = info.redis_settings().clone();
    if let Some(user) = &access.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &access.password {
        settings = settings.set_password(password);
    }
    info.set_redis_settings(settings).set_tcp_settings(at_once())
}

/// Small messages are not kept back for more to join them, which could take 40 ms.
fn at_once() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn certificates(access: &Access) -> Option<TlsCertificates> {
    let own = access.own.clone();
    let client_tls = own.map(|(client_cert, client_key)| ClientTlsConfig {
        client_cert,
        client_key,
    });
    (access.authorities.is_some() || client_tls.is_some()).then(|| TlsCertificates {
        client_tls,
        root_cert: access.authorities.clone(),
    })
}

/// What the crate says of settings is not repeated: it may quote them.
fn unusable(error: RedisError) -> String {
    match error.kind() {
        ErrorKind::Io => "the files of its TLS (`ca`, `cert`, `key`) are not in PEM, or do not fit together".to_owned(),
        _ => format!("the servers cannot be used as described: {}", error.category()),
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

/// Says what is not as it should be at the servers of a cluster that hold keys. It goes on as it is: a server that does
/// not answer is no reason to do without the others.
async fn look_at_all(mut connection: ClusterConnection) {
    let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
    let asked = timeout(LOOK_WITHIN, connection.route_command(redis::cmd("INFO"), all)).await;
    let answers = asked.ok().and_then(Result::ok);
    let answers = answers.and_then(|answers| redis::from_redis_value::<BTreeMap<String, String>>(answers).ok());
    let Some(answers) = answers else {
        log::warn!("not all servers of the cluster say how they are set up");
        return;
    };
    for (server, info) in answers {
        let warnings = check::check(&info).map(|seen| seen.warnings).unwrap_or_default();
        for warning in warnings {
            log::warn!("{server}: {warning}");
        }
    }
}

/// Why a server did not let us in. What a server says is not repeated, only its error's code, and the command that it
/// keeps from us.
fn refused(error: RedisError) -> (StoreFault, String) {
    let why = match (error.code(), denied(&error)) {
        (Some(code), Some(command)) => format!("it answers {code}: the gateway's user may not run `{command}`"),
        (Some(code), None) => format!("it answers {code}"),
        (None, _) if error.is_io_error() => error.to_string(),
        (None, _) => error.category().to_owned(),
    };
    (fault::kind(&error), why)
}

/// The command in a refusal such as `User gateway has no permissions to run the 'info' command`.
fn denied(error: &RedisError) -> Option<&str> {
    let is_denial = error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm);
    let named = error.detail().filter(|_| is_denial)?.split('\'').nth(1)?;
    let is_command = |byte: u8| byte.is_ascii_lowercase() || byte == b'|';
    named.bytes().all(is_command).then_some(named)
}
