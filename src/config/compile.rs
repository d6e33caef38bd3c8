//! From what was written to what runs: the one border between raw rules and a plan. A set of files becomes a plan
//! whole, or not at all; nothing that runs is touched before every part has been built.

mod parts;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fault::{Fault, Faults};
use super::load::RuleFile;
use super::raw as rules;
use crate::base::misfit::{Misfit, Step};
use crate::base::name::Name;
use crate::plan::{Plan, Route};
use crate::plugins::{Env, Plugin};
use crate::room::Room;
use crate::room::page::Page;
use crate::room::registry::{Reload, Rooms};
use crate::routing::table::{Clash, Match, Table};
use crate::telemetry::metrics::METRICS;
use crate::telemetry::route_meter::RouteMeter;
use crate::throttle::Throttles;
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

    /// The upstreams of all plans.
    pub fn upstreams(&self) -> &Arc<Upstreams> {
        &self.upstreams
    }

    /// Makes a plan of loaded rules and puts their limits and rooms into force. To be called from one place at a
    /// time: a compilation that is overtaken by another loses its limits.
    ///
    /// # Errors
    /// Every fault that only shows when parts are built. Then everything stays as it was.
    pub fn compile(&self, files: Vec<RuleFile>) -> Result<Plan, Faults> {
        let mut faults = Vec::new();
        self.throttles.begin_plan();
        let mut reload = self.rooms.begin();
        let rooms = self.rooms(&files, &mut reload, &mut faults);
        let upstreams = parts::upstreams(&files);
        let (documents, written): (Vec<_>, Vec<_>) =
            files.into_iter().map(|file| (file.document, file.rules.routes)).unzip();
        let mut drafts = Vec::new();
        for (file, routes) in written.into_iter().enumerate() {
            for (index, route) in routes.into_iter().enumerate() {
                let path = [Step::from("routes"), Step::from(index)];
                match self.draft(route, &rooms, (file, &path)) {
                    Ok(draft) => drafts.push(draft),
                    Err(misfits) => faults.extend(misfits.iter().map(|misfit| documents[file].fault(&path, misfit))),
                }
            }
        }
        let clash = |clash: Clash, places: &[(Name, (usize, Vec<Step>))]| {
            let (first, (file, path)) = (&places[clash.first].0, &places[clash.second].1);
            let message = format!("route `{first}` takes the same requests: {clash}");
            documents[*file].fault(path, &Misfit::new(message))
        };
        let plan = self.assemble(drafts, &upstreams, clash, &mut faults);
        match (Faults::of(faults), plan) {
            (None, Some(plan)) => {
                reload.commit();
                self.throttles.commit_plan();
                METRICS.plan_generation.set(plan.generation as i64);
                Ok(plan)
            }
            (Some(faults), _) => {
                self.throttles.abandon_plan();
                Err(faults)
            }
            (None, None) => unreachable!("a table that is not built has clashes"),
        }
    }

    fn rooms(&self, files: &[RuleFile], reload: &mut Reload<'_>, faults: &mut Vec<Fault>) -> HashMap<Name, Arc<Room>> {
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
        rooms
    }

    fn draft(
        &self,
        route: rules::Route,
        rooms: &HashMap<Name, Arc<Room>>,
        place: (usize, &[Step]),
    ) -> Result<Draft, Vec<Misfit>> {
        let rules::Route {
            name,
            matches,
            chain,
            upstream,
        } = route;
        let mut misfits = Vec::new();
        let (mut steps, mut earlier) = (Vec::new(), Vec::new());
        for (index, step) in chain.into_iter().enumerate() {
            let (step_name, env) = (
                step.name(),
                Env {
                    route: &name,
                    earlier: &earlier,
                    throttles: &self.throttles,
                    rooms,
                },
            );
            match step.build(&env) {
                Ok(step) => steps.push(step),
                Err(found) => {
                    misfits.extend(
                        found
                            .into_iter()
                            .map(|misfit| misfit.under(step_name).under(index).under("chain")),
                    );
                }
            }
            earlier.push(step_name);
        }
        match parts::matches(matches) {
            Ok(matches) if misfits.is_empty() => {
                let path = place.1.iter().cloned().chain([Step::from("match")]).collect();
                Ok(Draft {
                    name,
                    matches,
                    chain: steps,
                    upstream,
                    place: (place.0, path),
                })
            }
            Ok(_) => Err(misfits),
            Err(found) => Err(found
                .into_iter()
                .map(|misfit| misfit.under("match"))
                .chain(misfits)
                .collect()),
        }
    }

    /// Nothing can fail any more but two routes taking the same requests.
    fn assemble(
        &self,
        drafts: Vec<Draft>,
        upstreams: &HashMap<Name, crate::upstream::Rule>,
        clash: impl Fn(Clash, &[(Name, (usize, Vec<Step>))]) -> Fault,
        faults: &mut Vec<Fault>,
    ) -> Option<Plan> {
        let mut built: HashMap<Name, Arc<Upstream>> = HashMap::new();
        let mut places = Vec::new();
        let clean = faults.is_empty();
        let entries = drafts.into_iter().map(|draft| {
            let Draft {
                name,
                matches,
                chain,
                upstream,
                place,
            } = draft;
            let upstream = upstream.filter(|_| clean).and_then(|name| {
                let rule = upstreams.get(&name)?;
                let shared = built
                    .entry(name)
                    .or_insert_with(|| Arc::new(self.upstreams.build(rule.clone())));
                Some(Arc::clone(shared))
            });
            places.push((name.clone(), place));
            let meter = RouteMeter::new(name.as_str());
            (
                matches,
                Arc::new(Route {
                    name,
                    chain,
                    upstream,
                    meter,
                }),
            )
        });
        let table = Table::build(entries.collect());
        match table {
            Ok(routes) => Some(Plan {
                generation: self.generation.fetch_add(u64::from(clean), Ordering::Relaxed) + 1,
                routes,
            }),
            Err(clashes) => {
                faults.extend(clashes.into_iter().map(|found| clash(found, &places)));
                None
            }
        }
    }
}
