//! Floor 8: the process: listeners, workers, the operator's listener, reload, and the way out.
//!
//! Every worker is a thread with a run time of its own and a socket of its own; nothing is stolen between them
//! (stealing costs Pingora about a fifth). What happens beside requests (ticks of rooms, calls of the store, name
//! look-ups, reloads, the operator's listener) runs on the main thread.

pub mod admin;
pub mod build;
pub mod drain;
pub mod listen;
pub mod places;
pub mod proxy_header;
pub mod reload;
pub mod settings;
pub mod store;
pub mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use pingora::apps::{HttpServerApp, HttpServerOptions, ServerApp};
use pingora::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use self::admin::{Admin, Readiness};
use self::drain::{Unfinished, stopped, tracker};
use self::listen::{Listener, PAUSE_AFTER_FAILED_ACCEPT, Worker};
use self::places::Places;
use self::reload::Reloader;
use self::settings::Settings;
use crate::base::clock::WallClock;
use crate::base::exchange::Scheme;
use crate::proxy::Gateway;
use crate::proxy::accept::Connection;
use crate::proxy::accept::stream::{Guarded, HeadBounds};
use crate::room::registry::Rooms;
use crate::telemetry::access_log::{AccessLog, Writer};
use crate::telemetry::metrics::METRICS;
use crate::telemetry::process;
use crate::throttle::Throttles;
use crate::upstream::Upstreams;
use crate::upstream::resolve::RESOLVE_EVERY;

/// Unused connections to servers that a worker keeps, over all upstreams.
const KEPT_CONNECTIONS: usize = 1024;

/// How long the access log may take to write what it holds when the process ends.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// How often the machine's clock is looked at.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// Most connections to the operator's listener at once.
const ADMIN_CONNECTIONS: usize = 64;

/// A process that is built and does not listen yet.
#[derive(Debug)]
pub struct Process {
    /// Listeners, bounds and deadlines.
    pub settings: Settings,
    /// What every request shares.
    pub gateway: Gateway,
    /// The limits.
    pub throttles: Arc<Throttles>,
    /// The rooms.
    pub rooms: Arc<Rooms>,
    /// The upstreams.
    pub upstreams: Arc<Upstreams>,
    /// Brings new rules.
    pub reloader: Reloader,
    /// Writes the access log, if there is one.
    pub log_writer: Option<Writer>,
}

/// Why a process could not start.
#[derive(Debug)]
pub enum StartError {
    /// An address cannot be listened on.
    Bind(SocketAddr, std::io::Error),
    /// A thread, a run time or a signal cannot be had.
    System(&'static str, std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::System(what, error) => write!(f, "cannot start {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Where a process listens, once it does.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The listeners, in the order written, and whether they speak TLS.
    pub listeners: Vec<(SocketAddr, bool)>,
    /// The operator's.
    pub admin: SocketAddr,
}

impl Process {
    /// Runs until SIGTERM, SIGINT or SIGQUIT, and the grace after it, then finishes what was begun. `ready` is called once everything listens.
    ///
    /// # Errors
    /// When it cannot start; once it runs, it runs.
    pub fn run(self, ready: impl FnOnce(&Bound)) -> Result<(), StartError> {
        let Self {
            settings,
            gateway,
            throttles,
            rooms,
            upstreams,
            reloader,
            log_writer,
        } = self;
        let (stop, stopping) = watch::channel(false);
        let runtime = runtime()?;
        let entered = runtime.enter();
        let sockets = settings
            .listeners
            .iter()
            .map(|listener| bind(listener.bind, settings.workers));
        let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
        let admin_socket = bind(settings.admin, 1)?.remove(0);
        let bound = bound(&settings, &sockets, &admin_socket);

        log_writer.map_or(Ok(()), write_log)?;
        // Before anyone is told that we run: a signal that nobody listens to ends the process on the spot.
        let mut asked = StopSignals::listen()?;
        let certificates = reloader.certificates.clone();
        let reloader = reloader
            .listen()
            .map_err(|error| StartError::System("listening for signals", error))?;
        let readiness = Arc::new(Readiness::default());
        let admin = Admin {
            throttles: Arc::clone(&throttles),
            rooms: Arc::clone(&rooms),
            clock: Arc::<WallClock>::clone(&gateway.wall),
            certificates,
            readiness: Arc::clone(&readiness),
        };
        runtime.spawn(serve_admin(admin_socket, admin, settings.head, stopping.clone()));
        // Who comes meanwhile waits to be accepted, rather than be told that no server is known.
        runtime.block_on(upstreams.resolve_new());
        let (access_log, wall) = (gateway.access_log.clone(), Arc::clone(&gateway.wall));
        let last_requests = Arc::clone(&gateway.stopping);
        let workers = start_workers(&settings, sockets, &gateway, &stopping)?;
        drop(gateway);

        runtime.spawn(drive_limits(throttles));
        runtime.spawn(drive_rooms(rooms, stopping.clone()));
        runtime.spawn(resolve(upstreams, stopping.clone()));
        runtime.spawn(follow(wall, stopping.clone()));
        runtime.spawn(reloader.reload(stopping));
        readiness.set(true);
        show_from_the_start(settings.connections);
        announce(&bound);
        ready(&bound);

        runtime.block_on(async {
            asked.any().await;
            readiness.set(false);
            if !settings.grace.is_zero() {
                log::info!("stopping in {:?}: until then only /readyz says so", settings.grace);
                // Who asks twice does not want to wait.
                let _hurried = timeout(settings.grace, asked.any()).await;
            }
            last_requests.store(true, Ordering::Relaxed);
            tell_of_the_end(&stop, settings.drain);
            finish(workers, access_log).await;
        });
        drop(entered);
        // A look-up of a name that hangs is not waited for.
        runtime.shutdown_background();
        Ok(())
    }
}

fn tell_of_the_end(stop: &watch::Sender<bool>, drain: Duration) {
    log::info!("stopping: no new connections, at most {drain:?} for those at work");
    // Every receiver may be gone already, and then there is nobody to tell.
    let _told = stop.send(true);
}

fn write_log(writer: Writer) -> Result<(), StartError> {
    let written = writer.spawn().map(drop);
    written.map_err(|error| StartError::System("the access log", error))
}

/// What is known before anything has happened, and counters that must be there, at 0, before they first count.
fn show_from_the_start(connections: usize) {
    METRICS.store_up.set(1);
    METRICS
        .connections_bound
        .set(i64::try_from(connections).unwrap_or(i64::MAX));
    for outcome in ["applied", "refused"] {
        let _shown = METRICS.config_reloads_total.with_label_values(&[outcome]);
    }
    for reason in ["connections", "connections_per_client", "upstream_full", "room_full"] {
        let _shown = METRICS.rejected_total.with_label_values(&[reason]);
    }
    for fault in ["timeout", "unavailable"] {
        let _shown = METRICS.store_faults_total.with_label_values(&[fault]);
    }
    process::introduce();
}

fn runtime() -> Result<Runtime, StartError> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::System("a run time", error))
}

fn bind(address: SocketAddr, workers: usize) -> Result<Vec<std::net::TcpListener>, StartError> {
    listen::bind(address, workers).map_err(|error| StartError::Bind(address, error))
}

fn local(socket: &std::net::TcpListener) -> SocketAddr {
    socket
        .local_addr()
        .unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

fn bound(settings: &Settings, sockets: &[Vec<std::net::TcpListener>], admin: &std::net::TcpListener) -> Bound {
    let listeners = sockets.iter().zip(&settings.listeners);
    Bound {
        listeners: listeners.map(|(s, l)| (local(&s[0]), l.tls.is_some())).collect(),
        admin: local(admin),
    }
}

fn announce(bound: &Bound) {
    for (address, tls) in &bound.listeners {
        log::info!("listening on {}://{address}", if *tls { "https" } else { "http" });
    }
    log::info!("operator's listener on http://{}", bound.admin);
}

fn proxy(gateway: Gateway, settings: &Settings) -> HttpProxy<Gateway> {
    let conf = ServerConf {
        threads: settings.workers,
        upstream_keepalive_pool_size: KEPT_CONNECTIONS,
        ..ServerConf::default()
    };
    let header_bytes = u32::try_from(gateway.bounds.header_bytes).unwrap_or(u32::MAX);
    let mut proxy = http_proxy(&Arc::new(conf), gateway);
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(settings.head.idle);
    proxy.server_options = Some(options);
    let mut h2 = pingora::protocols::http::v2::server::default_h2_options();
    h2.max_header_list_size(header_bytes);
    proxy.h2_options = Some(h2);
    proxy
}

/// One thread a worker, each with one socket of every listener and connections to servers of its own: one that moved
/// between threads would be read by one run time and waited for in another.
fn start_workers(
    settings: &Settings,
    sockets: Vec<Vec<std::net::TcpListener>>,
    gateway: &Gateway,
    stop: &watch::Receiver<bool>,
) -> Result<Vec<thread::JoinHandle<bool>>, StartError> {
    let places = Places::new(
        settings.connections,
        settings.connections_per_client,
        Arc::clone(&settings.trusted),
    );
    let places = Arc::new(places);
    let mut sockets: Vec<_> = sockets.into_iter().map(Vec::into_iter).collect();
    let start = |number: usize| {
        let (tracker, unfinished) = tracker();
        let worker = Worker {
            proxy: Arc::new(proxy(gateway.clone(), settings)),
            gateway: Arc::new(gateway.clone()),
            places: Arc::clone(&places),
            tracker,
            stop: stop.clone(),
        };
        let listeners = sockets.iter_mut().zip(&settings.listeners);
        let listeners: Vec<_> = listeners
            .filter_map(|(of, with)| Some((of.next()?, settings.listener(with))))
            .collect();
        let drain = settings.drain;
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || work(listeners, worker, unfinished, drain))
            .map_err(|error| StartError::System("a worker", error))
    };
    (0..settings.workers).map(start).collect()
}

/// The life of a worker; `true` when everything it had begun was finished in time.
fn work(
    listeners: Vec<(std::net::TcpListener, Listener)>,
    worker: Worker,
    unfinished: Unfinished,
    drain: Duration,
) -> bool {
    let Ok(runtime) = runtime().inspect_err(|error| log::error!("{error}")) else {
        return false;
    };
    runtime.block_on(async move {
        let mut stop = worker.stop.clone();
        for (socket, listener) in listeners {
            match TcpListener::from_std(socket) {
                Ok(socket) => drop(tokio::spawn(listen::accept(socket, listener, worker.clone()))),
                Err(error) => log::error!("a listener is lost: {error}"),
            }
        }
        let proxy = Arc::clone(&worker.proxy);
        drop(worker);
        stopped(&mut stop).await;
        proxy.http_cleanup().await;
        unfinished.finished(drain).await
    })
}

/// Serves the operator to the very end of the process: whoever asks meanwhile whether it is ready is to be told.
async fn serve_admin(socket: std::net::TcpListener, admin: Admin, head: HeadBounds, stop: watch::Receiver<bool>) {
    let Ok(socket) =
        TcpListener::from_std(socket).inspect_err(|error| log::error!("the operator's listener is lost: {error}"))
    else {
        return;
    };
    let admin = Arc::new(admin);
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, peer)) = socket.accept().await else {
            sleep(PAUSE_AFTER_FAILED_ACCEPT).await;
            continue;
        };
        let (admin, stop) = (Arc::clone(&admin), stop.clone());
        tokio::spawn(async move {
            let record = Arc::new(Connection::new(peer, Scheme::Http, None));
            let fd = stream.as_raw_fd();
            if let Ok(stream) = Guarded::new(stream, fd, record, false, head) {
                drop(admin.process_new(Box::new(stream), &stop).await);
            }
            drop(place);
        });
    }
}

/// To the very end of the process: requests that are held are decided while the workers finish.
async fn drive_limits(throttles: Arc<Throttles>) {
    let (_running, ended) = watch::channel(false);
    throttles.drive(ended).await;
}

async fn drive_rooms(rooms: Arc<Rooms>, mut stop: watch::Receiver<bool>) {
    rooms.drive(async move { stopped(&mut stop).await }).await;
}

/// Asks for the addresses of servers again and again. New ones have been asked for before their plan runs.
async fn resolve(upstreams: Arc<Upstreams>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = sleep(RESOLVE_EVERY) => upstreams.resolve().await,
            () = stopped(&mut stop) => return,
        }
    }
}

/// Follows the machine's clock where somebody sets it forward.
async fn follow(wall: Arc<WallClock>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = sleep(FOLLOW_EVERY) => {
                if let Some(jump) = wall.follow() {
                    log::warn!("the machine's clock is {jump:?} ahead of where it was; openings and links follow it");
                }
            }
            () = stopped(&mut stop) => return,
        }
    }
}

/// The signals that ask the process to stop, all in the same way: nginx stops gracefully on QUIT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl StopSignals {
    fn listen() -> Result<Self, StartError> {
        let hear = |kind| signal(kind).map_err(|error| StartError::System("listening for signals", error));
        Ok(Self {
            terminate: hear(SignalKind::terminate())?,
            interrupt: hear(SignalKind::interrupt())?,
            quit: hear(SignalKind::quit())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// Waits for the workers, each of which knows its own deadline, and for the last lines of the access log.
async fn finish(workers: Vec<thread::JoinHandle<bool>>, access_log: Option<AccessLog>) {
    let joined = tokio::task::spawn_blocking(|| workers.into_iter().all(|worker| worker.join().unwrap_or(false)));
    match joined.await {
        Ok(true) => log::info!("stopped: everything was finished"),
        Ok(false) | Err(_) => log::warn!("stopped: some requests were cut off at the deadline"),
    }
    if access_log.is_some_and(|access_log| !access_log.flush(FLUSH_WITHIN)) {
        log::warn!("the last lines of the access log could not be written in time");
    }
}
