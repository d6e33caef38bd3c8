//! Limits as operators write them, and the way from there to what runs.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::{Notice, policy};
use super::cost::Cost;
use super::counting::{Algorithm, CalendarConfig, Written};
use super::over::{Ladder, Over};
use super::{LIMITS_MAX, RateLimit, Rule};
use crate::base::client_ip::{CLIENT_PREFIX_V6, Networks};
use crate::base::key::{KeyExtractor, KeyPart, KeySeed, KeySpec};
use crate::base::misfit::Misfit;
use crate::base::name::Name;
use crate::base::one_or_many::OneOrMany;
use crate::base::rate::{Quota, Rate};
use crate::base::unit::Percent;
use crate::plugins::Env;
use crate::throttle::{LimitRule, OnStoreFault};

/// One limit, or a list of up to 8 that a request must all pass; a request that one refuses costs the others nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Config(OneOrMany<LimitConfig>);

/// So many requests in so long, for each key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitConfig {
    /// Its name in metrics and headers. Limits of one name are one limit, on whatever routes they stand.
    pub name: Name,
    /// What it counts by: `client_ip`, `route`, `host`, `path`, `{ header: x-client }`, `{ cookie: session }`,
    /// `{ query: api_key }`, or a list of these that count together.
    pub key: KeySpec,
    /// How many requests of one key, in how long: `100/s`, `100/min`, `1000/h`, `5/day`, `20/5s`; with `calendar` also
    /// `1000/month`. The window is between 100ms and 400 days. With `cost: response_bytes`, how many bytes: `10MiB/s`.
    pub limit: Quota,
    /// What a request costs: a whole number, `{ header: x-cost }` (what that header of the request says, 1 to 1000000;
    /// what is missing or no number counts as 1), or `response_bytes` (the bytes of the answer's body, charged when it
    /// is done: answers under way together may overrun the limit; with `algorithm: token_bucket` what follows waits until
    /// all of that is made up for, with windows it costs two of them at most). Default: 1.
    #[serde(default)]
    pub cost: Cost,
    /// The largest overshoot that the limit may show, as a share of it: `5%` lets up to 105 of 100 through where that
    /// saves a wait for the store. Default: 0, exact.
    #[serde(default)]
    pub tolerance: Percent,
    /// How it counts. Default: sliding_window.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// How many may come at once, for `algorithm: token_bucket`; how many may wait, for `leaky_bucket`. Default: the
    /// limit's count.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub burst: Option<u64>,
    /// How many slices the window is cut into, for `algorithm: sliding_window`: 2 to 64. No trailing window then gets
    /// more than the limit, and up to one part in so many less. Default: two counters, which an even load meets
    /// exactly.
    #[schemars(range(min = 2, max = 64))]
    pub slices: Option<u64>,
    /// Whose days or months the windows are, for `sliding_window` and `fixed_window` with a limit by `/day` or
    /// `/month`. Default: days of 24 hours that begin at midnight UTC.
    pub calendar: Option<CalendarConfig>,
    /// What a request over the limit gets: `reject` (429), `{ delay: 2s }` (it is held until there is budget, so long
    /// at most), `{ room: NAME }` (it is handed to this waiting room), or a list of these, tried in order. What is left
    /// over is rejected. Default: reject.
    #[serde(default = "reject")]
    pub over: OneOrMany<Over>,
    /// What it does while the store does not answer. Default: local.
    #[serde(default)]
    pub on_store_fault: OnStoreFault,
    /// Whether it only counts and shows in the metrics what it would have refused. Default: false.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether answers tell clients what the limit is and what is left, in four headers, which are most of what a
    /// limit costs a request that it allows. Without, a 429 says when to come back and nothing of the limit. Default: true.
    #[serde(default = "headers")]
    pub headers: bool,
    /// What becomes of a request that lacks a part of the key. Must be written where a request may: for headers,
    /// cookies, queries and claims.
    pub missing: Option<Missing>,
    /// Addresses and networks of clients that the limit does not apply to, as `[10.0.0.0/8, 2001:db8::/32]`. Default:
    /// none.
    #[serde(default)]
    pub except: OneOrMany<String>,
    /// How many leading bits of an IPv6 address are one client, 0 to 128. Default: 64.
    #[serde(default = "ipv6_prefix")]
    #[schemars(range(min = 0, max = 128))]
    pub ipv6_prefix: u8,
}

/// What becomes of a request that lacks a part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Missing {
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
    CLIENT_PREFIX_V6
}

const fn headers() -> bool {
    true
}

impl Config {
    pub(in crate::plugins) fn build(self, env: &Env<'_>) -> Result<RateLimit, Vec<Misfit>> {
        let drafts = self.drafts(&env.throttles.key_seed())?;
        let rules = drafts.into_iter().enumerate().map(|(index, draft)| {
            let rule = draft.build(env);
            rule.map_err(|misfit| misfit.under(index))
        });
        let rules = collect(rules)?;
        let shown = rules.iter().filter(|rule| rule.announced);
        let policy = policy(shown.map(|rule| (&rule.limit.rule().name, rule.notice.told)));
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
    cost: Cost,
    notice: Notice,
    missing: Missing,
    except: Networks,
    over: Ladder<Name>,
    dry_run: bool,
    announced: bool,
}

impl LimitConfig {
    fn draft(self, seed: &KeySeed) -> Result<Draft, Vec<Misfit>> {
        let Self {
            name,
            key,
            limit,
            cost,
            tolerance,
            algorithm,
            burst,
            slices,
            calendar,
            over,
            on_store_fault,
            dry_run,
            headers,
            missing,
            except,
            ipv6_prefix,
        } = self;
        let written = Written {
            algorithm,
            burst,
            slices,
            calendar,
            debits: cost == Cost::ResponseBytes,
        };
        let counting = written.build(limit);
        let extractor = KeyExtractor::new(&key.0, ipv6_prefix, seed).map_err(|misfit| misfit.under("key"));
        let missing = missing_or_moot(missing, &key.0);
        let except = excepted(&except);
        let over = Ladder::draft(&over.0).and_then(|ladder| ladder.leaking(written.patience(limit)));
        let faults = [
            check_window(limit.rate),
            cost.check(limit, burst),
            cost.check_bucket(algorithm, burst),
            check_prefix(ipv6_prefix),
        ];
        let mut misfits: Vec<Misfit> = faults.into_iter().flatten().collect();
        match (extractor, missing, over, counting, except) {
            (Ok(extractor), Ok(missing), Ok(over), Ok(counting), Ok(except)) if misfits.is_empty() => {
                let announced = headers && !dry_run;
                let notice = Notice::new(&name, limit.rate, &key.0, announced);
                let notice = notice.telling(written.told(limit), algorithm == Algorithm::LeakyBucket);
                Ok(Draft {
                    rule: LimitRule {
                        name,
                        rate: limit.rate,
                        counting,
                        tolerance: tolerance.0,
                        on_fault: on_store_fault,
                    },
                    extractor,
                    cost,
                    notice,
                    missing,
                    except,
                    over,
                    dry_run,
                    announced,
                })
            }
            (extractor, missing, over, counting, except) => {
                misfits.extend(extractor.err().into_iter().chain(missing.err()));
                let lists = [counting.err(), over.err(), except.err()];
                misfits.extend(lists.into_iter().flatten().flatten());
                Err(misfits)
            }
        }
    }
}

impl Draft {
    fn build(self, env: &Env<'_>) -> Result<Rule, Misfit> {
        let Self {
            rule,
            extractor,
            cost,
            notice,
            missing,
            except,
            over,
            dry_run,
            announced,
        } = self;
        let over = over.build(env.rooms)?;
        let limit = env.throttles.limit(rule)?;
        Ok(Rule {
            limit,
            extractor,
            cost,
            missing,
            except,
            over,
            dry_run,
            announced,
            notice,
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

fn excepted(written: &OneOrMany<String>) -> Result<Networks, Vec<Misfit>> {
    let under = |misfits: Vec<Misfit>| misfits.into_iter().map(|misfit| misfit.under("except")).collect();
    Networks::read(&written.0).map_err(under)
}

fn check_window(limit: Rate) -> Option<Misfit> {
    let fits = (WINDOW_MIN..=WINDOW_MAX).contains(&limit.window);
    let message = || format!("the window of `{limit}` must be between 100ms and 400 days");
    (!fits).then(|| Misfit::new(message()).under("limit"))
}

fn check_prefix(ipv6_prefix: u8) -> Option<Misfit> {
    let message = || format!("an IPv6 address has {IPV6_PREFIX_MAX} bits; write 0 to {IPV6_PREFIX_MAX}");
    (ipv6_prefix > IPV6_PREFIX_MAX).then(|| Misfit::new(message()).under("ipv6_prefix"))
}

#[cfg(test)]
mod tests;
