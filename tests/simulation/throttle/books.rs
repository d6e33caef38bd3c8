//! What happened, as a bystander counts it, and what must hold of it. The first invariant that is broken ends a run.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidegate::base::clock::{Clock, Timestamp};
use tidegate::base::key::Key;
use tidegate::limiter::window::Window;
use tidegate::store::limits::{Fleet, GatewayId, KeyReply, LimitReply, LimitTurn, StoreFault};
use tidegate::store::memory::limits::MemoryLimits;
use tidegate::throttle::{Limit, OnStoreFault};
use tokio::time::Instant;

use super::client::is_quiet;
use super::network::StoreClock;
use super::scenario::{Event, Scenario};
use super::world::{Node, ROLLOUT, STORE_TIMEOUT};

/// Lines of the account that are kept.
const TRACE_MAX: usize = 4_000;

/// What sums of fractions of a call may be wrong by.
const ROUNDING: f64 = 1e-6;

/// Timers are as fine as this.
const TICK: Duration = Duration::from_millis(3);

/// A request that passed one limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission {
    pub(crate) gateway: u64,
    pub(crate) limit: usize,
    pub(crate) key: Key,
    /// The time of the fleet as the gateway knew it, and as it was.
    pub(crate) view: Timestamp,
    pub(crate) at: Timestamp,
    /// The store did not answer, and the rule decided.
    pub(crate) by_fault: bool,
}

/// What was admitted of one key in one window.
#[derive(Debug, Default, Clone, Copy)]
struct Cell {
    /// By grants and free shares.
    shared: u64,
    /// While the store did not answer.
    by_fault: u64,
}

/// What the sweep adds up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) admitted: u64,
    pub(crate) by_fault: u64,
    pub(crate) calls: u64,
    pub(crate) refused: u64,
    /// Admitted by a gateway that took the moment for one of the neighbouring window.
    pub(crate) at_edges: u64,
    pub(crate) wipes: u64,
    pub(crate) measured: u64,
    /// Least admitted of a key in demand, in thousandths of its limit: usually, and with few a window or short windows.
    pub(crate) least: u64,
    pub(crate) least_of_small: u64,
    /// Largest count of a window in which the store lost everything, in thousandths of the limit.
    pub(crate) worst_of_loss: u64,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            admitted: 0,
            by_fault: 0,
            calls: 0,
            refused: 0,
            at_edges: 0,
            wipes: 0,
            measured: 0,
            least: 1000,
            least_of_small: 1000,
            worst_of_loss: 0,
        }
    }
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Self) {
        self.admitted += other.admitted;
        self.by_fault += other.by_fault;
        self.calls += other.calls;
        self.refused += other.refused;
        self.at_edges += other.at_edges;
        self.wipes += other.wipes;
        self.measured += other.measured;
        self.least = self.least.min(other.least);
        self.least_of_small = self.least_of_small.min(other.least_of_small);
        self.worst_of_loss = self.worst_of_loss.max(other.worst_of_loss);
    }
}

/// A gateway as the books know it.
#[derive(Debug)]
struct Member {
    number: u64,
    joined: Timestamp,
    calls: HashMap<String, u64>,
    size: u64,
    cut_off_since: Option<Timestamp>,
    /// When the first request of this outage waited in vain.
    waited_since: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Books {
    scenario: Scenario,
    clock: StoreClock,
    window: Window,
    members: BTreeMap<GatewayId, Member>,
    cells: HashMap<(usize, Key, u64), Cell>,
    /// By gateway, in windows in which it was cut off throughout.
    local: HashMap<(u64, usize, Key, u64), u64>,
    /// What was admitted by fault of any key of a limit, and when that was last so.
    last_fault: Option<Timestamp>,
    /// Per cent of the limits, and since when.
    terms: Vec<(Timestamp, u64)>,
    wipes: Vec<Timestamp>,
    /// The account, while anyone wants to read it.
    trace: Option<VecDeque<String>>,
    pub(crate) figures: Figures,
    pub(crate) broken: Option<String>,
}

impl Books {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            scenario: scenario.clone(),
            clock: StoreClock(Instant::now()),
            window: Window::new(scenario.window),
            members: BTreeMap::new(),
            cells: HashMap::new(),
            local: HashMap::new(),
            last_fault: None,
            terms: vec![(Timestamp::default(), 100)],
            wipes: Vec::new(),
            trace: scenario.told.then(VecDeque::new),
            figures: Figures::default(),
            broken: None,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        let Some(trace) = &mut self.trace else { return };
        if trace.len() == TRACE_MAX {
            trace.pop_front();
        }
        trace.push_back(format!("{:9.4}  {}", self.clock.0.elapsed().as_secs_f64(), line()));
    }

    fn fail(&mut self, what: String) {
        if self.broken.is_none() {
            self.say(|| what.clone());
            self.broken = Some(what);
        }
    }

    /// The last lines of the account: of everything but keys, and of the key that something is wrong with.
    pub(crate) fn account(&self, lines: usize) -> String {
        let about = self.broken.iter().flat_map(|what| what.split("key ").nth(1)).next();
        let about = format!("key {} ", about.and_then(|rest| rest.split(' ').next()).unwrap_or("0"));
        let told = self.trace.iter().flatten();
        let told = told.filter(|line| !line.contains(" key ") || format!("{line} ").contains(&about));
        let lines = told.clone().skip(told.count().saturating_sub(lines));
        lines.map(|line| format!("{line}\n")).collect()
    }

    pub(crate) fn note_join(&mut self, gateway: GatewayId, number: u64) {
        let member = Member {
            number,
            joined: self.now(),
            calls: HashMap::new(),
            size: 1,
            cut_off_since: None,
            waited_since: None,
        };
        self.members.insert(gateway, member);
        self.say(|| format!("gateway {number} starts"));
    }

    pub(crate) fn note_event(&mut self, event: Event) {
        self.say(|| format!("{event:?}"));
        match event {
            Event::Wipe => {
                self.wipes.push(self.now());
                self.figures.wipes += 1;
            }
            Event::Reload(per_cent) => self.terms.push((self.now(), per_cent)),
            _ => {}
        }
    }

    pub(crate) fn note_fleet(&mut self, gateway: GatewayId, fleet: &Fleet) {
        if let Some(member) = self.members.get_mut(&gateway) {
            member.size = fleet.size();
        }
    }

    /// Follows who is cut off.
    pub(crate) fn look(&mut self, fleet: &[Arc<Node>]) {
        let now = self.now();
        for node in fleet {
            let cut_off = node.throttles.is_cut_off();
            let member = self.members.values_mut().find(|member| member.number == node.number);
            let Some(member) = member else { continue };
            if cut_off != member.cut_off_since.is_some() {
                member.cut_off_since = cut_off.then_some(now);
                member.waited_since = None;
                let number = node.number;
                self.say(|| format!("gateway {number} is {}", if cut_off { "cut off" } else { "back" }));
            }
        }
    }

    /// T3: how often a gateway calls, the turns included with which it probes a store that failed it.
    pub(crate) fn note_call(&mut self, turn: &LimitTurn) {
        self.figures.calls += 1;
        let now = self.now();
        let (pace, partitions) = (self.scenario.pace, u64::from(self.scenario.partitions));
        let Some(member) = self.members.get_mut(&turn.gateway) else {
            return;
        };
        let calls = member.calls.entry(turn.limit.to_string()).or_default();
        *calls += 1;
        // Its clock may be too fast; one turn of each partition is a start.
        let paces =
            now.since(member.joined).as_secs_f64() / pace.as_secs_f64() * (1.0 + self.scenario.drift as f64 / 1e6);
        let most = partitions as f64 * (paces + 1.0) + ROUNDING;
        if *calls as f64 > most {
            let broken = format!("T3: gateway {} made {calls} calls, at most {most:.1}", member.number);
            self.fail(broken);
        }
    }

    /// T1: what the store counts and keeps back, after it applied a turn.
    pub(crate) fn check_turn(
        &mut self,
        store: &MemoryLimits,
        turn: &LimitTurn,
        reply: &Result<LimitReply, StoreFault>,
    ) {
        let number = self.members.get(&turn.gateway).map_or(0, |member| member.number);
        let Ok(reply) = reply else { return };
        let limit = limit_number(turn.limit.as_str());
        let now = self.now();
        for (at, asked) in turn.keys.iter().enumerate() {
            let count = store.count(turn, asked.key);
            self.say(|| {
                format!(
                    "turn {number}#{} of limit {limit}, key {} : {} of {} -> {}; counts {count}",
                    turn.sequence,
                    asked.key.0 >> 64,
                    said(asked),
                    turn.terms.allows,
                    answered(reply.keys.get(at)),
                )
            });
            let bound = self.bound(limit, self.window.index(now), 1);
            if count as f64 > bound && !self.faulty(now) && self.loss(now).is_none() {
                self.fail(format!("T1: {} of {bound:.1} counted of {}", count, name(asked.key)));
            }
            if is_quiet(asked.key) && asked.ask > 0 && self.settled(now) {
                self.fail(format!(
                    "T3: {} is asked for, which is under half its share",
                    name(asked.key)
                ));
            }
        }
    }

    /// A rule decided, because the store did not answer. The store may be told even if another limit refuses.
    pub(crate) fn note_fault(&mut self) {
        self.last_fault = Some(self.now());
    }

    pub(crate) fn note_admission(&mut self, admission: &Admission) {
        let Admission {
            gateway, limit, key, ..
        } = *admission;
        self.say(|| {
            let how = if admission.by_fault { ", by fault" } else { "" };
            format!("gateway {gateway} admitted {} by limit {limit}{how}", name(key))
        });
        self.figures.admitted += 1;
        let index = self.window.index(admission.at);
        if admission.by_fault {
            self.figures.by_fault += 1;
        }
        if self.window.index(admission.view) != index {
            self.figures.at_edges += 1;
            return;
        }
        let cell = self.cells.entry((limit, key, index)).or_default();
        if admission.by_fault {
            cell.by_fault += 1;
        } else {
            cell.shared += 1;
        }
        self.check_cell(limit, key, index);
        self.check_local(gateway, limit, key, index);
    }

    /// T2 and T8: what was admitted in a window.
    fn check_cell(&mut self, limit: usize, key: Key, index: u64) {
        let cell = self.cells[&(limit, key, index)];
        let bound = self.bound(limit, index, 1);
        let lost = self.wipes.iter().any(|at| self.window.index(*at) == index);
        if lost {
            let share = cell.shared as f64 / bound;
            self.figures.worst_of_loss = self.figures.worst_of_loss.max((share * 1000.0) as u64);
        }
        let factor = match (lost, self.scenario.only_wipes()) {
            (false, _) => 1.0,
            (true, true) => 1.1,
            (true, false) => 2.0,
        };
        if cell.shared as f64 > bound * factor + if lost { 1.0 } else { 0.0 } {
            let what = if lost { "T8" } else { "T2" };
            self.fail(format!(
                "{what}: {cell:?} of {} in window {index} of limit {limit}, at most {bound:.1} x {factor}",
                name(key)
            ));
        }
    }

    /// T7: what a gateway admits by itself.
    fn check_local(&mut self, gateway: u64, limit: usize, key: Key, index: u64) {
        let plan = self.scenario.limits[limit];
        let Some(member) = self.members.values().find(|member| member.number == gateway) else {
            return;
        };
        let throughout = member
            .cut_off_since
            .is_some_and(|since| since <= self.window.start(index));
        if !throughout || plan.on_fault == OnStoreFault::Allow {
            return;
        }
        // It knows the fleet's time to within a round trip, so its window may be another than the one of the books.
        let askew = self.scenario.delay.as_secs_f64() * 2.0 / self.scenario.window.as_secs_f64();
        let most = (self.bound(limit, index, 1) / member.size as f64 * (1.0 + askew)).max(1.0);
        let local = self.local.entry((gateway, limit, key, index)).or_default();
        *local += 1;
        if *local as f64 > most {
            let broken = format!(
                "T7: gateway {gateway} admitted {local} of {} by itself, at most {most:.1}",
                name(key)
            );
            self.fail(broken);
        }
    }

    /// T7: how long a request waited for the store.
    pub(crate) fn note_wait(&mut self, node: &Node, set_out: Instant, waited: Duration, cut_off: bool) {
        let number = node.number;
        if waited > STORE_TIMEOUT + TICK && !self.halts() {
            self.fail(format!("T7: a request waited {waited:?} at gateway {number}"));
        }
        if cut_off && waited > Duration::ZERO && !self.halts() {
            self.fail(format!(
                "T7: a request waited {waited:?} at gateway {number}, which was cut off"
            ));
        }
        if waited < STORE_TIMEOUT {
            return;
        }
        let Some(member) = self.members.values_mut().find(|member| member.number == number) else {
            return;
        };
        let first = *member.waited_since.get_or_insert(set_out);
        if !node.throttles.is_cut_off() {
            member.waited_since = None;
        } else if set_out.duration_since(first) > STORE_TIMEOUT + TICK && !self.halts() {
            self.fail(format!(
                "T7: a request waited {waited:?} at gateway {number}, long after the first failure"
            ));
        }
    }

    /// T4: a client far under its share is not refused.
    pub(crate) fn note_refusal(&mut self, node: &Node, key: Key, limit: &Limit) {
        let now = self.now();
        self.figures.refused += 1;
        if is_quiet(key) && self.settled(now) {
            let broken = format!(
                "T4: {} was refused by {} at gateway {}",
                name(key),
                limit.rule().name,
                node.number
            );
            self.fail(broken);
        }
    }

    /// T6: with nothing broken any more, a key in demand gets its limit.
    pub(crate) fn close(&mut self, live: usize) {
        let begin = Duration::from_secs(1).max(Duration::from_secs(4).saturating_sub(self.scenario.calm_from));
        let calm = Timestamp::from_secs(1_000_000) + self.scenario.calm_from + begin + self.scenario.window * 2;
        let (first, last) = (self.window.index(calm) + 1, self.window.index(self.now()));
        let windows = last.saturating_sub(first);
        // A full table holds its keys to their shares.
        if self.broken.is_some() || windows == 0 || self.scenario.limits.len() > 1 || self.scenario.offered < 1.5 {
            return;
        }
        if self.scenario.keys + 70 > self.scenario.hot_keys && self.scenario.hot_keys < 100 {
            return;
        }
        let key = super::world::key(0);
        let cells = (first..last).map(|index| self.cells.get(&(0, key, index)).copied().unwrap_or_default());
        let admitted: u64 = cells.map(|cell| cell.shared + cell.by_fault).sum();
        let per_cent = self.terms.last().map_or(100, |(_, per_cent)| *per_cent);
        let allows = (self.scenario.limits[0].allows * per_cent / 100).max(1);
        if per_cent > 100 && self.scenario.offered * 100.0 < 1.5 * per_cent as f64 {
            return;
        }
        let gone = (self.members.len() - live) as f64 / self.members.len() as f64;
        let least = 0.9 * (1.0 - gone) * (allows * windows) as f64 - 1.0;
        self.figures.measured += 1;
        let share = admitted as f64 / (allows * windows) as f64;
        let fine =
            allows >= 20 && allows >= 5 * self.members.len() as u64 && self.scenario.window >= self.scenario.pace * 20;
        let worst = if fine {
            &mut self.figures.least
        } else {
            &mut self.figures.least_of_small
        };
        *worst = (*worst).min((share * 1000.0) as u64);
        if (admitted as f64) < least && fine {
            self.fail(format!(
                "T6: {admitted} of {} in {windows} windows, at least {least:.1}",
                allows * windows
            ));
        }
    }

    /// What a limit may count in a window and, because its counts reach back, `back` windows before.
    fn bound(&self, limit: usize, index: u64, back: u64) -> f64 {
        let plan = self.scenario.limits[limit];
        let (start, end) = (self.window.start(index - back), self.window.start(index + 1));
        // What is on its way meanwhile is counted by the terms under which it set out.
        let away = Duration::from_secs(if self.scenario.prompt() { 0 } else { 8 });
        let ends = self
            .terms
            .iter()
            .skip(1)
            .map(|(from, _)| *from + ROLLOUT + TICK * 20 + away);
        let spans = self.terms.iter().zip(ends.chain([Timestamp::from_micros(u64::MAX)]));
        let there = spans.filter(|((from, _), until)| *from < end && *until >= start);
        let most = there
            .map(|((_, per_cent), _)| (plan.allows * per_cent / 100).max(1))
            .max();
        most.unwrap_or(plan.allows) as f64 * (1.0 + plan.tolerance)
    }

    /// Whether something was admitted by fault so lately that the store may have been told just now.
    fn faulty(&self, now: Timestamp) -> bool {
        let told = self.scenario.window * 2 + Duration::from_secs(10);
        self.last_fault.is_some_and(|last| now.since(last) < told)
    }

    /// When the store lost what still counts.
    fn loss(&self, now: Timestamp) -> Option<Timestamp> {
        let last = self.wipes.last().copied()?;
        (self.window.index(last) + 1 >= self.window.index(now)).then_some(last)
    }

    /// Whether every gateway has had its shares for two windows. Clients that stay under them begin after that.
    pub(crate) fn settled(&self, now: Timestamp) -> bool {
        let founded = Duration::from_secs(5) + self.scenario.window * 2;
        self.scenario.unbroken() && self.clock.0.elapsed() > founded && !self.faulty(now)
    }

    /// Whether gateways are stopped, so that waits say nothing.
    fn halts(&self) -> bool {
        !self.scenario.only(|event| !matches!(event, Event::Halt(..)))
    }
}

fn limit_number(name: &str) -> usize {
    name.trim_start_matches("limit-").parse().unwrap_or(0)
}

fn name(key: Key) -> String {
    format!("key {}", key.0 >> 64)
}

fn answered(answer: Option<&KeyReply>) -> String {
    answer.map_or("nothing".to_owned(), |answer| {
        format!("{}, leaves {}, {:?}", answer.granted, answer.remaining, answer.standing)
    })
}

fn said(asked: &tidegate::store::limits::KeyTurn) -> String {
    let mut said = Vec::new();
    if let Some(report) = asked.report {
        said.push(format!("used {}+{}", report.prev, report.cur));
    }
    if asked.overdraft > 0 {
        said.push(format!("ahead {}", asked.overdraft));
    }
    if let Some((index, unspent)) = asked.give_back {
        said.push(format!("back {unspent} of {index}"));
    }
    said.push(format!("asks {}", asked.ask));
    said.join(", ")
}
