//! Where a server's name leads, and which of its addresses are in trouble. Names are asked for in the background, so
//! that no request waits for a name server; while a name cannot be resolved, the last good answer stands.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::health::{Terms, Trouble};
use crate::base::clock::Timestamp;
use crate::telemetry::metrics::METRICS;

/// How often names are asked again.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(10);

/// How long one name may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// How long names that are new may take, all together: as long as one, and a moment to tell of it.
pub(super) const NEW_WITHIN: Duration = Duration::from_millis(5_500);

/// Most addresses of one name that are used.
const ADDRESSES_MAX: usize = 64;

/// Most names that are asked for at once: each takes a thread for as long as it takes.
const RESOLVED_AT_ONCE: usize = 64;

/// Asks where the names of all these lead, many at once: one that takes long keeps few others waiting.
pub(super) async fn all(servers: Vec<Arc<Resolved>>) {
    let places = Arc::new(Semaphore::new(RESOLVED_AT_ONCE));
    let mut asked = JoinSet::new();
    for server in servers.into_iter().filter(|server| !server.literal) {
        let places = Arc::clone(&places);
        asked.spawn(async move {
            // It is never closed.
            let _place = places.acquire_owned().await;
            server.refresh().await;
        });
    }
    asked.join_all().await;
}

/// A server and the addresses its name led to, last time it led anywhere.
#[derive(Debug)]
pub struct Resolved {
    text: String,
    literal: bool,
    addresses: ArcSwap<Vec<SocketAddr>>,
    next: AtomicUsize,
    /// How many addresses are in trouble: mostly none, and then nobody takes the lock.
    troubled: AtomicUsize,
    /// Those that failed and have not answered since; none that the name does not lead to.
    troubles: Mutex<HashMap<SocketAddr, Trouble>>,
    healthy: IntGauge,
}

impl Resolved {
    /// A server written as `host:port`. A literal address needs no asking.
    pub fn new(text: &str) -> Self {
        let literal = text.parse::<SocketAddr>().ok();
        let healthy = METRICS.upstream_healthy.with_label_values(&[text]);
        healthy.set(1);
        let _shown = METRICS.upstream_ejections_total.with_label_values(&[text]);
        Self {
            text: text.to_owned(),
            literal: literal.is_some(),
            addresses: ArcSwap::from_pointee(literal.into_iter().collect()),
            next: AtomicUsize::new(0),
            troubled: AtomicUsize::new(0),
            troubles: Mutex::default(),
            healthy,
        }
    }

    /// As the operator wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is known where it is, or once was.
    pub fn is_known(&self) -> bool {
        !self.addresses.load().is_empty()
    }

    /// The next of its addresses, in turn, that `fits`; none while the name has led nowhere.
    pub fn address(&self, fits: impl Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        let addresses = self.addresses.load();
        let turn = match addresses.len() {
            0 | 1 => 0,
            _ => self.next.fetch_add(1, Ordering::Relaxed),
        };
        let mut turns = (0..addresses.len()).map(|step| addresses[turn.wrapping_add(step) % addresses.len()]);
        turns.find(|address| fits(*address))
    }

    /// Whether a request may go to this address, and then does: see [`Trouble::take`].
    pub fn take(&self, address: SocketAddr, terms: &Terms, now: Timestamp) -> bool {
        let is_well = self.troubled.load(Ordering::Relaxed) == 0;
        is_well
            || self
                .lock()
                .get_mut(&address)
                .is_none_or(|trouble| trouble.take(terms, now))
    }

    /// Whether a request may go to one of its addresses that `fits`.
    pub fn is_open(&self, now: Timestamp, fits: impl Fn(SocketAddr) -> bool) -> bool {
        let troubles = self.lock();
        let is_open = |address: &SocketAddr| troubles.get(address).is_none_or(|trouble| trouble.is_open(now));
        self.addresses
            .load()
            .iter()
            .any(|address| fits(*address) && is_open(address))
    }

    /// Notes that an address did not take a request or gave no answer; whether it is out by that.
    pub fn note_failure(&self, address: SocketAddr, terms: &Terms, now: Timestamp) -> bool {
        let mut troubles = self.lock();
        if !self.addresses.load().contains(&address) {
            return false;
        }
        let is_newly_out = troubles.entry(address).or_default().failed(terms, now);
        self.show(&troubles);
        is_newly_out
    }

    /// Notes that an address answered; whether it was out until now.
    pub fn note_answer(&self, address: SocketAddr) -> bool {
        if self.troubled.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut troubles = self.lock();
        let was_out = troubles.remove(&address).is_some_and(|trouble| trouble.is_out());
        self.show(&troubles);
        was_out
    }

    /// Lets the next request try each address that is out.
    pub fn try_soon(&self) {
        if self.troubled.load(Ordering::Relaxed) > 0 {
            self.lock().values_mut().for_each(Trouble::try_soon);
        }
    }

    /// Takes note of where the name leads; an answer without addresses is none.
    pub(super) fn lead_to(&self, found: &[SocketAddr]) {
        let mut found = found.to_vec();
        found.sort_unstable();
        if found.is_empty() || **self.addresses.load() == found {
            return;
        }
        log::info!("server {} is at {found:?}", self.text);
        let mut troubles = self.lock();
        troubles.retain(|address, _| found.contains(address));
        self.addresses.store(Arc::new(found));
        self.show(&troubles);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, troubles: &HashMap<SocketAddr, Trouble>) {
        self.troubled.store(troubles.len(), Ordering::Relaxed);
        let is_out = |address| troubles.get(address).is_some_and(Trouble::is_out);
        let addresses = self.addresses.load();
        let is_gone = !addresses.is_empty() && addresses.iter().all(is_out);
        self.healthy.set(i64::from(!is_gone));
    }

    /// Asks where the name leads now.
    async fn refresh(&self) {
        let why = match timeout(RESOLVE_WITHIN, tokio::net::lookup_host(&self.text)).await {
            Ok(Ok(found)) => return self.lead_to(&found.take(ADDRESSES_MAX).collect::<Vec<_>>()),
            Ok(Err(error)) => format!("cannot be resolved: {error}"),
            Err(_) => format!("was not resolved within {RESOLVE_WITHIN:?}"),
        };
        let meanwhile = if self.is_known() {
            "its last addresses stand"
        } else {
            "it gets no requests until it is"
        };
        log::warn!("server {} {why}; {meanwhile}", self.text);
    }
}

/// A server that no plan has any more is shown no more. Another of its name is made only when this one is gone.
impl Drop for Resolved {
    fn drop(&mut self) {
        // An error would say that it was not shown.
        let _shown = METRICS.upstream_healthy.remove_label_values(&[&self.text]);
        let _counted = METRICS.upstream_ejections_total.remove_label_values(&[&self.text]);
    }
}
