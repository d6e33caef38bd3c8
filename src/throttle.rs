//! Floor 3: throttling: budgets in front of a store. Draw, spend, give back.
#![doc = include_str!("throttle/README.md")]

mod calendar;
mod charge;
mod counter;
mod demand;
mod drive;
mod fleet_clock;
mod hot;
mod limit;
mod line;
mod overshoot;
mod partition;
mod tally;
mod turn;
mod view;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Notify;

pub use self::calendar::{Calendar, Period};
use self::counter::Counter;
use self::fleet_clock::FleetClock;
pub use self::limit::{Decision, Held, Limit, Receipt};
pub use self::line::{Patience, Place};
pub use self::tally::Tally;
pub use self::view::{HotView, LimitView};
use crate::base::clock::{Clock, Timestamp};
use crate::base::key::KeySeed;
use crate::base::misfit::Misfit;
use crate::base::name::Name;
use crate::base::rate::Rate;
use crate::base::secret::random_bytes;
use crate::limiter::terms::{Algorithm, Terms};
use crate::limiter::window::Window;
use crate::store::limits::{Fleet, GatewayId, LimitStore};
use crate::telemetry::metrics::METRICS;

/// Sizes and paces of all limits of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How often a gateway talks to the store about a partition that has something to say.
    pub pace: Duration,
    /// Most keys of a limit with an exact entry.
    pub hot_keys: usize,
    /// Slots in each row of a limit's sketch; 96 bytes each in all.
    pub cold_slots: usize,
    /// Partitions of a limit.
    pub partitions: u16,
    /// Longest wait for the store.
    pub store_timeout: Duration,
    /// With what keys are hashed, where the gateways of a fleet must do it alike. None: with a seed of its own.
    pub key_seed: Option<KeySeed>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pace: Duration::from_millis(50),
            hot_keys: 100_000,
            cold_slots: 262_144,
            partitions: 16,
            store_timeout: Duration::from_millis(100),
            key_seed: None,
        }
    }
}

/// A limit as the operator described it.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitRule {
    /// Its name: limits of one name are one limit, wherever they stand.
    pub name: Name,
    /// How much, in how long, for each key.
    pub rate: Rate,
    /// How that is counted.
    pub counting: Counting,
    /// Largest overshoot, as a share of the limit, 0 to 1.
    pub tolerance: f64,
    /// What happens while the store does not answer.
    pub on_fault: OnStoreFault,
}

/// How a limit counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counting {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Whose days or months windows are; none: windows are aligned to the epoch.
    pub calendar: Option<Calendar>,
    /// Whether what requests cost is debited once it is known: it cannot be refused, so counts may pass the limit.
    pub debits: bool,
}

impl LimitRule {
    /// Most that one request may cost: more never comes together.
    pub fn capacity(&self) -> u64 {
        match self.counting.algorithm {
            Algorithm::TokenBucket { burst } => burst,
            _ => self.rate.count.get(),
        }
    }

    /// The terms of this rule as they are at `now`.
    pub fn terms(&self, now: Timestamp) -> Terms {
        let calendar = self.counting.calendar.as_ref();
        Terms {
            allows: self.rate.count.get(),
            window: calendar.map_or_else(|| Window::new(self.rate.window), |calendar| calendar.window(now)),
            algorithm: self.counting.algorithm,
        }
    }
}

/// What a limit does while the store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreFault {
    /// Each gateway goes on with its own share of the limit.
    #[default]
    Local,
    /// Nothing is limited.
    Allow,
    /// Everything that would need the store is limited.
    Deny,
}

/// All limits of a process, by name. They outlive plans, so that a reload starts nobody afresh.
#[derive(Debug)]
pub struct Throttles {
    settings: Settings,
    gateway: GatewayId,
    seed: KeySeed,
    store: Arc<dyn LimitStore>,
    clock: Arc<FleetClock>,
    fleet: Arc<ArcSwap<Fleet>>,
    /// The store did not answer the last call. Until it does again no request waits for it.
    cut_off: Arc<AtomicBool>,
    /// The turn whose failure cut us off: it has to succeed before we take the store for whole again.
    failed: Mutex<Option<(Weak<Counter>, usize)>>,
    urgent: Arc<Notify>,
    /// The clocks of the store's servers differ too much, and that was said.
    clocks_part: AtomicBool,
    /// A sign of life is on its way.
    announcing: AtomicBool,
    /// Locked by reloads and by the driver between its turns, never by a request.
    limits: Mutex<Limits>,
}

#[derive(Debug, Default)]
struct Limits {
    active: BTreeMap<Name, Arc<Limit>>,
    /// Of the plan that is being built.
    drafts: BTreeMap<Name, Arc<Limit>>,
}

impl Limits {
    /// What is shown of a limit that never ran is taken away; what runs goes on showing what it did.
    fn forget_drafts(&mut self) {
        for name in std::mem::take(&mut self.drafts).into_keys() {
            if !self.active.contains_key(&name) {
                hide(&name);
                tally::hide(&name);
                drop(METRICS.throttle_overdraft_total.remove_label_values(&[name.as_str()]));
                drop(METRICS.throttle_stranded_total.remove_label_values(&[name.as_str()]));
            }
        }
    }
}

impl Throttles {
    /// No limits yet, in front of `store`.
    pub fn new(settings: Settings, store: Arc<dyn LimitStore>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let gateway = GatewayId(u64::from_le_bytes(random_bytes()));
        Self::of_gateway(gateway, settings, store, clock)
    }

    /// The same with a number that was drawn elsewhere, so that a simulation can be run again.
    pub fn of_gateway(
        gateway: GatewayId,
        settings: Settings,
        store: Arc<dyn LimitStore>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        METRICS
            .throttle_hot_keys_bound
            .set(i64::try_from(settings.hot_keys).unwrap_or(i64::MAX));
        METRICS.store_timeout_seconds.set(settings.store_timeout.as_secs_f64());
        Arc::new(Self {
            settings,
            gateway,
            seed: settings.key_seed.unwrap_or_else(|| KeySeed(random_bytes())),
            store,
            clock: Arc::new(FleetClock::new(clock)),
            fleet: Arc::default(),
            cut_off: Arc::default(),
            failed: Mutex::default(),
            urgent: Arc::default(),
            clocks_part: AtomicBool::new(false),
            announcing: AtomicBool::new(false),
            limits: Mutex::default(),
        })
    }

    /// With what keys are hashed: nobody outside can find two that collide.
    pub const fn key_seed(&self) -> KeySeed {
        self.seed
    }

    /// Begins a new plan; what an earlier one had begun and not committed is forgotten.
    pub fn begin_plan(&self) {
        self.locked().forget_drafts();
    }

    /// The plan that was begun will not run.
    pub fn abandon_plan(&self) {
        self.locked().forget_drafts();
    }

    /// The limit of this name for the plan that is being built. Counts carry over from the plan that runs, unless
    /// the window or the algorithm changes: then they mean something else.
    ///
    /// # Errors
    /// When the plan has another limit of the name.
    pub fn limit(&self, rule: LimitRule) -> Result<Arc<Limit>, Misfit> {
        let mut limits = self.locked();
        if let Some(drafted) = limits.drafts.get(&rule.name) {
            let same = *drafted.rule() == rule;
            let other = || {
                format!(
                    "there is another limit named `{}`; one name is one limit, everywhere",
                    rule.name
                )
            };
            return if same {
                Ok(Arc::clone(drafted))
            } else {
                Err(Misfit::new(other()).under("name"))
            };
        }
        let running = limits.active.get(&rule.name).map(|limit| Arc::clone(limit.counter()));
        let counter = running
            .filter(|counter| counter.counts_like(&rule))
            .unwrap_or_else(|| Arc::new(Counter::new(self, &rule)));
        let limit = Arc::new(Limit::new(rule.clone(), counter));
        limits.drafts.insert(rule.name, Arc::clone(&limit));
        Ok(limit)
    }

    /// The plan that was built runs from now on: its limits take effect, and those it does not name end.
    pub fn commit_plan(&self) {
        let mut limits = self.locked();
        let drafts = std::mem::take(&mut limits.drafts);
        let before = std::mem::replace(&mut limits.active, drafts);
        for name in before.keys().filter(|name| !limits.active.contains_key(*name)) {
            hide(name);
        }
        for limit in limits.active.values() {
            limit.take_effect();
        }
    }

    /// Every limit of the plan that runs.
    pub fn active(&self) -> Vec<Arc<Limit>> {
        self.locked().active.values().cloned().collect()
    }

    /// The time of the fleet, as far as this gateway knows it.
    pub fn fleet_time(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether the last call of the store failed. Until one succeeds no request waits for it.
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Acquire)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a limit that ended shows is true no more, and would go on raising alarms. Its counters stay: they only grow.
fn hide(limit: &Name) {
    let label = [limit.as_str()];
    // What was never shown need not be taken away.
    drop(METRICS.throttle_hot_keys.remove_label_values(&label));
    drop(METRICS.throttle_held.remove_label_values(&label));
    overshoot::hide(&label);
}

#[cfg(test)]
mod tests;
