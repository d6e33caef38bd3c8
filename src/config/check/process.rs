//! The process file by itself.

use std::fs::{File, Metadata};
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::{Findings, TIMEOUT, is_plain_path, steps, store};
use crate::base::misfit::Step;
use crate::base::secret::{HashSecret, Keyring};
use crate::base::unit::{Size, Span};
use crate::config::certificate::{CertificateFiles, TlsFault, authority};
use crate::config::raw::{
    Admin, Bind, Limits, Listener, Process, QueueApi, QueueEvents, SecretFile, Secrets, Throttle, Timeouts, Tls,
};

/// Largest file of signing keys, in bytes: eight keys and a page of comments.
const SECRET_BYTES_MAX: u64 = 16 << 10;

/// Most listeners: far above any use, and few enough to compare each with each.
const LISTENERS_MAX: usize = 256;

pub(super) fn check(findings: &mut Findings<'_>, process: &Process) {
    let Process {
        listeners,
        admin,
        trusted_proxies,
        timeouts,
        max_body,
        store,
        access_log: _,
        throttle,
        rules,
        secrets,
        limits,
        queue,
        threads,
    } = process;
    listen(findings, listeners, admin);
    if trusted_proxies.is_empty() && findings.document.is_whole(&steps!["trusted_proxies"]) {
        unreachable_behind_proxies(findings, listeners);
    }
    time(findings, timeouts);
    size(findings, &steps!["max_body"], *max_body, 0..=1 << 40);
    store::check(findings, store);
    draw(findings, throttle);
    if rules.0.is_empty() && findings.document.is_whole(&steps!["rules"]) {
        findings.fault(&steps!["rules"], "name at least one file, as in `rules/*.yaml`");
    }
    keep(findings, secrets);
    bound(findings, limits);
    stand(findings, queue);
    if let Some(threads) = threads {
        findings.number(&steps!["threads"], threads.get() as u64, 1..=1024);
    }
}

/// Requests are compared with the prefix after their paths have been normalised, and pages carry it as it is. So it
/// must be normal itself, and have no character that means anything in a page.
fn stand(findings: &mut Findings<'_>, queue: &QueueApi) {
    let QueueApi {
        prefix,
        joins,
        polls,
        events,
    } = queue;
    let QueueEvents { streams, life } = events;
    findings.number(&steps!["queue", "events", "streams"], *streams as u64, 0..=1_000_000);
    let day = Duration::from_secs(86_400);
    findings.span(&steps!["queue", "events", "life"], *life, Duration::from_secs(1)..=day);
    for (key, rate) in [("joins", joins), ("polls", polls)] {
        findings.span(&steps!["queue", key], Span(rate.window), Duration::from_secs(1)..=day);
    }
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b'~');
    if !is_plain_path(prefix) || !prefix.bytes().all(safe) {
        let message = format!(
            "`{prefix}` must be a path such as `/queue`: segments of letters, digits, `-`, `_`, `.` and `~`, without \
             `/` at the end"
        );
        findings.fault(&steps!["queue", "prefix"], message);
    }
}

fn listen(findings: &mut Findings<'_>, listeners: &[Listener], admin: &Admin) {
    let all = steps!["listeners"];
    if listeners.is_empty() && findings.document.is_whole(&all) {
        findings.fault(&all, "name at least one listener");
    }
    let mut bound = vec![(admin.bind, "the admin listener".to_owned())];
    if listeners.len() > LISTENERS_MAX {
        return findings.fault(&all, format!("{} listeners: at most {LISTENERS_MAX}", listeners.len()));
    }
    for (index, listener) in findings.document.written(&all, listeners) {
        let here = steps!["listeners", index, "bind"];
        collide(findings, &here, listener.bind, &bound);
        bound.push((listener.bind, format!("listeners[{index}]")));
        if let Some(tls) = &listener.tls {
            certify(findings, index, tls);
        }
    }
}

/// Where a PROXY header is awaited, only trusted proxies may connect.
fn unreachable_behind_proxies(findings: &mut Findings<'_>, listeners: &[Listener]) {
    for (index, listener) in findings.document.written(&steps!["listeners"], listeners) {
        if listener.proxy_protocol {
            let here = steps!["listeners", index, "proxy_protocol"];
            findings.fault(
                &here,
                "nobody could connect here: name the proxies in `trusted_proxies`",
            );
        }
    }
}

/// Two sockets cannot listen on one address, nor on a port of which one takes every address.
fn collide(findings: &mut Findings<'_>, here: &[Step], bind: Bind, bound: &[(Bind, String)]) {
    let taken = bound.iter().find(|(other, _)| {
        let (a, b) = (bind.0, other.0);
        let overlap =
            a.ip() == b.ip() || a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
        a.port() == b.port() && a.port() != 0 && overlap
    });
    if let Some((other, owner)) = taken {
        let message = match *other == bind {
            true => format!("`{bind}` is taken by {owner}"),
            false => format!("`{bind}` overlaps `{other}`, which {owner} takes"),
        };
        findings.fault(here, message);
    }
}

fn certify(findings: &mut Findings<'_>, listener: usize, tls: &Tls) {
    let all = steps!["listeners", listener, "tls", "certificates"];
    if tls.certificates.0.is_empty() && findings.document.is_whole(&all) {
        findings.fault(&all, "name at least one certificate");
    }
    for (index, certificate) in findings.document.written(&all, &tls.certificates.0) {
        let file = |key: &str| [all.as_slice(), &steps![index, key]].concat();
        let both = [
            findings.readable(&file("cert"), &certificate.cert),
            findings.readable(&file("key"), &certificate.key),
        ];
        let files = CertificateFiles {
            cert: findings.document.resolve(&certificate.cert),
            key: findings.document.resolve(&certificate.key),
        };
        if both == [true, true]
            && let Err(fault) = files.read()
        {
            let key = if fault.file == files.cert { "cert" } else { "key" };
            useless(findings, &file(key), &fault);
        }
    }
    if let Some(file) = &tls.client_ca {
        let here = steps!["listeners", listener, "tls", "client_ca"];
        if findings.readable(&here, file)
            && let Err(fault) = authority(&findings.document.resolve(file))
        {
            useless(findings, &here, &fault);
        }
    }
}

fn useless(findings: &mut Findings<'_>, here: &[Step], fault: &TlsFault) {
    findings.fault(here, format!("`{}`: {}", fault.file.display(), fault.why));
}

fn time(findings: &mut Findings<'_>, timeouts: &Timeouts) {
    let Timeouts {
        request_header,
        idle,
        request_body,
        response_write,
        tls_handshake,
        grace,
        drain,
    } = timeouts;
    findings.span(&steps!["timeouts", "grace"], *grace, Duration::ZERO..=*TIMEOUT.end());
    for (key, span) in [
        ("request_header", request_header),
        ("idle", idle),
        ("request_body", request_body),
        ("response_write", response_write),
        ("tls_handshake", tls_handshake),
        ("drain", drain),
    ] {
        findings.span(&steps!["timeouts", key], *span, TIMEOUT);
    }
}

fn draw(findings: &mut Findings<'_>, throttle: &Throttle) {
    let Throttle {
        pace,
        hot_keys,
        cold_slots,
        partitions,
    } = throttle;
    let bounds = Duration::from_millis(1)..=Duration::from_secs(10);
    findings.span(&steps!["throttle", "pace"], *pace, bounds);
    findings.number(&steps!["throttle", "hot_keys"], *hot_keys as u64, 1..=10_000_000);
    findings.number(
        &steps!["throttle", "cold_slots"],
        *cold_slots as u64,
        1_024..=16_777_216,
    );
    findings.number(&steps!["throttle", "partitions"], *partitions as u64, 1..=1_024);
}

fn bound(findings: &mut Findings<'_>, limits: &Limits) {
    let Limits {
        connections,
        connections_per_client,
        header_bytes,
        headers,
        request_line,
        body_per_second,
    } = limits;
    findings.number(&steps!["limits", "connections"], *connections as u64, 1..=10_000_000);
    if let Some(most) = connections_per_client {
        let here = steps!["limits", "connections_per_client"];
        findings.number(&here, *most as u64, 1..=1_000_000);
    }
    size(
        findings,
        &steps!["limits", "header_bytes"],
        *header_bytes,
        1 << 10..=1 << 20,
    );
    findings.number(&steps!["limits", "headers"], *headers as u64, 1..=1_000);
    size(
        findings,
        &steps!["limits", "request_line"],
        *request_line,
        256..=64 << 10,
    );
    let here = steps!["limits", "body_per_second"];
    size(findings, &here, *body_per_second, 1..=1 << 30);
}

fn size(findings: &mut Findings<'_>, here: &[Step], size: Size, bounds: RangeInclusive<u64>) {
    if !bounds.contains(&size.0) {
        let (least, most) = bounds.into_inner();
        findings.fault(here, format!("must be from {} to {}", bytes(least), bytes(most)));
    }
}

/// A number of bytes in the largest unit that divides it.
fn bytes(number: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units
        .into_iter()
        .find(|(size, _)| number > 0 && number.is_multiple_of(*size));
    unit.map_or(format!("{number}B"), |(size, unit)| format!("{}{unit}", number / size))
}

fn keep(findings: &mut Findings<'_>, secrets: &Secrets) {
    let Secrets { tickets, hashes } = secrets;
    secret(findings, "tickets", tickets.as_ref(), |text| {
        Keyring::parse(text).map(drop)
    });
    secret(findings, "hashes", hashes.as_ref(), |text| {
        HashSecret::parse(text).map(drop)
    });
    match (tickets, hashes) {
        (Some(_), None) if findings.document.is_whole(&steps!["secrets"]) => findings.fault(
            &steps!["secrets", "tickets"],
            "tickets outlive the process, and so must the secret by which their holders are known: write `hashes: { \
             file: ... }` beside it, a file of its own made by `openssl rand -hex 32`",
        ),
        (Some(tickets), Some(hashes)) if tickets.file == hashes.file => findings.fault(
            &steps!["secrets", "hashes", "file"],
            "keys of tickets are rotated and this is not: it needs a file of its own",
        ),
        _ => {}
    }
}

fn secret(
    findings: &mut Findings<'_>,
    name: &str,
    written: Option<&SecretFile>,
    parse: impl FnOnce(&str) -> Result<(), String>,
) {
    let Some(written) = written else { return };
    let here = steps!["secrets", name, "file"];
    let file = findings.document.resolve(&written.file);
    match read_secret(&file, parse) {
        Err(reason) => findings.fault(&here, format!("`{}`: {reason}", file.display())),
        Ok(metadata) if others_may_read(&metadata) => {
            let message = format!("others than its owner can read `{0}`: `chmod 600 {0}`", file.display());
            findings.warn(&here, message);
        }
        Ok(_) => {}
    }
}

fn read_secret(file: &Path, parse: impl FnOnce(&str) -> Result<(), String>) -> Result<Metadata, String> {
    let metadata = std::fs::metadata(file).map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.len() > SECRET_BYTES_MAX {
        return Err(format!("not a file of at most {SECRET_BYTES_MAX} bytes"));
    }
    let mut text = String::new();
    let opened = File::open(file).map_err(|error| error.to_string())?;
    let read = opened.take(SECRET_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    parse(&text)?;
    Ok(metadata)
}

#[cfg(unix)]
pub(super) fn others_may_read(metadata: &Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
}

#[cfg(not(unix))]
pub(super) fn others_may_read(_: &Metadata) -> bool {
    false
}
