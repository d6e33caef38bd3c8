//! Where a server's name leads. Asked in the background, so that no request waits for a name server; while a
//! name cannot be resolved, the last good answer stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use tokio::time::timeout;

use crate::telemetry::metrics::METRICS;

/// How often names are asked again.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(10);

/// How long one name may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// Most addresses of one name that are used.
const ADDRESSES_MAX: usize = 64;

/// A server and the addresses its name led to, last time it led anywhere.
#[derive(Debug)]
pub struct Resolved {
    text: String,
    literal: bool,
    addresses: ArcSwap<Vec<SocketAddr>>,
    next: AtomicUsize,
    healthy: IntGauge,
}

impl Resolved {
    /// A server written as `host:port`. A literal address needs no asking.
    pub fn new(text: &str) -> Self {
        let literal = text.parse::<SocketAddr>().ok();
        let healthy = METRICS.upstream_healthy.with_label_values(&[text]);
        healthy.set(1);
        Self {
            text: text.to_owned(),
            literal: literal.is_some(),
            addresses: ArcSwap::from_pointee(literal.into_iter().collect()),
            next: AtomicUsize::new(0),
            healthy,
        }
    }

    /// As the operator wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The next of its addresses, in turn; none while the name has led nowhere.
    pub fn address(&self) -> Option<SocketAddr> {
        let addresses = self.addresses.load();
        if addresses.is_empty() {
            return None;
        }
        let turn = if addresses.len() == 1 {
            0
        } else {
            self.next.fetch_add(1, Ordering::Relaxed)
        };
        Some(addresses[turn % addresses.len()])
    }

    /// Shows in a metric whether the server took its last connection.
    pub fn note_connect(&self, connected: bool) {
        self.healthy.set(i64::from(connected));
    }

    /// Asks where the name leads now.
    pub async fn refresh(&self) {
        if self.literal {
            return;
        }
        match timeout(RESOLVE_WITHIN, tokio::net::lookup_host(&self.text)).await {
            Ok(Ok(found)) => {
                let mut found: Vec<_> = found.take(ADDRESSES_MAX).collect();
                found.sort_unstable();
                if !found.is_empty() && **self.addresses.load() != found {
                    log::info!("server {} is at {found:?}", self.text);
                    self.addresses.store(Arc::new(found));
                }
            }
            Ok(Err(error)) => log::warn!(
                "server {} cannot be resolved: {error}; its last addresses stand",
                self.text
            ),
            Err(_) => log::warn!(
                "server {} was not resolved within {RESOLVE_WITHIN:?}; its last addresses stand",
                self.text
            ),
        }
    }
}

/// A server that no plan has any more is shown no more. Another of its name is made only when this one is gone.
impl Drop for Resolved {
    fn drop(&mut self) {
        // An error would say that it was not shown.
        let _shown = METRICS.upstream_healthy.remove_label_values(&[&self.text]);
    }
}
