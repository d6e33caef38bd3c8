//! New rules without a restart: on SIGHUP, or within a second of a file being saved. A set of files with a fault
//! is refused whole, and the plan that runs goes on running.
//!
//! Directories are watched and not files: editors and orchestrators replace a file (or the symlink to its whole
//! directory) rather than write into it, and a watch on the old file would never hear of the new one.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::drain::stopped;
use super::tls::Certificates;
use crate::config::compile::Compiler;
use crate::config::load::{self, LoadError, ProcessFile};
use crate::config::read::FILE_BYTES_MAX;
use crate::plan::Plan;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::METRICS;

/// How long the files must rest before they are read: an editor writes a file in several steps.
const SETTLE: Duration = Duration::from_millis(150);

/// Brings new rules and certificates into force.
#[derive(Debug)]
pub struct Reloader {
    process_file: PathBuf,
    process: ProcessFile,
    compiler: Arc<Compiler>,
    plan: Arc<ArcSwap<Plan>>,
    pub(super) certificates: Vec<Arc<Certificates>>,
    access_log: Option<AccessLog>,
    /// A hash of everything that was last read, to tell a change from a file that was only touched.
    seen: u64,
    process_seen: u64,
}

impl Reloader {
    /// A reloader of what has just been loaded.
    pub fn new(
        (process_file, process): (PathBuf, ProcessFile),
        compiler: Arc<Compiler>,
        plan: Arc<ArcSwap<Plan>>,
        certificates: Vec<Arc<Certificates>>,
        access_log: Option<AccessLog>,
    ) -> Self {
        let (seen, process_seen) = (0, digest([process_file.clone()].iter()));
        let mut reloader = Self {
            process_file,
            process,
            compiler,
            plan,
            certificates,
            access_log,
            seen,
            process_seen,
        };
        reloader.seen = digest(reloader.files().iter());
        reloader
    }

    /// From now on changes, SIGHUP and SIGUSR1 are heard. To be called before anyone is told that the process is ready:
    /// until then such a signal ends the process, and a file that is saved goes unnoticed.
    ///
    /// # Errors
    /// When the signal cannot be had.
    pub fn listen(self) -> io::Result<Listening> {
        let (changed, changes) = mpsc::channel(1);
        let mut listening = Listening {
            hangup: signal(SignalKind::hangup())?,
            moved: signal(SignalKind::user_defined1())?,
            watcher: None,
            changed,
            changes,
            reloader: Arc::new(Mutex::new(self)),
        };
        listening.watch();
        // A file may have changed after it was loaded and before it was watched.
        let _first = listening.changed.try_send(());
        Ok(listening)
    }

    fn watcher(&self, changed: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
        let known = self.known();
        let tell = move |event: notify::Result<notify::Event>| {
            if event.as_ref().map_or(true, |event| may_matter(event, &known)) {
                // A full channel already says that something changed.
                let _told = changed.try_send(());
            }
        };
        let unheard = |error: notify::Error| log::error!("changed files will only be read on SIGHUP: {error}");
        let mut watcher = notify::recommended_watcher(tell).map_err(unheard).ok()?;
        for directory in self.directories() {
            if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
                log::error!(
                    "changes in {} will only be read on SIGHUP: {error}",
                    directory.display()
                );
            }
        }
        Some(watcher)
    }

    /// The files that are written in place by those who know no better.
    fn known(&self) -> BTreeSet<PathBuf> {
        self.everything().filter_map(|file| file.canonicalize().ok()).collect()
    }

    fn everything(&self) -> impl Iterator<Item = PathBuf> {
        let certificates = self
            .certificates
            .iter()
            .flat_map(|certificates| certificates.files())
            .map(Path::to_owned);
        self.files()
            .into_iter()
            .chain([self.process_file.clone()])
            .chain(certificates)
    }

    /// Everything that a reload reads, but certificates.
    fn files(&self) -> Vec<PathBuf> {
        load::rule_paths(&self.process)
    }

    /// Where the files stand, and, behind symlinks, where they really stand.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let files = self.everything();
        let places = files.flat_map(|file| [file.canonicalize().ok(), Some(file)]).flatten();
        let parents = places.filter_map(|file| file.parent().map(Path::to_owned));
        parents
            .map(|parent| {
                if parent.as_os_str().is_empty() {
                    PathBuf::from(".")
                } else {
                    parent
                }
            })
            .collect()
    }

    /// Reads everything again, and gives what came of the rules if they were read. Without `asked`, files whose text has
    /// not changed are left alone.
    fn reload(&mut self, asked: bool) -> Option<Result<Plan, LoadError>> {
        for certificates in &self.certificates {
            if let Err(fault) = certificates.reload() {
                log::error!("certificates stay as they are: {fault}");
            }
        }
        self.note_process_file();
        let seen = digest(self.files().iter());
        if !asked && seen == self.seen {
            return None;
        }
        self.seen = seen;
        let rules = load::load_rules(&self.process, &self.compiler);
        Some(rules.and_then(|rules| self.compiler.compile(rules).map_err(LoadError::Faulty)))
    }

    /// Whether the files are not any more what was last read.
    fn has_changed(&self) -> bool {
        digest(self.files().iter()) != self.seen
    }

    fn note_process_file(&mut self) {
        let seen = digest([self.process_file.clone()].iter());
        if seen != self.process_seen {
            self.process_seen = seen;
            log::warn!("{} has changed; that takes a restart", self.process_file.display());
        }
    }
}

fn refused(error: &LoadError) {
    METRICS.config_reloads_total.with_label_values(&["refused"]).inc();
    METRICS.config_last_reload_successful.set(0);
    log::error!("rules refused, the old ones stay");
    // A line each: the log of events keeps an event on one.
    error.to_string().lines().for_each(|fault| log::error!("{fault}"));
}

/// A reloader that hears of changes.
pub struct Listening {
    reloader: Arc<Mutex<Reloader>>,
    hangup: Signal,
    /// As nginx has it: the access log has been moved away.
    moved: Signal,
    /// None where files cannot be watched.
    watcher: Option<RecommendedWatcher>,
    changed: mpsc::Sender<()>,
    changes: mpsc::Receiver<()>,
}

impl Listening {
    /// Reloads on every change and on every SIGHUP, and opens the access log anew on SIGUSR1, until the process stops.
    pub async fn reload(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                _ = self.hangup.recv() => {
                    self.reopen_access_log();
                    self.read(true).await;
                }
                _ = self.moved.recv() => {
                    self.reopen_access_log();
                    log::info!("the access log is opened anew");
                }
                Some(()) = self.changes.recv() => {
                    sleep(SETTLE).await;
                    while self.changes.try_recv().is_ok() {}
                    self.read(false).await;
                }
            }
        }
    }

    /// Reads what there is, and watches it. Rules that were just read may name pages elsewhere, and where one of these is
    /// why they were refused, it must be heard when it is mended. So nobody is told before it is watched.
    ///
    /// It is read on another thread: on this one limits and rooms take their turns, and many rules take a while.
    async fn read(&mut self, asked: bool) {
        let reloader = Arc::clone(&self.reloader);
        match spawn_blocking(move || locked(&reloader).reload(asked)).await {
            Ok(Some(Ok(plan))) => {
                self.watch();
                self.apply(plan).await;
            }
            Ok(Some(Err(error))) => {
                self.watch();
                refused(&error);
            }
            Ok(None) => {}
            Err(broken) => log::error!("rules could not be read, the old ones stay: {broken}"),
        }
    }

    /// Lets a plan run, once it is known where its servers are, as far as that can be known.
    async fn apply(&self, plan: Plan) {
        let (upstreams, running) = {
            let reloader = locked(&self.reloader);
            (Arc::clone(reloader.compiler.upstreams()), Arc::clone(&reloader.plan))
        };
        upstreams.resolve_new().await;
        let generation = plan.generation;
        running.store(Arc::new(plan));
        METRICS.config_reloads_total.with_label_values(&["applied"]).inc();
        METRICS.config_last_reload_successful.set(1);
        log::info!("rules reloaded: plan {generation} runs");
    }

    fn reopen_access_log(&self) {
        if let Some(access_log) = &locked(&self.reloader).access_log {
            access_log.reopen();
        }
    }

    fn watch(&mut self) {
        let reloader = locked(&self.reloader);
        self.watcher = reloader.watcher(self.changed.clone());
        if reloader.has_changed() {
            // After it was read, and before it was watched.
            let _again = self.changed.try_send(());
        }
    }
}

/// Nobody else has it while it reads; a reading that panicked has changed nothing that runs.
fn locked(reloader: &Mutex<Reloader>) -> MutexGuard<'_, Reloader> {
    reloader.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an event may mean new rules. A file that was only read does not; nor one that was written to and is none
/// of ours, such as a log in the same directory. Whatever is created, removed or renamed may.
fn may_matter(event: &notify::Event, known: &BTreeSet<PathBuf>) -> bool {
    let ours = |path: &PathBuf| known.contains(path) || path.canonicalize().is_ok_and(|path| known.contains(&path));
    match event.kind {
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => event.paths.iter().any(ours),
        EventKind::Any | EventKind::Other | EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(_) => true,
    }
}

/// A hash of files with their names; one that cannot be read counts as empty. Beyond the bound, any file is refused.
fn digest<'a>(files: impl Iterator<Item = &'a PathBuf>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        load::read_bounded(file, FILE_BYTES_MAX)
            .unwrap_or_default()
            .hash(&mut hasher);
    }
    hasher.finish()
}
