//! From what was written to what runs: the one border between raw rules and a plan. A set of files becomes a plan
//! whole, or not at all; nothing that runs is touched before every part has been built, and somebody says that it may.

mod parts;
mod prepared;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::prepared::Drafted;
pub use self::prepared::Prepared;
use super::document::Document;
use super::fault::{FAULTS_MAX, Fault, Faults};
use super::load::RuleFile;
use super::raw as rules;
use crate::base::clock::{Clock, SystemClock};
use crate::base::misfit::{Misfit, Step};
use crate::base::name::Name;
use crate::base::secret::Keyring;
use crate::plan::{Plan, Route};
use crate::plugins::{ChainStep, Env, Plugin};
use crate::room::Room;
use crate::room::page::Page;
use crate::room::registry::{Reload, Rooms};
use crate::routing::table::{Clash, Match, Table};
use crate::store::memory::limits::MemoryLimits;
use crate::store::memory::rooms::MemoryRooms;
use crate::telemetry::metrics::METRICS;
use crate::telemetry::route_meter::RouteMeter;
use crate::throttle::{self, Throttles};
use crate::upstream::{Upstream, Upstreams};

/// Compiles plans, one after the other, on what outlives them.
#[derive(Debug)]
pub struct Compiler {
    throttles: Arc<Throttles>,
    rooms: Arc<Rooms>,
    upstreams: Arc<Upstreams>,
    queue_prefix: String,
    generation: AtomicU64,
}

/// A route whose parts are built and whose upstream is not yet.
struct Draft {
    name: Name,
    matches: Match,
    chain: Vec<Box<dyn Plugin>>,
    upstream: Option<Name>,
    /// The file and the path of its match, for a clash with another.
    place: (usize, Vec<Step>),
}

impl Compiler {
    /// A compiler that has not made a plan yet. `queue_prefix` is where the waiting page finds the queue API.
    pub fn new(throttles: Arc<Throttles>, rooms: Arc<Rooms>, upstreams: Arc<Upstreams>, queue_prefix: &str) -> Self {
        let queue_prefix = queue_prefix.to_owned();
        Self {
            throttles,
            rooms,
            upstreams,
            queue_prefix,
            generation: AtomicU64::new(0),
        }
    }

    /// A compiler whose plans nobody runs, to find out what is wrong with rules.
    pub fn rehearsal() -> Self {
        let clock: Arc<dyn Clock> = SystemClock::start();
        let settings = throttle::Settings {
            hot_keys: 1,
            cold_slots: 1_024,
            partitions: 1,
            ..throttle::Settings::default()
        };
        let limits = Arc::new(MemoryLimits::new(Arc::clone(&clock)));
        let rooms = Arc::new(MemoryRooms::new(Arc::clone(&clock)));
        Self::new(
            Throttles::new(settings, limits, Arc::clone(&clock)),
            Rooms::new(rooms, clock, Arc::new(Keyring::random())),
            Arc::default(),
            "",
        )
    }

    /// The upstreams of all plans.
    pub fn upstreams(&self) -> &Arc<Upstreams> {
        &self.upstreams
    }

    /// Makes a plan of loaded rules, of which nothing is in force yet. To be called from one place at a time: a plan in
    /// the making that is overtaken by another loses its limits.
    ///
    /// # Errors
    /// Every fault that only shows when parts are built.
    pub fn prepare(&self, files: Vec<RuleFile>) -> Result<Prepared, Faults> {
        self.attempt(files, Vec::new())
    }

    /// Puts the limits and the rooms of a plan into force, and ends those that it does not name: requests should come
    /// under it from this moment on.
    pub fn commit(&self, prepared: Prepared) -> Plan {
        let routes = prepared.commit();
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        METRICS.plan_generation.set(generation as i64);
        Plan { generation, routes }
    }

    /// The faults `known` of rules, and those that show when what could be decoded of them is built. Nothing comes into
    /// force, and no second fault is told of one value: its first may be why.
    pub fn faults(&self, files: Vec<RuleFile>, known: Faults) -> Faults {
        if known.count() == FAULTS_MAX {
            return known;
        }
        let all = self.attempt(files, known.iter().cloned().collect());
        all.err().unwrap_or(known)
    }

    fn attempt(&self, files: Vec<RuleFile>, known: Vec<Fault>) -> Result<Prepared, Faults> {
        let told: HashSet<_> = known
            .iter()
            .map(|fault| (fault.file.clone(), fault.path.clone()))
            .collect();
        let mut faults = Vec::new();
        let limits = Drafted::begin(&self.throttles);
        let mut reload = self.rooms.begin();
        let rooms = self.rooms(&files, &mut reload, &mut faults);
        let upstreams = parts::upstreams(&files);
        let (documents, drafts) = self.drafts(files, &rooms, &mut faults);
        faults.retain(|fault| !told.contains(&(fault.file.clone(), fault.path.clone())));
        faults.extend(known);
        let clash = |clash: Clash, places: &[(Name, (usize, Vec<Step>))]| {
            let (first, (file, path)) = (&places[clash.first].0, &places[clash.second].1);
            let message = format!("route `{first}` takes the same requests: {clash}");
            documents[*file].fault(path, &Misfit::new(message))
        };
        let routes = self.assemble(drafts, &upstreams, clash, &mut faults);
        match (Faults::of(faults), routes) {
            (None, Some(routes)) => Ok(Prepared::new(routes, reload, limits)),
            (Some(faults), _) => Err(faults),
            (None, None) => unreachable!("a table that is not built has clashes"),
        }
    }

    /// The routes of all files, as far as they can be built.
    fn drafts(
        &self,
        files: Vec<RuleFile>,
        rooms: &HashMap<Name, Arc<Room>>,
        faults: &mut Vec<Fault>,
    ) -> (Vec<Document>, Vec<Draft>) {
        let (mut documents, mut drafts) = (Vec::new(), Vec::new());
        for (file, RuleFile { document, rules }) in files.into_iter().enumerate() {
            let places = document.indices(&[Step::from("routes")]);
            for (index, route) in places.into_iter().zip(rules.routes) {
                let path = [Step::from("routes"), Step::from(index)];
                let (draft, misfits) = self.draft(route, rooms, (&document, file, &path));
                drafts.extend(draft);
                faults.extend(misfits.iter().map(|misfit| document.fault(&path, misfit)));
            }
            documents.push(document);
        }
        (documents, drafts)
    }

    /// A room that cannot be built, or not even be decoded, is stood in for: that it exists is no fault of a route.
    fn rooms(&self, files: &[RuleFile], reload: &mut Reload, faults: &mut Vec<Fault>) -> HashMap<Name, Arc<Room>> {
        let mut rooms = HashMap::new();
        for file in files {
            for (name, written) in &file.rules.rooms {
                let path = [Step::from("rooms"), Step::from(name.as_str())];
                let rule = parts::room(name, written, |upstream| self.upstreams.watch(upstream));
                let rule = rule.map_err(|misfit| file.document.fault(&path, &misfit));
                let page = parts::page(&file.document, &path, written, &self.queue_prefix);
                // A faulty page is no reason to tell every route that there is no such room.
                let page = page.unwrap_or_else(|fault| {
                    faults.push(fault);
                    Page::builtin()
                });
                match rule {
                    Ok(rule) => drop(rooms.insert(name.clone(), reload.room(rule, page))),
                    Err(fault) => faults.push(fault),
                }
            }
        }
        for file in files {
            for name in file
                .document
                .keys(&[Step::from("rooms")])
                .filter_map(|key| key.parse::<Name>().ok())
            {
                let stand_in = || reload.room(parts::stand_in(&name), Page::builtin());
                rooms.entry(name.clone()).or_insert_with(stand_in);
            }
        }
        rooms
    }

    /// A route as far as it can be built, and what is wrong with it. None where it is not known what the route takes:
    /// then nothing can be said of other routes that take the same.
    fn draft(
        &self,
        route: rules::Route,
        rooms: &HashMap<Name, Arc<Room>>,
        (document, file, path): (&Document, usize, &[Step]),
    ) -> (Option<Draft>, Vec<Misfit>) {
        let rules::Route {
            name,
            matches,
            chain: written,
            upstream,
        } = route;
        let (chain, mut misfits) = self.chain(written, rooms, (document, path));
        let place = [path, &[Step::from("match")]].concat();
        let is_known = document.is_whole(path) && document.is_whole_below(&place);
        let draft = match parts::matches(matches) {
            Ok(matches) => is_known.then_some(Draft {
                name,
                matches,
                chain,
                upstream,
                place: (file, place),
            }),
            Err(found) => {
                misfits.extend(found.into_iter().map(|misfit| misfit.under("match")));
                None
            }
        };
        (draft, misfits)
    }

    /// The steps that can be built, and what is wrong with the others. One that lacks a part of what was written is left
    /// alone: it would miss what is there.
    fn chain(
        &self,
        written: Vec<ChainStep>,
        rooms: &HashMap<Name, Arc<Room>>,
        (document, path): (&Document, &[Step]),
    ) -> (Vec<Box<dyn Plugin>>, Vec<Misfit>) {
        let (mut steps, mut misfits) = (Vec::new(), Vec::new());
        let path = [path, &[Step::from("chain")]].concat();
        for (index, step) in document.indices(&path).into_iter().zip(written) {
            let name = step.name();
            let env = Env {
                throttles: &self.throttles,
                rooms,
            };
            if document.is_whole_below(&[path.as_slice(), &[Step::from(index)]].concat()) {
                match step.build(&env) {
                    Ok(step) => steps.push(step),
                    Err(found) => {
                        let placed = |misfit: Misfit| misfit.under(name).under(index).under("chain");
                        misfits.extend(found.into_iter().map(placed));
                    }
                }
            }
        }
        (steps, misfits)
    }

    /// Nothing can fail any more but two routes taking the same requests. Counters and servers are had last: what is
    /// refused is neither shown nor asked for.
    fn assemble(
        &self,
        drafts: Vec<Draft>,
        upstreams: &HashMap<Name, crate::upstream::Rule>,
        clash: impl Fn(Clash, &[(Name, (usize, Vec<Step>))]) -> Fault,
        faults: &mut Vec<Fault>,
    ) -> Option<Table<Arc<Route>>> {
        let places: Vec<_> = drafts
            .iter()
            .map(|draft| (draft.name.clone(), draft.place.clone()))
            .collect();
        let entries = drafts
            .into_iter()
            .map(|mut draft| (std::mem::take(&mut draft.matches), draft));
        let table = match Table::build(entries.collect()) {
            Ok(table) => table,
            Err(clashes) => {
                faults.extend(clashes.into_iter().map(|found| clash(found, &places)));
                return None;
            }
        };
        let mut built: HashMap<Name, Arc<Upstream>> = HashMap::new();
        let route = |draft: Draft| {
            let upstream = draft.upstream.and_then(|name| {
                let rule = upstreams.get(&name)?;
                let shared = built
                    .entry(name)
                    .or_insert_with(|| Arc::new(self.upstreams.build(rule.clone())));
                Some(Arc::clone(shared))
            });
            Arc::new(Route {
                meter: RouteMeter::new(draft.name.as_str()),
                name: draft.name,
                chain: draft.chain,
                upstream,
            })
        };
        faults.is_empty().then(|| table.map(route))
    }
}

#[cfg(test)]
mod tests;
