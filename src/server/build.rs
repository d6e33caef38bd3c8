//! From a loaded configuration to a process that is ready to listen.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;

use super::Process;
use super::reload::Reloader;
use super::settings::{ListenerSettings, Settings};
use super::store::{self, Stores};
use super::tls::{self, Certificates};
use crate::base::client_ip::Networks;
use crate::base::clock::{Clock, SystemClock, WallClock};
use crate::base::key::KeySeed;
use crate::base::misfit::{Misfit, Step};
use crate::base::secret::{HashSecret, Keyring};
use crate::config::certificate::{CertificateFiles, TlsFault};
use crate::config::compile::Compiler;
use crate::config::document::Document;
use crate::config::fault::Faults;
use crate::config::load::{Loaded, ProcessFile};
use crate::config::raw::{self, LogTarget, SecretFile};
use crate::proxy::accept::request_id::RequestIds;
use crate::proxy::accept::stream::HeadBounds;
use crate::proxy::{Bounds, Gateway};
use crate::room::api::{self, QueueApi};
use crate::room::registry::Rooms;
use crate::telemetry::access_log::{self, AccessLog, Target, Writer};
use crate::telemetry::route_meter::RouteMeter;
use crate::throttle::{self, Throttles};
use crate::upstream::Upstreams;

/// The name under which requests are counted that no route took. No route can have it.
const UNROUTED: &str = "-";

/// Why a loaded configuration cannot run.
#[derive(Debug)]
pub enum BuildError {
    /// Rules whose parts cannot be built, or an access log that could not be written.
    Faulty(Faults),
    /// A certificate or an authority that could be used when it was checked, and cannot be any more.
    Tls(TlsFault),
    /// The key file cannot be used. The message never quotes it.
    Secret(String),
    /// The store cannot be what is described. The message never holds a password.
    Store(String),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faulty(faults) => faults.fmt(f),
            Self::Tls(fault) => fault.fmt(f),
            Self::Secret(message) | Self::Store(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for BuildError {}

/// Builds everything that a process is made of; nothing listens yet, and no log is written.
///
/// # Errors
/// Whatever only shows when parts are built: see [`BuildError`].
pub fn build(process_file: &Path, loaded: Loaded) -> Result<Process, BuildError> {
    let Loaded {
        process: file,
        rules,
        sources,
        warnings: _,
    } = loaded;
    let clock: Arc<dyn Clock> = SystemClock::start();
    let wall = WallClock::beside(Arc::clone(&clock));
    let upstreams = Arc::new(Upstreams::default());
    let keyring = Arc::new(keyring(&file)?);
    let Stores { limits, rooms } = store::stores(&file, &clock, &wall)?;
    let seed = store::key_seed(&file.process.store, hash_secret(&file)?.as_ref());
    let throttles = Throttles::new(throttling(&file.process, seed), limits, Arc::clone(&clock));
    let rooms = Rooms::new(rooms, Arc::clone(&clock), keyring);
    let prefix = &file.process.queue.prefix;
    let compiler = Arc::new(Compiler::new(
        Arc::clone(&throttles),
        Arc::clone(&rooms),
        Arc::clone(&upstreams),
        prefix,
    ));
    let prepared = compiler.prepare(rules).map_err(BuildError::Faulty)?;
    let plan = Arc::new(ArcSwap::from_pointee(compiler.commit(prepared)));
    let trusted = Arc::new(Networks::new(
        file.process.trusted_proxies.iter().map(|network| network.0),
    ));
    let (settings, certificates) = settings(&file.document, &file.process, &trusted)?;
    let (access_log, log_writer) = access_log(&file)?.unzip();
    let gateway = Gateway {
        plan: Arc::clone(&plan),
        queue_api: QueueApi::new(prefix, Arc::clone(&rooms), queue_bounds(&file.process.queue)),
        clock,
        wall,
        trusted,
        bounds: bounds(&file.process),
        access_log: access_log.clone(),
        ids: Arc::new(RequestIds::default()),
        unrouted: Arc::new(RouteMeter::new(UNROUTED)),
        stopping: Arc::default(),
    };
    let reloader = Reloader::new(
        (process_file.to_owned(), file, sources),
        compiler,
        plan,
        certificates,
        access_log,
    );
    Ok(Process {
        settings,
        gateway,
        throttles,
        rooms,
        upstreams,
        reloader,
        log_writer,
    })
}

fn throttling(process: &raw::Process, key_seed: Option<KeySeed>) -> throttle::Settings {
    let raw::Throttle {
        pace,
        hot_keys,
        cold_slots,
        partitions,
    } = process.throttle;
    throttle::Settings {
        pace: pace.0,
        hot_keys,
        cold_slots,
        partitions: u16::try_from(partitions).unwrap_or(u16::MAX),
        key_seed,
        store_timeout: store::timeout(process),
    }
}

/// Without a key file, tickets are worth nothing after a restart; nor is the queue of the embedded store.
fn keyring(file: &ProcessFile) -> Result<Keyring, BuildError> {
    Ok(written_keyring(file)?.unwrap_or_else(Keyring::random))
}

/// The keys of the file that `secrets.tickets` names; none where there is no such line.
///
/// # Errors
/// When the file cannot be read, or is no file of keys.
pub fn written_keyring(file: &ProcessFile) -> Result<Option<Keyring>, BuildError> {
    let written = file.process.secrets.tickets.as_ref();
    written
        .map(|secret| read_secret(file, secret, Keyring::parse))
        .transpose()
}

fn hash_secret(file: &ProcessFile) -> Result<Option<HashSecret>, BuildError> {
    let written = file.process.secrets.hashes.as_ref();
    written
        .map(|secret| read_secret(file, secret, HashSecret::parse))
        .transpose()
}

fn read_secret<T>(
    file: &ProcessFile,
    secret: &SecretFile,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, BuildError> {
    let path = file.document.resolve(&secret.file);
    let fault = |why: String| BuildError::Secret(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| fault(format!("it cannot be read: {error}")))?;
    parse(&text).map_err(fault)
}

fn access_log(file: &ProcessFile) -> Result<Option<(AccessLog, Writer)>, BuildError> {
    let target = match &file.process.access_log.to {
        LogTarget::Off => return Ok(None),
        LogTarget::Stdout => Target::Stdout,
        LogTarget::Stderr => Target::Stderr,
        LogTarget::File(path) => {
            let path = file.document.resolve(path);
            access_log::rehearse(&path).map_err(|error| {
                let misfit = Misfit::new(format!("`{}` cannot be written: {error}", path.display()));
                let here = ["access_log", "to", "file"].map(Step::from);
                BuildError::Faulty(file.document.fault(&here, &misfit).into())
            })?;
            Target::File(path)
        }
    };
    Ok(Some(AccessLog::new(&target, file.process.access_log.format)))
}

fn bounds(process: &raw::Process) -> Bounds {
    Bounds {
        max_body: process.max_body.0,
        header_bytes: process.limits.header_bytes.0 as usize,
        headers: process.limits.headers,
        request_line: process.limits.request_line.0 as usize,
        body_per_second: process.limits.body_per_second.0,
        request_body: process.timeouts.request_body.0,
        response_write: process.timeouts.response_write.0,
    }
}

fn queue_bounds(queue: &raw::QueueApi) -> api::Bounds {
    api::Bounds {
        streams: queue.events.streams,
        stream_life: queue.events.life.0,
        joins: queue.joins,
        polls: queue.polls,
    }
}

fn settings(
    document: &Document,
    process: &raw::Process,
    trusted: &Arc<Networks>,
) -> Result<(Settings, Vec<Arc<Certificates>>), BuildError> {
    let (mut listeners, mut all) = (Vec::new(), Vec::new());
    for listener in &process.listeners {
        let tls = match &listener.tls {
            None => None,
            Some(tls) => {
                let files = tls.certificates.0.iter().map(|pair| CertificateFiles {
                    cert: document.resolve(&pair.cert),
                    key: document.resolve(&pair.key),
                });
                let certificates = Certificates::load(files.collect()).map_err(BuildError::Tls)?;
                let authority = tls.client_ca.as_ref().map(|file| document.resolve(file));
                let settings =
                    tls::settings(&certificates, authority.as_deref(), listener.http2).map_err(BuildError::Tls)?;
                all.push(certificates);
                Some(Arc::new(settings))
            }
        };
        listeners.push(ListenerSettings {
            bind: listener.bind.0,
            proxies: listener.proxy_protocol.then(|| Arc::clone(trusted)),
            tls,
            http2: listener.http2,
        });
    }
    let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let settings = Settings {
        listeners,
        admin: process.admin.bind.0,
        workers: process.threads.map_or_else(cores, NonZeroUsize::get),
        connections: process.limits.connections,
        connections_per_client: process.limits.connections_per_client,
        trusted: Arc::clone(trusted),
        handshake_within: process.timeouts.tls_handshake.0,
        head: HeadBounds {
            idle: process.timeouts.idle.0,
            within: process.timeouts.request_header.0,
            bytes: process.limits.header_bytes.0 as usize,
        },
        grace: process.timeouts.grace.0,
        drain: process.timeouts.drain.0,
    };
    Ok((settings, all))
}
