//! What a server says of itself when it is met: whether it can be written to, and what an operator should know.

use std::collections::HashMap;

use crate::store::limits::StoreFault;

/// The first version whose scripts are refused as a whole.
const MAJOR_LEAST: u32 = 7;

/// A look at the answer of `INFO`.
pub(super) struct Checked {
    /// What it is, for a log line.
    pub(super) name: String,
    /// What is not as it should be, one sentence each.
    pub(super) warnings: Vec<String>,
}

/// Reads the answer of `INFO`.
pub(super) fn check(info: &str) -> Result<Checked, (StoreFault, String)> {
    let fields: HashMap<_, _> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let field = |name: &str| fields.get(name).copied();
    if field("role") == Some("slave") {
        return Err((
            StoreFault::ReadOnly,
            "it follows another server and takes no writes".to_owned(),
        ));
    }
    if field("loading") == Some("1") {
        return Err((StoreFault::Loading, "it is still loading its data".to_owned()));
    }
    let name = match (field("valkey_version"), field("redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => "a server of unknown version".to_owned(),
    };
    let mut warnings = Vec::new();
    let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let redis = field("redis_version").and_then(major);
    if field("valkey_version").is_none() && redis.is_none_or(|major| major < MAJOR_LEAST) {
        warnings.push(format!("the store is {name}: Redis {MAJOR_LEAST} or Valkey is needed"));
    }
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    if policy != "noeviction" {
        warnings.push(format!(
            "the store evicts keys when it is full (maxmemory-policy {policy}), and forgets counts by that: set it to \
             noeviction"
        ));
    }
    Ok(Checked { name, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_suits_is_met_without_a_word() {
        let seen = check("# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\nrole:master\r\n").unwrap();
        assert_eq!((seen.name.as_str(), seen.warnings.len()), ("Redis 7.0.15", 0));
        let valkey = check("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0\r\n").unwrap();
        assert_eq!((valkey.name.as_str(), valkey.warnings.len()), ("Valkey 8.1.0", 0));
    }

    #[test]
    fn an_old_server_and_one_that_evicts_are_warned_of() {
        let seen = check("redis_version:6.2.1\r\nmaxmemory_policy:allkeys-lru\r\n").unwrap();
        assert_eq!(seen.warnings.len(), 2);
        assert!(seen.warnings[0].contains("Redis 6.2.1"), "{:?}", seen.warnings);
        assert!(seen.warnings[1].contains("allkeys-lru"), "{:?}", seen.warnings);
    }

    #[test]
    fn a_replica_is_not_written_to() {
        let refused = check("redis_version:7.0.15\r\nrole:slave\r\n");
        assert_eq!(refused.err().map(|(fault, _)| fault), Some(StoreFault::ReadOnly));
    }
}
