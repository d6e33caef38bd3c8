//! New rules without a restart: on SIGHUP, or within a second of a file being saved. A set of files with a fault
//! is refused whole, and the plan that runs goes on running.
//!
//! Directories are watched and not files: editors and orchestrators replace a file (or the symlink to its whole
//! directory) rather than write into it, and a watch on the old file would never hear of the new one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{RecursiveMode, Watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::drain::stopped;
use super::tls::Certificates;
use crate::config::compile::Compiler;
use crate::config::load::{self, LoadError};
use crate::plan::Plan;
use crate::telemetry::metrics::METRICS;

/// How long the files must rest before they are read: an editor writes a file in several steps.
const SETTLE: Duration = Duration::from_millis(150);

/// Everything that a reload needs.
#[derive(Debug)]
pub struct Reloader {
    /// The process file, from which the rule files are found.
    pub process_file: PathBuf,
    /// Turns rules into plans and knows what outlives them.
    pub compiler: Arc<Compiler>,
    /// The plan that runs.
    pub plan: Arc<ArcSwap<Plan>>,
    /// Certificates, to be loaded again as well.
    pub certificates: Vec<Arc<Certificates>>,
    /// The text of the files that were last read, to tell a real change from a touched file.
    pub last_seen: u64,
}

impl Reloader {
    /// Reloads on every change and on every SIGHUP, until the process stops.
    pub async fn watch(mut self, mut stop: watch::Receiver<bool>) {
        let (changed, mut changes) = mpsc::channel(1);
        let _watcher = self.watcher(changed);
        let Ok(mut hangup) =
            signal(SignalKind::hangup()).inspect_err(|error| log::error!("SIGHUP cannot be heard: {error}"))
        else {
            return;
        };
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                _ = hangup.recv() => self.reload(true),
                Some(()) = changes.recv() => {
                    sleep(SETTLE).await;
                    while changes.try_recv().is_ok() {}
                    self.reload(false);
                }
            }
        }
    }

    fn watcher(&self, changed: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
        let tell = move |event: notify::Result<notify::Event>| {
            let reading = event.as_ref().is_ok_and(|event| event.kind.is_access());
            if !reading {
                // A full channel already says that something changed.
                let _told = changed.try_send(());
            }
        };
        let unheard = |error| log::error!("changed files will only be read on SIGHUP: {error}");
        let mut watcher = notify::recommended_watcher(tell)
            .inspect_err(|e| unheard(e.to_string()))
            .ok()?;
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

    /// Where the files stand, and, behind symlinks, where they really stand.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let certificates = self
            .certificates
            .iter()
            .flat_map(|certificates| certificates.files())
            .map(Path::to_owned);
        let files = load::watched(&self.process_file).into_iter().chain(certificates);
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

    /// Reads everything again. Without `asked`, files whose text has not changed are left alone.
    fn reload(&mut self, asked: bool) {
        for certificates in &self.certificates {
            if let Err(fault) = certificates.reload() {
                log::error!("certificates stay as they are: {fault}");
            }
        }
        let loaded = load::load(&self.process_file);
        let seen = load::fingerprint(&self.process_file);
        if !asked && seen == self.last_seen {
            return;
        }
        self.last_seen = seen;
        match loaded.and_then(|loaded| self.compiler.compile(&loaded).map_err(LoadError::Faulty)) {
            Ok(plan) => {
                METRICS.config_reloads_total.with_label_values(&["applied"]).inc();
                log::info!("rules reloaded: plan {} runs", plan.generation);
                self.plan.store(Arc::new(plan));
            }
            Err(error) => {
                METRICS.config_reloads_total.with_label_values(&["refused"]).inc();
                log::error!("rules refused, the old ones stay:\n{error}");
            }
        }
    }
}
