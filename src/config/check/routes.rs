//! Routes: the order of their chains, and that something answers at the end.

use http::{HeaderName, HeaderValue};

use super::{Findings, steps};
use crate::config::raw::Route;
use crate::config::spelling;
use crate::plugins::{ChainStep, Stage};
use crate::routing::pattern::PathPattern;

/// Steps that answer every request that comes to them.
const ANSWERING: [&str; 2] = ["respond", "redirect"];

/// `queue` is where the queue API stands, if there are rooms.
pub(super) fn check(findings: &mut Findings<'_>, routes: &[Route], upstreams: &[&str], queue: Option<&str>) {
    for (index, route) in findings.document.written(&steps!["routes"], routes) {
        reached(findings, index, route, queue);
        headers(findings, index, route);
        order(findings, index, &route.chain);
        answered(findings, index, route, upstreams);
    }
}

/// That the queue API does not answer in its place.
fn reached(findings: &mut Findings<'_>, index: usize, route: &Route, queue: Option<&str>) {
    let path = route.matches.path.as_deref().and_then(|path| path.parse().ok());
    if let Some((queue, path)) = queue.zip(path)
        && PathPattern::is_under(&path, queue)
    {
        let message = format!(
            "`{path}` never gets a request: the queue API of the rooms stands at `{queue}`; move one of the two, that of \
             the rooms by `queue: {{ prefix: ... }}` in the process file"
        );
        findings.fault(&steps!["routes", index, "match", "path"], message);
    }
}

fn headers(findings: &mut Findings<'_>, index: usize, route: &Route) {
    for (name, value) in &route.matches.headers {
        let here = steps!["routes", index, "match", "headers", name.as_str()];
        if HeaderName::try_from(name.as_str()).is_err() {
            let fault = findings
                .document
                .fault_of_key(&here, format!("`{name}` is not a header's name"));
            findings.faults.push(fault);
        }
        if HeaderValue::try_from(value.as_str()).is_err() {
            findings.fault(&here, "not a header's value: visible characters only");
        }
    }
}

/// Reports every step that stands after one of a later stage.
fn order(findings: &mut Findings<'_>, route: usize, chain: &[ChainStep]) {
    let mut furthest: Option<&ChainStep> = None;
    for (index, step) in findings.document.written(&steps!["routes", route, "chain"], chain) {
        match furthest {
            Some(before) if step.stage() < before.stage() => {
                let message = format!(
                    "`{}` ({}) may not come after `{}` ({}): the order is access, admission, transform",
                    step.name(),
                    word(step.stage()),
                    before.name(),
                    word(before.stage())
                );
                findings.fault(&steps!["routes", route, "chain", index], message);
            }
            _ => furthest = Some(step),
        }
    }
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Access => "access",
        Stage::Admission => "admission",
        Stage::Transform => "transform",
    }
}

fn answered(findings: &mut Findings<'_>, index: usize, route: &Route, upstreams: &[&str]) {
    let chain = steps!["routes", index, "chain"];
    match &route.upstream {
        Some(upstream) => findings.upstream(&steps!["routes", index, "upstream"], upstream, upstreams),
        None => {
            let answers = route.chain.last().is_some_and(|last| ANSWERING.contains(&last.name()));
            let nothing_lost =
                findings.document.is_whole(&steps!["routes", index]) && findings.document.is_whole(&chain);
            if !answers && nothing_lost {
                let message = format!(
                    "nothing answers: write an `upstream`, or end the chain with one of {}",
                    spelling::quoted(ANSWERING)
                );
                findings.fault(&steps!["routes", index], message);
            }
        }
    }
}
