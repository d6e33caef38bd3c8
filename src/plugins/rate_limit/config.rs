//! Limits as operators write them, and the way from there to what runs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{Notice, policy};
use super::{LIMITS_MAX, RateLimit, Rule, Tally};
use crate::base::key::{KeyExtractor, KeyPart, KeySeed, KeySpec};
use crate::base::misfit::Misfit;
use crate::base::name::Name;
use crate::base::one_or_many::OneOrMany;
use crate::base::rate::Rate;
use crate::base::unit::Percent;
use crate::plugins::Env;
use crate::telemetry::metrics::METRICS;
use crate::throttle::{Counting, LimitRule, OnStoreFault, Throttles};

/// One limit, or a list of up to 8 that a request must all pass; a request that one refuses costs the others nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Config(OneOrMany<LimitConfig>);

/// So many requests in so long, for each key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitConfig {
    /// Its name in metrics and headers. Limits of one name are one limit, on whatever routes they stand.
    pub name: Name,
    /// What it counts by: `client_ip`, `route`, `host`, `path`, `{ header: x-client }`, `{ cookie: session }`,
    /// `{ query: api_key }`, or a list of these that count together.
    pub key: KeySpec,
    /// How many requests of one key, in how long: `100/s`, `100/min`, `1000/h`, `5/day`, `20/5s`. The window is
    /// between 100ms and 400 days.
    pub limit: Rate,
    /// The largest overshoot that the limit may show, as a share of it: `5%` lets up to 105 of 100 through where that
    /// saves a wait for the store. Default: 0, exact.
    #[serde(default)]
    pub tolerance: Percent,
    /// How it counts. Default: sliding_window.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// What a request over the limit gets. Default: reject.
    #[serde(default = "reject")]
    pub over: OneOrMany<Over>,
    /// What it does while the store does not answer. Default: local.
    #[serde(default)]
    pub on_store_fault: OnStoreFault,
    /// Whether it only counts and shows in the metrics what it would have refused. Default: false.
    #[serde(default)]
    pub dry_run: bool,
    /// What becomes of a request that lacks a part of the key. Must be written where a request may: for headers,
    /// cookies, queries and claims.
    pub missing: Option<Missing>,
    /// How many leading bits of an IPv6 address are one client, 0 to 128. Default: 64.
    #[serde(default = "ipv6_prefix")]
    #[schemars(range(min = 0, max = 128))]
    pub ipv6_prefix: u8,
}

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// This window's count, and of the one before it the share that still overlaps the trailing window.
    #[default]
    SlidingWindow,
}

/// What a request over the limit gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// The answer 429, and when to come back.
    Reject,
}

/// What becomes of a request that lacks a part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// This limit does not apply to it.
    Skip,
    /// All such requests share one count.
    Together,
    /// It is answered 400.
    Reject,
}

/// Shortest window: a shorter one would turn more often than gateways and store talk.
const WINDOW_MIN: Duration = Duration::from_millis(100);
/// Longest window: a year, and a month to be generous.
const WINDOW_MAX: Duration = Duration::from_secs(400 * 86_400);
/// Bits of an IPv6 address.
const IPV6_PREFIX_MAX: u8 = 128;

fn reject() -> OneOrMany<Over> {
    OneOrMany(vec![Over::Reject])
}

const fn ipv6_prefix() -> u8 {
    64
}

impl Config {
    pub(in crate::plugins) fn build(self, env: &Env<'_>) -> Result<RateLimit, Vec<Misfit>> {
        let drafts = self.drafts(&env.throttles.key_seed())?;
        let rules = drafts.into_iter().enumerate().map(|(index, draft)| {
            let rule = draft.build(env.throttles);
            rule.map_err(|misfit| misfit.under(index))
        });
        let rules = collect(rules)?;
        let shown = rules.iter().filter(|rule| !rule.dry_run).map(|rule| rule.limit.rule());
        let policy = policy(shown.map(|rule| (&rule.name, rule.rate)));
        Ok(RateLimit { rules, policy })
    }

    /// Everything that can be wrong without a look at other limits.
    pub(super) fn drafts(self, seed: &KeySeed) -> Result<Vec<Draft>, Vec<Misfit>> {
        let Self(OneOrMany(limits)) = self;
        if limits.is_empty() || limits.len() > LIMITS_MAX {
            let count = limits.len();
            let message = format!("a `rate_limit` step has 1 to {LIMITS_MAX} limits, and this one has {count}");
            return Err(vec![Misfit::new(message)]);
        }
        let mut misfits = twice(&limits);
        let mut drafts = Vec::new();
        for (index, limit) in limits.into_iter().enumerate() {
            match limit.draft(seed) {
                Ok(draft) => drafts.push(draft),
                Err(found) => misfits.extend(found.into_iter().map(|misfit| misfit.under(index))),
            }
        }
        if misfits.is_empty() { Ok(drafts) } else { Err(misfits) }
    }
}

/// Names that stand in one list more than once.
fn twice(limits: &[LimitConfig]) -> Vec<Misfit> {
    let again = |(index, limit): &(usize, &LimitConfig)| limits[..*index].iter().any(|other| other.name == limit.name);
    let twice = limits.iter().enumerate().filter(again);
    twice
        .map(|(index, LimitConfig { name, .. })| {
            let message = format!("another limit of this list is named `{name}`; give each its own name");
            Misfit::new(message).under("name").under(index)
        })
        .collect()
}

/// All that went well, or all that did not.
fn collect<T>(results: impl Iterator<Item = Result<T, Misfit>>) -> Result<Vec<T>, Vec<Misfit>> {
    let (mut good, mut misfits) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(one) => good.push(one),
            Err(misfit) => misfits.push(misfit),
        }
    }
    if misfits.is_empty() { Ok(good) } else { Err(misfits) }
}

/// A limit that is sound by itself.
#[derive(Debug)]
pub(super) struct Draft {
    rule: LimitRule,
    extractor: KeyExtractor,
    notice: Notice,
    missing: Missing,
    dry_run: bool,
}

impl LimitConfig {
    fn draft(self, seed: &KeySeed) -> Result<Draft, Vec<Misfit>> {
        let Self {
            name,
            key,
            limit,
            tolerance,
            algorithm,
            over,
            on_store_fault,
            dry_run,
            missing,
            ipv6_prefix,
        } = self;
        // The one algorithm there is.
        let Algorithm::SlidingWindow = algorithm;
        let extractor = KeyExtractor::new(&key.0, ipv6_prefix, seed).map_err(|misfit| misfit.under("key"));
        let missing = missing_or_moot(missing, &key.0);
        let faults = [check_window(limit), check_over(&over), check_prefix(ipv6_prefix)];
        let mut misfits: Vec<Misfit> = faults.into_iter().flatten().collect();
        match (extractor, missing) {
            (Ok(extractor), Ok(missing)) if misfits.is_empty() => {
                let notice = Notice::new(&name, limit, &key.0);
                let rule = LimitRule {
                    name,
                    rate: limit,
                    counting: Counting::default(),
                    tolerance: tolerance.0,
                    on_fault: on_store_fault,
                };
                Ok(Draft {
                    rule,
                    extractor,
                    notice,
                    missing,
                    dry_run,
                })
            }
            (extractor, missing) => {
                misfits.extend(extractor.err().into_iter().chain(missing.err()));
                Err(misfits)
            }
        }
    }
}

impl Draft {
    fn build(self, throttles: &Throttles) -> Result<Rule, Misfit> {
        let Self {
            rule,
            extractor,
            notice,
            missing,
            dry_run,
        } = self;
        let tally = Tally::of(&rule.name);
        let bound = METRICS
            .throttle_overshoot_bound
            .with_label_values(&[rule.name.as_str()]);
        bound.set(rule.tolerance);
        let limit = throttles.limit(rule)?;
        Ok(Rule {
            limit,
            extractor,
            missing,
            dry_run,
            notice,
            tally,
        })
    }
}

/// What is said of missing parts; where none can be missing it is never asked.
fn missing_or_moot(missing: Option<Missing>, parts: &[KeyPart]) -> Result<Missing, Misfit> {
    // A claim is refused as such already, whatever is said of it here.
    let lackable = |part: &&KeyPart| part.may_be_missing() && !matches!(part, KeyPart::Jwt(_));
    let Some(lackable) = parts.iter().find(lackable) else {
        return Ok(missing.unwrap_or(Missing::Reject));
    };
    missing.ok_or_else(|| {
        let message = format!(
            "a request may come without `{lackable}`, so say what then: `missing: skip` (this limit does not apply to \
             it), `missing: together` (all such requests share one count) or `missing: reject` (it is answered 400)"
        );
        Misfit::new(message).under("key")
    })
}

fn check_window(limit: Rate) -> Option<Misfit> {
    let fits = (WINDOW_MIN..=WINDOW_MAX).contains(&limit.window);
    let message = || format!("the window of `{limit}` must be between 100ms and 400 days");
    (!fits).then(|| Misfit::new(message()).under("limit"))
}

fn check_over(over: &OneOrMany<Over>) -> Option<Misfit> {
    let message = "the list is empty; write `reject`, or leave `over` out";
    over.0.is_empty().then(|| Misfit::new(message).under("over"))
}

fn check_prefix(ipv6_prefix: u8) -> Option<Misfit> {
    let message = || format!("an IPv6 address has {IPV6_PREFIX_MAX} bits; write 0 to {IPV6_PREFIX_MAX}");
    (ipv6_prefix > IPV6_PREFIX_MAX).then(|| Misfit::new(message()).under("ipv6_prefix"))
}

#[cfg(test)]
mod tests;
