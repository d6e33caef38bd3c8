//! The store of a fleet, and what its rooms need besides.

use std::time::Duration;

use super::process::others_may_read;
use super::{Findings, steps};
use crate::base::misfit::Step;
use crate::config::password::read_password;
use crate::config::raw::{PasswordFile, Process, Redis, Rules, Store, StoreUrl, Topology};
use crate::store::redis::address::AddressKind;

/// Most servers that are named: others of a cluster are found by them.
const URLS_MAX: usize = 64;

/// Longest name or prefix, in bytes.
const NAME_BYTES_MAX: usize = 64;

fn under(key: &str) -> Vec<Step> {
    steps!["store", "redis", key].to_vec()
}

pub(super) fn check(findings: &mut Findings<'_>, store: &Store) {
    let Store::Redis(redis) = store else { return };
    let Redis {
        urls,
        topology,
        master_name,
        user,
        password,
        prefix,
        timeout,
        ca: _,
        cert: _,
        key: _,
    } = redis;
    findings.span(
        &under("timeout"),
        *timeout,
        Duration::from_millis(1)..=Duration::from_secs(10),
    );
    number_of_servers(findings, &urls.0, *topology);
    what_servers_share(findings, &urls.0, *topology);
    master(findings, master_name.as_deref(), *topology);
    log_in(findings, redis);
    if let (Some(user), None) = (user, password)
        && *topology != Topology::Sentinel
        && !urls.0.iter().any(|url| url.0.has_password())
    {
        let message = format!("the user `{user}` has no password: name its file in `password`");
        findings.fault(&under("user"), message);
    }
    tls(findings, redis);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    if prefix.is_empty() || prefix.len() > NAME_BYTES_MAX || !prefix.bytes().all(plain) {
        let message = format!("must have 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_`, `.` or `:`");
        findings.fault(&under("prefix"), message);
    }
}

/// Its files can be read and belong together, and there is TLS at all.
fn tls(findings: &mut Findings<'_>, redis: &Redis) {
    let speaks = redis.urls.0.iter().any(|url| url.0.kind() == AddressKind::Tls);
    for (name, file) in [("ca", &redis.ca), ("cert", &redis.cert), ("key", &redis.key)] {
        let Some(file) = file else { continue };
        findings.readable(&under(name), file);
        if !speaks {
            findings.fault(&under(name), "nothing here speaks TLS: write `rediss://` in `urls`");
        }
    }
    match (&redis.cert, &redis.key) {
        (Some(_), None) => findings.fault(
            &under("cert"),
            "a certificate is worth nothing without its key: name that file in `key`",
        ),
        (None, Some(_)) => findings.fault(&under("key"), "this is the key of what? Name the certificate in `cert`"),
        _ => {}
    }
}

fn number_of_servers(findings: &mut Findings<'_>, urls: &[StoreUrl], topology: Topology) {
    let here = under("urls");
    if !findings.document.is_whole(&here) {
        return;
    }
    let message = match (urls.len(), topology) {
        (0, _) => "name at least one server, as in `redis://10.0.0.5:6379`".to_owned(),
        (1, _) => return,
        (count, Topology::Standalone) => {
            format!("{count} servers, and a standalone store is one: say `topology: sentinel` or `topology: cluster`")
        }
        (count, _) if count > URLS_MAX => format!("{count} servers: at most {URLS_MAX}"),
        _ => return,
    };
    findings.fault(&here, message);
}

fn what_servers_share(findings: &mut Findings<'_>, urls: &[StoreUrl], topology: Topology) {
    let Some(first) = urls.first().map(|url| &url.0) else {
        return;
    };
    for (index, url) in findings.document.written(&under("urls"), urls) {
        let here = [under("urls"), steps![index].to_vec()].concat();
        let socket = url.0.kind() == AddressKind::Socket;
        if socket && topology != Topology::Standalone {
            findings.fault(
                &here,
                "a socket reaches one server: only `topology: standalone` can use one",
            );
        } else if url.0.kind() != first.kind() {
            findings.fault(&here, "all servers must be reached alike, with `rediss://` or without");
        }
        if topology == Topology::Cluster && url.0.database() != 0 {
            findings.fault(&here, "a cluster has database 0 only");
        }
    }
}

fn master(findings: &mut Findings<'_>, master_name: Option<&str>, topology: Topology) {
    match (topology, master_name) {
        (Topology::Sentinel, None) => findings.fault(
            &steps!["store", "redis"],
            "sentinels need to be asked for a name: write `master_name`, as in `sentinel monitor NAME ...`",
        ),
        (Topology::Sentinel, Some("")) => findings.fault(&under("master_name"), "must not be empty"),
        (Topology::Sentinel, Some(_)) | (_, None) => {}
        (_, Some(_)) => findings.fault(&under("master_name"), "only `topology: sentinel` asks for a name"),
    }
}

fn log_in(findings: &mut Findings<'_>, redis: &Redis) {
    let Some(PasswordFile { file }) = &redis.password else {
        return;
    };
    let here = [under("password"), steps!["file"].to_vec()].concat();
    let path = findings.document.resolve(file);
    match read_password(&path) {
        Err(reason) => findings.fault(&here, format!("`{}`: {reason}", path.display())),
        Ok(_) => {
            let open = std::fs::metadata(&path).is_ok_and(|metadata| others_may_read(&metadata));
            if open {
                let message = format!("others than its owner can read `{0}`: `chmod 600 {0}`", path.display());
                findings.warn(&here, message);
            }
        }
    }
    let in_url = redis.urls.0.iter().any(|url| url.0.has_password());
    if in_url && redis.topology != Topology::Sentinel {
        findings.fault(&here, "there is a password in `urls` too: leave one of them out");
    }
}

/// Gateways that share rooms must take each other's tickets.
pub(super) fn rooms(findings: &mut Findings<'_>, process: Option<&Process>, rules: &Rules) {
    if process.is_none_or(|process| process.store == Store::Memory || process.secrets.tickets.is_some()) {
        return;
    }
    for name in rules.rooms.keys() {
        findings.fault(
            &steps!["rooms", name.as_str()],
            "a fleet shares this room, and has no key to sign tickets with that all gateways take: write \
             `secrets: { tickets: { file: ... }, hashes: { file: ... } }` in the process file",
        );
    }
}
