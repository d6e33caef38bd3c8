//! Floor 3: the services behind the gateway: which server gets a request, how many it gets at once, and where
//! names lead.
//!
//! An [`Upstream`] belongs to one plan. What must outlive a plan (how many requests are in flight, what a name
//! resolved to) lives in its [`Upstreams`] entry, found by name.

pub mod balance;
pub mod health;
pub mod in_flight;
pub mod resolve;
pub mod retry;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Histogram, IntCounter};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::timeout;

use self::balance::RoundRobin;
use self::health::Terms;
use self::in_flight::{InFlight, Permit};
use self::resolve::{NEW_WITHIN, Resolved};
use self::retry::Budget;
use crate::base::clock::Timestamp;
use crate::base::name::Name;
use crate::telemetry::metrics::METRICS;
use crate::telemetry::vitals::Vitals;

/// Most servers of one upstream.
pub const SERVERS_MAX: usize = 256;

/// An upstream as the operator described it, checked.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name.
    pub name: Name,
    /// `host:port` with a weight, 1 to 1000; at least one and at most [`SERVERS_MAX`].
    pub servers: Vec<(String, u16)>,
    /// Deadlines towards its servers.
    pub timeouts: Timeouts,
    /// Attempts for one request, the first included.
    pub attempts: u8,
    /// Retries as a share of requests.
    pub retry_budget: f64,
    /// When a server is passed over; none for never.
    pub eject: Option<Terms>,
    /// Most requests at once; none for no bound.
    pub in_flight: Option<u64>,
    /// Whose end frees the place of a request.
    pub release: Release,
}

/// Deadlines towards a server. Pingora has none by default, so every one is set.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection to stand.
    pub connect: Duration,
    /// Between two reads of an answer.
    pub read: Duration,
    /// For one write of a request.
    pub write: Duration,
    /// For which an unused connection is kept.
    pub idle: Duration,
}

/// When a request stops counting towards `in_flight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// When the server's answer has ended.
    #[default]
    Upstream,
    /// When the client has all of it. Nothing is buffered: a client that reads slowly keeps its server's connection
    /// busy, and is counted as long.
    Client,
}

/// An upstream of one plan.
#[derive(Debug)]
pub struct Upstream {
    rule: Rule,
    servers: Vec<Arc<Resolved>>,
    balance: RoundRobin,
    in_flight: InFlight,
    retries: Arc<Budget>,
    seconds: Histogram,
    full: IntCounter,
    /// Where how it bears its requests is noted; none where nobody looks.
    vitals: Option<Arc<Vitals>>,
}

/// A server chosen for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Which of the upstream's servers.
    pub server: usize,
    /// Where it is reached.
    pub address: SocketAddr,
}

impl Upstream {
    /// Takes a place among the requests in flight; none is left when the upstream is full.
    pub fn admit(&self) -> Option<Permit> {
        let permit = self.in_flight.admit();
        if permit.is_none() {
            self.full.inc();
        }
        if let (Some(vitals), Some(bound)) = (&self.vitals, self.rule.in_flight) {
            vitals.note_in_flight(self.in_flight.taken(), bound);
        }
        permit
    }

    /// Notes how a request went: how long its answer took, or none where it failed.
    pub fn note_answer(&self, took: Option<Duration>) {
        match (&self.vitals, took) {
            (Some(vitals), Some(took)) => vitals.answered(took),
            (Some(vitals), None) => vitals.failed(),
            (None, _) => {}
        }
    }

    /// Chooses a server for an attempt, by weight and in turn. Those that are out are passed over as long as another
    /// is in, and those in `tried` as long as there are others. None when no server's name leads anywhere.
    pub fn choose(&self, tried: &[Chosen], now: Timestamp) -> Option<Chosen> {
        let turns = self.balance.turns();
        let pick = |fits: &dyn Fn(Chosen) -> bool| {
            turns.clone().find_map(|server| {
                let address = self.servers[server].address(|address| fits(Chosen { server, address }))?;
                Some(Chosen { server, address })
            })
        };
        let is_new = |chosen: Chosen| !tried.contains(&chosen);
        let takes = |chosen: Chosen| {
            let terms = self.rule.eject.as_ref();
            terms.is_none_or(|terms| self.servers[chosen.server].take(chosen.address, terms, now))
        };
        pick(&|chosen| is_new(chosen) && takes(chosen))
            .or_else(|| pick(&is_new))
            .or_else(|| pick(&|_| true))
    }

    /// Whether one more attempt may be made after `made` of them, by the rule and by the budget.
    pub fn may_retry(&self, made: usize) -> bool {
        made < usize::from(self.rule.attempts) && self.retries.spend()
    }

    /// Whether an attempt of which nothing reached a server may be made again, by the rule and by the budget. It costs
    /// no budget while another server is in, since then it is one request more for nobody.
    pub fn may_go_elsewhere(&self, tried: &[Chosen], now: Timestamp) -> bool {
        let elsewhere = || {
            let mut servers = self.servers.iter().enumerate();
            servers.any(|(server, of)| of.is_open(now, |address| !tried.contains(&Chosen { server, address })))
        };
        let is_free = tried.len() < usize::from(self.rule.attempts) && self.rule.eject.is_some() && elsewhere();
        is_free || self.may_retry(tried.len())
    }

    /// Notes that a request set out, which is what the retry budget is a share of.
    pub fn note_request(&self) {
        self.retries.earn();
    }

    /// Notes that a server took no connection, or closed it without an answer.
    pub fn note_failure(&self, chosen: Chosen, now: Timestamp) {
        let terms = self.rule.eject.unwrap_or_default();
        let server = &self.servers[chosen.server];
        if server.note_failure(chosen.address, &terms, now) && self.rule.eject.is_some() {
            let (text, address) = (server.text(), chosen.address);
            METRICS.upstream_ejections_total.with_label_values(&[text]).inc();
            log::warn!(
                "server {text} at {address} is out: {} requests in a row failed",
                terms.after
            );
        }
    }

    /// Notes that a server answered. If it had been out, the others that are out are tried too: what was down as a
    /// whole comes back as a whole, and the first to be back would have all the load.
    pub fn note_server(&self, chosen: Chosen) {
        let server = &self.servers[chosen.server];
        if server.note_answer(chosen.address) {
            log::info!("server {} at {} answers again", server.text(), chosen.address);
            self.servers.iter().for_each(|server| server.try_soon());
        }
    }

    /// The rule this upstream was built from.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The text by which the operator knows a server.
    pub fn server_name(&self, server: usize) -> &str {
        self.servers[server].text()
    }

    /// Records the time from choosing a server to the head of its answer.
    pub fn observe(&self, span: Duration) {
        self.seconds.observe(span.as_secs_f64());
    }
}

/// What outlives a plan, for all upstreams.
#[derive(Debug, Default)]
pub struct Upstreams {
    /// Locked while a plan is built and by the resolver's rounds, never by a request.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    servers: HashMap<String, Arc<Resolved>>,
    in_flight: HashMap<Name, InFlight>,
    retries: HashMap<Name, Arc<Budget>>,
    vitals: HashMap<Name, Arc<Vitals>>,
}

impl Upstreams {
    /// An upstream for a new plan, joined to what is known of its name and its servers.
    pub fn build(&self, rule: Rule) -> Upstream {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = rule.servers.iter().map(|(text, _)| {
            let known = kept
                .servers
                .entry(text.clone())
                .or_insert_with(|| Arc::new(Resolved::new(text)));
            Arc::clone(known)
        });
        let servers = servers.collect();
        let label = [rule.name.as_str()];
        let in_flight = kept
            .in_flight
            .entry(rule.name.clone())
            .or_insert_with(|| InFlight::new(METRICS.upstream_in_flight.with_label_values(&label)))
            .with_limit(rule.in_flight);
        let vitals = kept.vitals.get(&rule.name).cloned();
        let retries = kept.retries.entry(rule.name.clone()).or_default();
        retries.set_share(rule.retry_budget);
        let _shown = METRICS.upstream_retries_total.with_label_values(&label);
        let bound = rule.in_flight.map_or(f64::INFINITY, |bound| bound as f64);
        METRICS.upstream_in_flight_bound.with_label_values(&label).set(bound);
        Upstream {
            vitals,
            full: METRICS.upstream_full_total.with_label_values(&label),
            balance: RoundRobin::new(rule.servers.iter().map(|(_, weight)| *weight)),
            retries: Arc::clone(retries),
            seconds: METRICS.upstream_seconds.with_label_values(&label),
            servers,
            in_flight,
            rule,
        }
    }

    /// How the upstream of this name bears its requests. Those that are built from now on note it.
    pub fn watch(&self, upstream: &Name) -> Arc<Vitals> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(kept.vitals.entry(upstream.clone()).or_default())
    }

    /// Asks where all servers' names lead now.
    pub async fn resolve(&self) {
        resolve::all(self.servers()).await;
    }

    /// Asks where those names lead that nothing is known of, which a new plan may have brought. It takes a little
    /// more than 5 seconds at most; what is not known by then is asked for again with all the others.
    pub async fn resolve_new(&self) {
        let mut servers = self.servers();
        servers.retain(|server| !server.is_known());
        // What is late has told of itself, if it was asked for at all.
        let _in_time = timeout(NEW_WITHIN, resolve::all(servers)).await;
    }

    /// Forgets servers that no plan uses any more and gives those left, to be resolved.
    pub fn servers(&self) -> Vec<Arc<Resolved>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.servers.retain(|_, server| Arc::strong_count(server) > 1);
        kept.servers.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
