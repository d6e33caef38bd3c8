//! Single parts of a plan from their written form. Every conversion names all fields, so that a new one cannot be
//! forgotten here.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::base::client_ip::{CLIENT_PREFIX_V6, Networks};
use crate::base::clock::Timestamp;
use crate::base::key::{KeyExtractor, KeySeed, KeySpec};
use crate::base::misfit::{Misfit, Step};
use crate::base::name::Name;
use crate::config::document::Document;
use crate::config::fault::{Fault, Position};
use crate::config::load::{self, RuleFile};
use crate::config::raw as rules;
use crate::config::read::FILE_BYTES_MAX;
use crate::queue::terms::Terms;
use crate::room::bypass::Bypass;
use crate::room::measure::Measured;
use crate::room::page::{Page, TemplateFault};
use crate::room::rule::{Capacity, Challenge, ExemptPath, OwnerKey, PASS_DEFAULT, Rule};
use crate::routing::table::Match;
use crate::telemetry::vitals::Vitals;
use crate::upstream::{self, Timeouts};

/// The upstreams of all files, by name.
pub(super) fn upstreams(files: &[RuleFile]) -> HashMap<Name, upstream::Rule> {
    let written = files.iter().flat_map(|file| &file.rules.upstreams);
    written
        .map(|(name, written)| (name.clone(), upstream(name, written)))
        .collect()
}

fn upstream(name: &Name, written: &rules::Upstream) -> upstream::Rule {
    let rules::Upstream {
        servers,
        balance: rules::Balance::RoundRobin,
        timeouts,
        retry,
        eject,
        in_flight,
        release,
    } = written;
    let rules::Retry { attempts, on, budget } = retry;
    let retries = on.0.contains(&rules::RetryOn::Connect);
    let server = |server: &rules::Server| {
        (
            server.address.to_string(),
            u16::try_from(server.weight).unwrap_or(u16::MAX),
        )
    };
    upstream::Rule {
        name: name.clone(),
        servers: servers.0.iter().map(server).collect(),
        timeouts: Timeouts {
            connect: timeouts.connect.0,
            read: timeouts.read.0,
            write: timeouts.write.0,
            idle: timeouts.idle.0,
        },
        attempts: if retries {
            u8::try_from(*attempts).unwrap_or(u8::MAX)
        } else {
            1
        },
        retry_budget: budget.0,
        eject: eject.terms(),
        in_flight: in_flight.map(u64::from),
        release: *release,
    }
}

/// The rule of a room. `seed` is what keys of limits are hashed with; `watch` gives the health of an upstream.
pub(super) fn room(
    name: &Name,
    written: &rules::Room,
    seed: &KeySeed,
    watch: impl FnOnce(&Name) -> Arc<Vitals>,
) -> Result<Rule, Misfit> {
    let rules::Room {
        capacity,
        open,
        order,
        abandon_after,
        claim_within,
        one_place_per,
        max_places_per_network,
        bind,
        bypass,
        page: _,
        challenge,
        status,
        exempt,
        on_store_fault,
        max_waiting,
        tick,
        mode,
        keepalive,
    } = written;
    let terms = Terms {
        visitors: capacity.visitors,
        admit: capacity.admit.as_ref().and_then(rules::Admit::first),
        pass: capacity.pass.0,
        open: open
            .as_ref()
            .map(|open| Timestamp::from_micros(u64::try_from(open.0.as_microsecond()).unwrap_or(0))),
        order: *order,
        abandon_after: abandon_after.0,
        claim_within: claim_within.0,
        tick: tick.0,
        max_waiting: *max_waiting,
        mode: *mode,
    };
    let measured = capacity.admit.as_ref().and_then(rules::Admit::measured);
    let seed = seed.for_purpose("rooms").for_purpose(name.as_str());
    Ok(Rule {
        name: name.clone(),
        terms,
        measured: measured.map(|(range, upstream)| Measured {
            range,
            upstream: upstream.clone(),
            vitals: watch(upstream),
        }),
        exempt: exempt_paths(&exempt.0)?,
        status: StatusCode::from_u16(*status).map_err(|_| Misfit::new("not a status code").under("status"))?,
        on_store_fault: *on_store_fault,
        challenge: challenge.as_ref().map(|written| Challenge {
            work: written.work,
            no_script: written.no_script,
        }),
        keepalive: keepalive.0,
        owner: one_place_per.as_ref().map(|spec| owner(&seed, spec)).transpose()?,
        places_per_network: *max_places_per_network,
        bind: *bind,
        bypass: bypass.as_ref().map(self::bypass).unwrap_or_default(),
        seed,
    })
}

/// In the place of a room of this name that cannot be built.
pub(super) fn stand_in(name: &Name) -> Rule {
    let capacity = Capacity {
        visitors: None,
        admit: None,
        pass: PASS_DEFAULT,
    };
    Rule::new(name.clone(), capacity)
}

fn bypass(written: &rules::Bypass) -> Bypass {
    let rules::Bypass { networks, links } = written;
    Bypass {
        networks: Networks::new(networks.0.iter().map(|network| network.0)),
        links: *links,
    }
}

fn exempt_paths(written: &[String]) -> Result<Vec<ExemptPath>, Misfit> {
    let parsed = written.iter().enumerate().map(|(index, text)| {
        ExemptPath::parse(text).map_err(|message| Misfit::new(message).under(index).under("exempt"))
    });
    parsed.collect()
}

/// A visitor's key, hashed with the room's seed: equal at every gateway, and of no use in another room.
fn owner(seed: &KeySeed, spec: &KeySpec) -> Result<OwnerKey, Misfit> {
    let extractor = KeyExtractor::new(&spec.0, CLIENT_PREFIX_V6, &seed.for_purpose("owner"))
        .map_err(|misfit| misfit.under("one_place_per"))?;
    Ok(OwnerKey::new(move |request| {
        extractor.extract(request).map(|key| key.0)
    }))
}

/// The waiting page of a room: the operator's, or the built-in one. `path` leads to the room.
pub(super) fn page(
    document: &Document,
    path: &[Step],
    written: &rules::Room,
    queue_prefix: &str,
) -> Result<Page, Fault> {
    let page = match &written.page {
        None => Page::builtin(),
        Some(own) => own_page(document, path, own)?,
    };
    Ok(page
        .with_queue_prefix(queue_prefix)
        .with_abandon_after(written.abandon_after.0))
}

/// What is wrong with a template stands in the template's file, not where a rule names it.
fn own_page(document: &Document, path: &[Step], own: &rules::RoomPage) -> Result<Page, Fault> {
    let rules::RoomPage { template, vars } = own;
    let file = document.resolve(template);
    let here = |message: String| document.fault(path, &Misfit::new(message).under("page"));
    let text = load::read_bounded(&file, FILE_BYTES_MAX)
        .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other))
        .map_err(|error| here(format!("`{}` cannot be read: {error}", file.display())))?;
    Page::own(&text, vars).map_err(|found| {
        let TemplateFault {
            line,
            column,
            message,
            suggestion,
        } = found;
        Fault {
            file,
            position: Position { line, column },
            suggestion,
            ..here(message)
        }
    })
}

/// What a route takes.
pub(super) fn matches(written: rules::Match) -> Result<Match, Vec<Misfit>> {
    let rules::Match {
        hosts,
        path,
        methods,
        headers,
    } = written;
    let mut misfits = Vec::new();
    let mut compiled = Match {
        methods: methods.0.into_iter().map(|verb| verb.0).collect(),
        ..Match::default()
    };
    for (index, host) in hosts.0.iter().enumerate() {
        match host.parse() {
            Ok(host) => compiled.hosts.push(host),
            Err(message) => misfits.push(Misfit::new(message).under(index).under("hosts")),
        }
    }
    if let Some(path) = path {
        match path.parse() {
            Ok(path) => compiled.path = path,
            Err(message) => misfits.push(Misfit::new(message).under("path")),
        }
    }
    for (name, value) in &headers {
        match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => compiled.headers.push((name, value)),
            (Err(_), _) => misfits.push(
                Misfit::new(format!("`{name}` is not the name of a header"))
                    .under(name.as_str())
                    .under("headers"),
            ),
            (_, Err(_)) => misfits.push(
                Misfit::new("not a value that a header can have")
                    .under(name.as_str())
                    .under("headers"),
            ),
        }
    }
    if misfits.is_empty() { Ok(compiled) } else { Err(misfits) }
}
