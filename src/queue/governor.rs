//! Measured admission: how fast a room may call, by how the service behind it bears what came of earlier calls.
//!
//! What 'well' means is read as TCP Vegas (Brakmo and Peterson 1995) and the gradient limiters of Netflix and Envoy read
//! it: latency against the service's own baseline, so nobody has to know what is usual. The fall is as deep as the
//! latency is too high. Between well and unwell lies a band in which the rate stays: without it every rate would be left
//! as soon as it is found.
//!
//! Unlike a connection's window, a rate of calls shows its effect late: visitors stay, so what they ask of the service
//! follows the rate by the length of a visit, which nobody knows. Hence the rise is slow, a hundredth a second, and
//! after trouble it is fast only up to half of the rate at which the trouble began, as TCP's slow start is up to its
//! threshold. A rise through the whole range in a minute had the load of simulated services swing between a third and
//! four thirds of what they bear; this keeps it between a half and all of it.
//!
//! Silence is no proof of health. Who has seen too few requests says nothing, and where nobody says anything the rate
//! is the lowest one.
//!
//! Not decided here: what a latency or a failure is (`upstream/`), and which gateway's word counts ([`proposals`]).
//!
//! [`proposals`]: super::proposals

use std::num::NonZeroU64;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::rate::Rate;

/// A judgement is made so often at most: often enough to fall within seconds, seldom enough to see what came of the
/// last one.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// Requests that are enough for a judgement at once.
const REQUESTS_ENOUGH: u64 = 20;

/// Fewer requests than that are judged after so long, if there were a few.
const EVIDENCE_WITHIN: Duration = Duration::from_secs(5);

/// So few are not judged at all.
const REQUESTS_MIN: u64 = 5;

/// What was seen is averaged over some such time: a single slow answer is none of the room's business.
const MEMORY: Duration = Duration::from_secs(3);

/// So many requests weigh as much as all that was seen before them: few are believed less, however long they took to
/// gather.
const REQUESTS_HALF: f64 = 50.0;

/// The baseline is the mean of so many first requests; only then is it one that later ones are held against.
const REQUESTS_KNOWN: u64 = 1_000;

/// The baseline follows a service that became faster within such a time,
const BASELINE_FALLS_IN: Duration = Duration::from_secs(10);

/// and one that became slower only within such a time. While the latency is too high it does not follow at all, unless
/// the rate is the lowest already: an overload must not become what is usual.
const BASELINE_RISES_IN: Duration = Duration::from_secs(1_800);

/// Up to so many times its baseline the latency is well.
const WELL_UP_TO: f64 = 1.3;

/// From so many times its baseline on it is too high.
const SLOW_FROM: f64 = 1.6;

/// It is not too high while it is only so much above its baseline: what a fast service's scheduler does is no overload.
const SLOW_BY_MIN: Duration = Duration::from_millis(2);

/// Up to such a share of failures the service is well.
const FAILURES_WELL: f64 = 0.02;

/// From such a share on it fails.
const FAILURES_MAX: f64 = 0.05;

/// Up to such a share of its places in flight the service is well.
const BUSY_WELL: f64 = 0.8;

/// The deepest fall at once.
const FALL_MAX: f64 = 0.5;

/// The fall of a service that fails, and the least of one that is slow.
const FALL: f64 = 0.75;

/// After a fall nothing is changed for so long: visitors who were called before it still come.
const CALM_AFTER_FALL: Duration = Duration::from_secs(10);

/// A rate in force that is below such a part of what it was has been lowered by somebody else.
const OTHERS_FALL: f64 = 0.95;

/// The rate rises by such a share in a second: it doubles in 70.
const RISE: f64 = 0.01;

/// It rises by such a share while it is well below where trouble began: it doubles in 7 seconds,
const RECOVERY: f64 = 0.1;

/// which is up to such a part of that rate.
const RECOVERY_UP_TO: f64 = 0.5;

/// A rate is spelled by the smallest of these windows in which it has so many calls that one more is a small step.
const WINDOWS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(60),
    Duration::from_secs(3_600),
    Duration::from_secs(86_400),
];
const COUNT_MIN: f64 = 1_000.0;

/// Between which rates, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The lowest rate, at which the room begins.
    pub min: Rate,
    /// The highest.
    pub max: Rate,
    /// Whether latency counts.
    pub by_latency: bool,
    /// Whether failures count.
    pub by_errors: bool,
}

/// What was seen of the service since it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    /// Requests that ended, well or not.
    pub requests: u64,
    /// Of these, those that failed: no answer, an answer too late, a server's error, or no place in flight.
    pub failures: u64,
    /// Sum of the natural logarithms of the latencies, in microseconds, of those that did not fail.
    pub log_latency: f64,
    /// The share of places in flight that is taken, from 0 to 1; 0 where there is no bound.
    pub busy: f64,
}

impl Sample {
    fn add(&mut self, more: Self) {
        self.requests += more.requests;
        self.failures += more.failures;
        self.log_latency += more.log_latency;
        self.busy = self.busy.max(more.busy);
    }
}

/// Why a rate was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The service is well, and somebody waits.
    Well,
    /// Nobody waits: the rate is not tried, so nothing speaks for a higher one.
    Untried,
    /// It is neither well nor too slow, or its places in flight are nearly all taken.
    Strained,
    /// After a fall: what it does is not seen yet.
    Calm,
    /// Its latency is too high.
    Slow,
    /// It fails too often.
    Failing,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Well,
        Self::Untried,
        Self::Strained,
        Self::Calm,
        Self::Slow,
        Self::Failing,
    ];

    /// As a metric label and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Untried => "untried",
            Self::Strained => "strained",
            Self::Calm => "calm",
            Self::Slow => "slow",
            Self::Failing => "failing",
        }
    }
}

/// What a gateway thinks the rate should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    /// Within the range.
    pub rate: Rate,
    /// Why.
    pub reason: Reason,
}

/// What one gateway knows of the service's health.
#[derive(Debug, Clone, Default)]
pub struct Governor {
    pending: Sample,
    judged: Option<Timestamp>,
    /// Natural logarithms of microseconds.
    latency: Option<f64>,
    baseline: f64,
    /// Requests that the baseline is made of, up to [`REQUESTS_KNOWN`].
    known: u64,
    failures: f64,
    calm_until: Timestamp,
    /// The rate per second in force at the last judgement.
    before: Option<f64>,
    /// The rate per second at which the last trouble began.
    knee: Option<f64>,
    is_troubled: bool,
}

impl Governor {
    /// Takes in what was seen since the last call, and proposes a rate where there is enough of it. `in_force` is
    /// the rate that the room calls at now, and `waits` whether somebody waits for a call.
    pub fn judge(
        &mut self,
        range: &Range,
        sample: Sample,
        (in_force, waits): (Rate, bool),
        now: Timestamp,
    ) -> Option<Proposal> {
        self.pending.add(sample);
        let since = now.since(*self.judged.get_or_insert(now));
        let enough = match self.pending.requests {
            0..REQUESTS_MIN => false,
            REQUESTS_MIN..REQUESTS_ENOUGH => since >= EVIDENCE_WITHIN,
            _ => since >= JUDGE_EVERY,
        };
        if !enough {
            if since >= EVIDENCE_WITHIN {
                self.start_over(now);
            }
            return None;
        }
        let sample = self.pending;
        self.start_over(now);
        self.heed_others(in_force.per_second(), now);
        let is_lowest = in_force.per_second() <= range.min.per_second();
        self.remember(sample, since, is_lowest);
        let reason = self.reason(range, sample.busy, waits, now);
        if matches!(reason, Reason::Slow | Reason::Failing) {
            self.fell(in_force.per_second(), now);
        } else if matches!(reason, Reason::Well | Reason::Untried) {
            self.is_troubled = false;
        }
        let rate = self.rate(range, in_force, reason, since);
        Some(Proposal { rate, reason })
    }

    /// The latency in microseconds, as averaged, and its baseline; none before the first judgement.
    pub fn latency(&self) -> Option<(f64, f64)> {
        self.latency.map(|latency| (latency.exp(), self.baseline.exp()))
    }

    fn start_over(&mut self, now: Timestamp) {
        self.pending = Sample::default();
        self.judged = Some(now);
    }

    /// Another gateway saw the trouble first: its fall is enough. Were everyone to add one of their own, sixteen
    /// gateways that see the same would take the rate to a hundredth.
    fn heed_others(&mut self, in_force: f64, now: Timestamp) {
        let before = self.before.replace(in_force);
        if let Some(before) = before.filter(|before| in_force < OTHERS_FALL * before && now >= self.calm_until) {
            self.fell(before, now);
        }
    }

    /// Trouble begins with a fall, and ends when all is well again.
    fn fell(&mut self, from: f64, now: Timestamp) {
        self.calm_until = now + CALM_AFTER_FALL;
        if !self.is_troubled {
            self.knee = Some(from);
        }
        self.is_troubled = true;
    }

    fn remember(&mut self, sample: Sample, since: Duration, is_lowest: bool) {
        let requests = sample.requests as f64;
        let recent = weight(since, MEMORY).min(requests / (requests + REQUESTS_HALF));
        self.failures += recent * (sample.failures as f64 / requests - self.failures);
        let answered = sample.requests.saturating_sub(sample.failures);
        if answered == 0 {
            return;
        }
        let seen = sample.log_latency / answered as f64;
        let before = self.latency.unwrap_or(seen);
        let latency = before + recent * (seen - before);
        self.latency = Some(latency);
        if self.known < REQUESTS_KNOWN {
            self.known += answered;
            self.baseline += answered as f64 / self.known as f64 * (seen - self.baseline);
        } else if latency < self.baseline {
            self.baseline += weight(since, BASELINE_FALLS_IN) * (latency - self.baseline);
        } else if is_lowest || self.slowness() < SLOW_FROM {
            self.baseline += weight(since, BASELINE_RISES_IN) * (latency - self.baseline);
        }
    }

    fn reason(&self, range: &Range, busy: f64, waits: bool, now: Timestamp) -> Reason {
        let slowness = if range.by_latency { self.slowness() } else { 1.0 };
        let failures = if range.by_errors { self.failures } else { 0.0 };
        if now < self.calm_until {
            Reason::Calm
        } else if failures >= FAILURES_MAX {
            Reason::Failing
        } else if slowness >= SLOW_FROM {
            Reason::Slow
        } else if slowness > WELL_UP_TO || failures > FAILURES_WELL || busy > BUSY_WELL {
            Reason::Strained
        } else if waits {
            Reason::Well
        } else {
            Reason::Untried
        }
    }

    /// How many times its baseline the latency is.
    fn slowness(&self) -> f64 {
        match self.latency() {
            Some((latency, baseline)) if latency - baseline >= SLOW_BY_MIN.as_micros() as f64 => latency / baseline,
            _ => 1.0,
        }
    }

    fn rate(&self, range: &Range, in_force: Rate, reason: Reason, since: Duration) -> Rate {
        let now = in_force.per_second();
        match reason {
            Reason::Well => {
                let recovers = self.knee.is_some_and(|knee| now < RECOVERY_UP_TO * knee);
                let share = if recovers { RECOVERY } else { RISE };
                spelled(range, now * (1.0 + share).powf(since.as_secs_f64()), f64::ceil)
            }
            Reason::Slow => {
                let fall = (WELL_UP_TO / self.slowness()).clamp(FALL_MAX, FALL);
                spelled(range, now * fall, f64::floor)
            }
            Reason::Failing => spelled(range, now * FALL, f64::floor),
            Reason::Untried | Reason::Strained | Reason::Calm => within(range, in_force),
        }
    }
}

/// How much of a change is taken over after `since`, by an exponential memory of some such length.
fn weight(since: Duration, memory: Duration) -> f64 {
    1.0 - (-since.as_secs_f64() / memory.as_secs_f64()).exp()
}

fn within(range: &Range, rate: Rate) -> Rate {
    if rate.per_second() <= range.min.per_second() {
        range.min
    } else if rate.per_second() >= range.max.per_second() {
        range.max
    } else {
        rate
    }
}

/// A rate as an operator might write it, within the range. A rise is rounded up, or it might be none.
fn spelled(range: &Range, per_second: f64, round: fn(f64) -> f64) -> Rate {
    let calls = |window: &Duration| per_second * window.as_secs_f64();
    let window = WINDOWS.into_iter().find(|window| calls(window) >= COUNT_MIN);
    let window = window.unwrap_or(WINDOWS[WINDOWS.len() - 1]);
    let count = NonZeroU64::new(round(calls(&window)) as u64).unwrap_or(NonZeroU64::MIN);
    within(range, Rate { count, window })
}

#[cfg(test)]
mod tests;
