//! Upstreams and rooms.

use std::collections::HashSet;
use std::time::Duration;

use super::{Findings, TIMEOUT, steps};
use crate::base::key::KeyPart;
use crate::base::misfit::Step;
use crate::base::name::Name;
use crate::config::raw::{Admit, Capacity, Eject, Retry, Room, Rules, Upstream, UpstreamTimeouts};
use crate::queue::terms::{Order, VISITORS_MAX};
use crate::queue::work::BITS_MAX;
use crate::room::holder::Bind;
use crate::room::rule::ExemptPath;
use crate::upstream::SERVERS_MAX;

pub(super) fn check(findings: &mut Findings<'_>, rules: &Rules, upstreams: &[&str]) {
    for (name, upstream) in &rules.upstreams {
        serve(findings, name, upstream);
    }
    for (name, room) in &rules.rooms {
        hold(findings, name, room, upstreams);
    }
}

fn serve(findings: &mut Findings<'_>, name: &Name, upstream: &Upstream) {
    let Upstream {
        servers: _,
        balance: _,
        timeouts,
        retry,
        eject,
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
    let Eject {
        mode: _,
        after,
        within,
        lasting,
    } = eject;
    let of_eject = |key: &str| steps!["upstreams", name.as_str(), "eject", key];
    findings.number(&of_eject("after"), u64::from(*after), 1..=1_000);
    findings.span(&of_eject("within"), *within, TIMEOUT);
    findings.span(&of_eject("for"), *lasting, TIMEOUT);
    if let Some(in_flight) = in_flight {
        findings.number(&under("in_flight"), u64::from(*in_flight), 1..=u64::MAX);
    }
}

fn distinct_servers(findings: &mut Findings<'_>, name: &Name, upstream: &Upstream) {
    let all = steps!["upstreams", name.as_str(), "servers"];
    if upstream.servers.0.is_empty() && findings.document.is_whole(&all) {
        findings.fault(&all, "name at least one server, as in `10.0.0.7:9000`");
    }
    if upstream.servers.0.len() > SERVERS_MAX {
        let count = upstream.servers.0.len();
        findings.fault(
            &all,
            format!("{count} servers are more than {SERVERS_MAX}, the most that an upstream may have"),
        );
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

fn hold(findings: &mut Findings<'_>, name: &Name, room: &Room, upstreams: &[&str]) {
    let Room {
        capacity,
        open,
        order,
        abandon_after: _,
        claim_within: _,
        one_place_per,
        max_places_per_network,
        bind,
        bypass,
        page,
        challenge,
        status,
        exempt: _,
        on_store_fault: _,
        max_waiting,
        tick: _,
        mode: _,
        keepalive: _,
    } = room;
    let under = |key: &str| steps!["rooms", name.as_str(), key];
    admit(findings, name, capacity, upstreams);
    spans(findings, name, room);
    findings.number(&under("max_waiting"), *max_waiting, 1..=100_000_000);
    if let Some(most) = max_places_per_network {
        findings.number(&under("max_places_per_network"), u64::from(*most), 1..=1_000_000);
    }
    if let Some(challenge) = challenge {
        let work = steps!["rooms", name.as_str(), "challenge", "work"];
        findings.number(&work, u64::from(challenge.work), 1..=u64::from(BITS_MAX));
    }
    if let Some(page) = page {
        findings.readable(&under("page"), &page.template);
    }
    if ![200, 202, 429, 503].contains(status) {
        findings.fault(
            &under("status"),
            format!("`{status}` must be one of 200, 202, 429, 503"),
        );
    }
    exempt_paths(findings, name, room);
    if *order == Order::Shuffle && open.is_none() && findings.document.is_whole(&steps!["rooms", name.as_str()]) {
        findings.fault(
            &under("order"),
            "a lobby is shuffled at the opening: write when that is, as in `open: 2026-12-01T20:00:00+09:00`",
        );
    }
    if *bind == Bind::Key && one_place_per.is_none() && findings.document.is_whole(&steps!["rooms", name.as_str()]) {
        findings.fault(
            &under("bind"),
            "say which key: write `one_place_per`, as in `one_place_per: { cookie: account }`",
        );
    }
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

fn spans(findings: &mut Findings<'_>, name: &Name, room: &Room) {
    let under = |key: &str| steps!["rooms", name.as_str(), key];
    let (second, hour, day) = (
        Duration::from_secs(1),
        Duration::from_secs(3_600),
        Duration::from_secs(86_400),
    );
    findings.span(&under("abandon_after"), room.abandon_after, 30 * second..=day);
    findings.span(&under("claim_within"), room.claim_within, second..=day);
    findings.span(&under("tick"), room.tick, second / 100..=10 * second);
    findings.span(&under("keepalive"), room.keepalive, Duration::ZERO..=hour);
}

fn admit(findings: &mut Findings<'_>, name: &Name, capacity: &Capacity, upstreams: &[&str]) {
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
        findings.number(&under("visitors"), *visitors, 1..=VISITORS_MAX);
    }
    if let Some(admit) = admit {
        measured(findings, &under("admit"), admit, upstreams);
    }
    let week = Duration::from_secs(7 * 86_400);
    findings.span(&under("pass"), *pass, Duration::from_secs(1)..=week);
}

/// A rate that stands, or all that a measured one takes.
fn measured(findings: &mut Findings<'_>, here: &[Step], admit: &Admit, upstreams: &[&str]) {
    let Admit {
        rate,
        min,
        max,
        upstream,
        by,
    } = admit;
    let whole = findings.document.is_whole(here);
    match (rate, min, max, upstream) {
        (Some(_), None, None, None) => return,
        (Some(_), ..) => findings.fault(here, "write either `rate`, or `min`, `max` and `upstream`"),
        (None, Some(min), Some(max), Some(_)) if min.per_second() > max.per_second() => {
            findings.fault(here, format!("`min` is more than `max`: {min} and {max}"));
        }
        (None, Some(_), Some(_), Some(_)) => {}
        (None, ..) if whole => findings.fault(
            here,
            "a measured rate takes `min`, `max` and the `upstream` whose health decides between them",
        ),
        (None, ..) => {}
    }
    if by.is_empty() && whole {
        findings.fault(here, "`by` is empty: write `latency`, `errors` or both");
    }
    if let Some(upstream) = upstream {
        let there = [here, &steps!["upstream"]].concat();
        findings.upstream(&there, upstream, upstreams);
    }
}

fn exempt_paths(findings: &mut Findings<'_>, name: &Name, room: &Room) {
    let all = steps!["rooms", name.as_str(), "exempt"];
    for (index, exempt) in findings.document.written(&all, &room.exempt.0) {
        if let Err(message) = ExemptPath::parse(exempt) {
            findings.fault(&[all.as_slice(), &steps![index]].concat(), message);
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
