//! Upstreams and rooms.

use std::collections::HashSet;
use std::time::Duration;

use super::{Findings, TIMEOUT, is_plain_path, steps};
use crate::base::key::KeyPart;
use crate::base::name::Name;
use crate::config::raw::{Capacity, Retry, Room, Rules, Upstream, UpstreamTimeouts};

pub(super) fn check(findings: &mut Findings<'_>, rules: &Rules) {
    for (name, upstream) in &rules.upstreams {
        serve(findings, name, upstream);
    }
    for (name, room) in &rules.rooms {
        hold(findings, name, room);
    }
}

fn serve(findings: &mut Findings<'_>, name: &Name, upstream: &Upstream) {
    let Upstream {
        servers: _,
        balance: _,
        timeouts,
        retry,
        in_flight,
        release: _,
    } = upstream;
    let under = |key: &str| steps!["upstreams", name.as_str(), key];
    distinct_servers(findings, name, upstream);
    let UpstreamTimeouts {
        connect,
        read,
        write,
        idle,
    } = timeouts;
    for (key, span) in [("connect", connect), ("read", read), ("write", write), ("idle", idle)] {
        findings.span(&steps!["upstreams", name.as_str(), "timeouts", key], *span, TIMEOUT);
    }
    let Retry {
        attempts,
        on: _,
        budget: _,
    } = retry;
    let attempts_path = steps!["upstreams", name.as_str(), "retry", "attempts"];
    findings.number(&attempts_path, u64::from(*attempts), 1..=10);
    if let Some(in_flight) = in_flight {
        findings.number(&under("in_flight"), u64::from(*in_flight), 1..=u64::MAX);
    }
}

fn distinct_servers(findings: &mut Findings<'_>, name: &Name, upstream: &Upstream) {
    let all = steps!["upstreams", name.as_str(), "servers"];
    if upstream.servers.0.is_empty() && findings.document.is_whole(&all) {
        findings.fault(&all, "name at least one server, as in `10.0.0.7:9000`");
    }
    let mut seen = HashSet::new();
    for (index, server) in findings.document.written(&all, &upstream.servers.0) {
        let here = [all.as_slice(), &steps![index]].concat();
        if !seen.insert(&server.address) {
            findings.fault(
                &here,
                format!("the server `{}` stands twice: give it a weight instead", server.address),
            );
        }
        let weight = [here.as_slice(), &steps!["weight"]].concat();
        findings.number(&weight, u64::from(server.weight), 1..=1_000);
    }
}

fn hold(findings: &mut Findings<'_>, name: &Name, room: &Room) {
    let Room {
        capacity,
        open: _,
        order: _,
        abandon_after,
        claim_within,
        one_place_per,
        bypass,
        page,
        status,
        exempt: _,
        on_store_fault: _,
        max_waiting,
        tick,
        mode: _,
    } = room;
    let under = |key: &str| steps!["rooms", name.as_str(), key];
    let day = Duration::from_secs(86_400);
    admit(findings, name, capacity);
    findings.span(&under("abandon_after"), *abandon_after, Duration::from_secs(30)..=day);
    findings.span(&under("claim_within"), *claim_within, Duration::from_secs(1)..=day);
    findings.span(
        &under("tick"),
        *tick,
        Duration::from_millis(10)..=Duration::from_secs(10),
    );
    findings.number(&under("max_waiting"), *max_waiting, 1..=100_000_000);
    if let Some(page) = page {
        findings.readable(&under("page"), page);
    }
    if ![200, 202, 429, 503].contains(status) {
        findings.fault(
            &under("status"),
            format!("`{status}` must be one of 200, 202, 429, 503"),
        );
    }
    exempt_paths(findings, name, room);
    if let Some(bypass) = bypass {
        let here = under("bypass");
        if bypass.networks.0.is_empty() && !bypass.links && findings.document.is_whole(&here) {
            findings.fault(&here, "nobody would pass: write `networks`, `links: true` or both");
        }
    }
    if let Some(parts) = one_place_per {
        tell_apart(findings, name, &parts.0);
    }
}

fn admit(findings: &mut Findings<'_>, name: &Name, capacity: &Capacity) {
    let Capacity { visitors, admit, pass } = capacity;
    let under = |key: &str| steps!["rooms", name.as_str(), "capacity", key];
    let here = steps!["rooms", name.as_str(), "capacity"];
    if visitors.is_none() && admit.is_none() && findings.document.is_whole(&here) {
        findings.fault(
            &here,
            "write `visitors`, `admit` or both: a room without them would hold nobody",
        );
    }
    if let Some(visitors) = visitors {
        findings.number(&under("visitors"), *visitors, 1..=u64::MAX);
    }
    let week = Duration::from_secs(7 * 86_400);
    findings.span(&under("pass"), *pass, Duration::from_secs(1)..=week);
}

fn exempt_paths(findings: &mut Findings<'_>, name: &Name, room: &Room) {
    let all = steps!["rooms", name.as_str(), "exempt"];
    for (index, exempt) in findings.document.written(&all, &room.exempt.0) {
        if exempt != "/" && !is_plain_path(exempt) {
            let here = [all.as_slice(), &steps![index]].concat();
            findings.fault(
                &here,
                format!("`{exempt}` must be a path, such as `/health` or `/static/**`"),
            );
        }
    }
}

fn tell_apart(findings: &mut Findings<'_>, name: &Name, parts: &[KeyPart]) {
    let all = steps!["rooms", name.as_str(), "one_place_per"];
    if parts.is_empty() && findings.document.is_whole(&all) {
        findings.fault(&all, "name at least one part of a key, such as `client_ip`");
    }
    for (index, part) in findings.document.written(&all, parts) {
        if let KeyPart::Jwt(_) = part {
            let here = [all.as_slice(), &steps![index]].concat();
            findings.fault(
                &here,
                "a `jwt` key needs the `jwt` plugin, which comes with a later version",
            );
        }
    }
}
