//! New rules without a restart: on SIGHUP, or within a second of a file being saved. A set of files with a fault
//! is refused whole, and the plan that runs goes on running.
//!
//! Directories are watched and not files: editors and orchestrators replace a file (or the symlink to its whole
//! directory) rather than write into it, and a watch on the old file would never hear of the new one.

use std::collections::BTreeSet;
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
use crate::config::compile::{Compiler, Prepared};
use crate::config::load::{self, LoadError, ProcessFile, Sources, TextHash, folder_of};
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
    /// Where the rules came from that were last read.
    sources: Sources,
    compiler: Arc<Compiler>,
    plan: Arc<ArcSwap<Plan>>,
    pub(super) certificates: Vec<Arc<Certificates>>,
    access_log: Option<AccessLog>,
    process_seen: u64,
}

/// What came of rules, if they were read, and what will tell of their next change.
struct Reading {
    rules: Option<Result<Prepared, LoadError>>,
    watcher: Option<RecommendedWatcher>,
}

impl Reloader {
    /// A reloader of what has just been loaded.
    pub fn new(
        (process_file, process, sources): (PathBuf, ProcessFile, Sources),
        compiler: Arc<Compiler>,
        plan: Arc<ArcSwap<Plan>>,
        certificates: Vec<Arc<Certificates>>,
        access_log: Option<AccessLog>,
    ) -> Self {
        let process_seen = digest(&process_file);
        Self {
            process_file,
            process,
            sources,
            compiler,
            plan,
            certificates,
            access_log,
            process_seen,
        }
    }

    /// From now on changes, SIGHUP and SIGUSR1 are heard. To be called before anyone is told that the process is ready:
    /// until then such a signal ends the process, and a file that is saved goes unnoticed.
    ///
    /// # Errors
    /// When the signal cannot be had.
    pub fn listen(self) -> io::Result<Listening> {
        let (changed, changes) = mpsc::channel(1);
        let listening = Listening {
            hangup: signal(SignalKind::hangup())?,
            moved: signal(SignalKind::user_defined1())?,
            watcher: self.watch(&changed),
            changed,
            changes,
            reloader: Arc::new(Mutex::new(self)),
        };
        // A certificate may have changed after it was loaded and before it was watched.
        let _first = listening.changed.try_send(());
        Ok(listening)
    }

    /// Watches what was last read, and looks whether it has changed since.
    fn watch(&self, changed: &mpsc::Sender<()>) -> Option<RecommendedWatcher> {
        let watcher = self.watcher(changed.clone());
        if self.sources.have_changed(&self.process) {
            // After it was read, and before it was watched.
            let _again = changed.try_send(());
        }
        watcher
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
        let files = self.sources.paths().cloned().chain(self.others());
        files.filter_map(|file| file.canonicalize().ok()).collect()
    }

    /// The process file, and certificates.
    fn others(&self) -> impl Iterator<Item = PathBuf> {
        let certificates = self.certificates.iter().flat_map(|certificates| certificates.files());
        certificates.map(Path::to_owned).chain([self.process_file.clone()])
    }

    /// Where the files stand, and, behind symlinks, where they really stand.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let files = self.others();
        let places = files.flat_map(|file| [file.canonicalize().ok(), Some(file)]).flatten();
        let others = places.filter_map(|file| folder_of(&file));
        let all = self.sources.folders(&self.process).into_iter().chain(others);
        all.filter(|folder| folder.is_dir()).collect()
    }

    /// Reads everything again. Without `asked`, rules whose text has not changed are left alone; what is watched is looked
    /// for anew nevertheless, for a folder may have been replaced by another.
    ///
    /// Rules that were just read may name pages elsewhere, and where one of these is why they were refused, it must be
    /// heard when it is mended. So nobody is told before it is watched.
    fn reload(&mut self, asked: bool, changed: &mpsc::Sender<()>) -> Reading {
        for certificates in &self.certificates {
            if let Err(fault) = certificates.reload() {
                log::error!("certificates stay as they are: {fault}");
            }
        }
        self.note_process_file();
        let reads = asked || self.sources.have_changed(&self.process);
        let rules = reads.then(|| self.read_rules());
        let watcher = self.watch(changed);
        Reading { rules, watcher }
    }

    fn read_rules(&mut self) -> Result<Prepared, LoadError> {
        let (rules, sources) = load::load_rules(&self.process, &self.compiler);
        self.sources = sources;
        self.compiler.prepare(rules?).map_err(LoadError::Faulty)
    }

    fn note_process_file(&mut self) {
        let seen = digest(&self.process_file);
        if seen != self.process_seen {
            self.process_seen = seen;
            log::warn!("{} has changed; that takes a restart", self.process_file.display());
        }
    }
}

fn refused(error: &LoadError) {
    METRICS.config_reloads_total.with_label_values(&["refused"]).inc();
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

    /// Reads what there is, and lets it run.
    ///
    /// All that touches files or YAML happens on another thread: on this one limits and rooms take their turns, and many
    /// rules take a while.
    async fn read(&mut self, asked: bool) {
        let (reloader, changed) = (Arc::clone(&self.reloader), self.changed.clone());
        match spawn_blocking(move || locked(&reloader).reload(asked, &changed)).await {
            Ok(Reading { rules, watcher }) => {
                self.watcher = watcher;
                match rules {
                    Some(Ok(prepared)) => self.apply(prepared).await,
                    Some(Err(error)) => refused(&error),
                    None => {}
                }
            }
            Err(broken) => log::error!("rules could not be read, the old ones stay: {broken}"),
        }
    }

    /// Lets a plan run, once it is known where its servers are, as far as that can be known. Until then the plan that
    /// runs keeps its rooms and its limits.
    async fn apply(&self, prepared: Prepared) {
        let (compiler, running) = {
            let reloader = locked(&self.reloader);
            (Arc::clone(&reloader.compiler), Arc::clone(&reloader.plan))
        };
        compiler.upstreams().resolve_new().await;
        let plan = compiler.commit(prepared);
        let generation = plan.generation;
        running.store(Arc::new(plan));
        METRICS.config_reloads_total.with_label_values(&["applied"]).inc();
        log::info!("rules reloaded: plan {generation} runs");
    }

    fn reopen_access_log(&self) {
        if let Some(access_log) = &locked(&self.reloader).access_log {
            access_log.reopen();
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

fn digest(file: &Path) -> u64 {
    let mut hash = TextHash::default();
    hash.read(file);
    hash.digest()
}
