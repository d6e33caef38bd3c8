//! `ip_filter`: who may ask, by the client's address.
//!
//! `deny` wins over `allow`. Where `allow` is given, everyone else is refused. The address is the client's own, behind
//! trusted proxies; what a stranger claims in a header does not count. Refused clients get 403.
//! Costs two binary searches, however many networks are written.

use std::net::IpAddr;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Env, Plugin, Verdict};
use crate::base::client_ip::Networks;
use crate::base::exchange::{Effects, Reply, Request};
use crate::base::misfit::Misfit;
use crate::base::one_or_many::OneOrMany;

/// Refuses clients by their address: `{ allow: [10.0.0.0/8, 2001:db8::/32], deny: [10.9.9.9] }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Addresses and networks that may ask; everyone else is refused. Without it, everyone may.
    allow: Option<OneOrMany<String>>,
    /// Addresses and networks that are refused, also where `allow` names them.
    #[serde(default)]
    deny: OneOrMany<String>,
}

/// The networks, ready for look-up.
#[derive(Debug)]
pub struct IpFilter {
    allow: Option<Networks>,
    deny: Networks,
}

impl Config {
    pub(super) fn build(self, _: &Env<'_>) -> Result<IpFilter, Vec<Misfit>> {
        let Self { allow, deny } = self;
        let mut misfits = Vec::new();
        if allow.as_ref().is_some_and(|allow| allow.0.is_empty()) {
            let why = "an empty `allow` would refuse everyone: leave it out, or name who may ask";
            misfits.push(Misfit::new(why).under("allow"));
        } else if allow.is_none() && deny.0.is_empty() {
            misfits.push(Misfit::new("it filters nothing: give `allow` or `deny`"));
        }
        let allow = allow.map(|allow| networks("allow", allow, &mut misfits));
        let deny = networks("deny", deny, &mut misfits);
        if misfits.is_empty() {
            Ok(IpFilter { allow, deny })
        } else {
            Err(misfits)
        }
    }
}

impl Plugin for IpFilter {
    fn request<'a>(&'a self, request: &'a Request<'a>, _: &'a mut Effects) -> Verdict<'a> {
        if self.lets_in(request.client_ip) {
            return Verdict::Continue;
        }
        let detail = "Requests from this address are not allowed.";
        Verdict::Reply(Box::new(Reply::problem(StatusCode::FORBIDDEN, "ip_filter", detail)))
    }
}

impl IpFilter {
    fn lets_in(&self, client: IpAddr) -> bool {
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.contain(client));
        allowed && !self.deny.contain(client)
    }
}

fn networks(key: &'static str, texts: OneOrMany<String>, misfits: &mut Vec<Misfit>) -> Networks {
    Networks::read(&texts.0).unwrap_or_else(|found| {
        misfits.extend(found.into_iter().map(|misfit| misfit.under(key)));
        Networks::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exchange::sample::{Sample, steps};

    fn compile(json: serde_json::Value) -> Result<IpFilter, Vec<Misfit>> {
        serde_json::from_value::<Config>(json).unwrap().build(&Env::sample())
    }

    fn status(json: serde_json::Value, client: &str) -> Option<u16> {
        let filter = compile(json).unwrap();
        let sample = Sample {
            client_ip: client.parse().unwrap(),
            ..Sample::new()
        };
        match filter.request(&sample.request(), &mut Effects::default()) {
            Verdict::Reply(reply) => Some(reply.status.as_u16()),
            Verdict::Continue | Verdict::Hold(_) => None,
        }
    }

    #[test]
    fn denied_networks_are_refused_and_others_pass() {
        let rule = serde_json::json!({ "deny": ["203.0.113.0/24", "2001:db8:bad::/48", "198.51.100.7"] });
        for client in ["203.0.113.9", "::ffff:203.0.113.9", "2001:db8:bad::1", "198.51.100.7"] {
            assert_eq!(status(rule.clone(), client), Some(403), "{client}");
        }
        for client in ["203.0.114.1", "2001:db8::1", "198.51.100.8"] {
            assert_eq!(status(rule.clone(), client), None, "{client}");
        }
    }

    #[test]
    fn allow_refuses_everyone_else_and_deny_wins() {
        let rule = serde_json::json!({ "allow": ["10.0.0.0/8", "::1"], "deny": ["10.9.9.9"] });
        for (client, expected) in [
            ("10.1.2.3", None),
            ("::1", None),
            ("10.9.9.9", Some(403)),
            ("192.0.2.1", Some(403)),
            ("2001:db8::1", Some(403)),
        ] {
            assert_eq!(status(rule.clone(), client), expected, "{client}");
        }
    }

    #[test]
    fn a_network_in_ipv6_clothes_is_an_ipv4_network() {
        let rule = serde_json::json!({ "deny": ["::ffff:192.0.2.0/120", "::ffff:198.51.100.7"] });
        assert_eq!(status(rule.clone(), "192.0.2.200"), Some(403));
        assert_eq!(status(rule.clone(), "::ffff:198.51.100.7"), Some(403));
        assert_eq!(status(rule, "192.0.3.1"), None);
    }

    #[test]
    fn a_misspelt_network_is_refused_with_its_place() {
        let misfits = compile(serde_json::json!({ "allow": ["10.0.0.0/8", "10.0.0.1/8"], "deny": ["example.com"] }));
        let misfits = misfits.unwrap_err();
        assert_eq!(misfits[0].path, ["allow".into(), 1.into()]);
        assert!(
            misfits[0].message.contains("write `10.0.0.0/8`, or `10.0.0.1`"),
            "{}",
            misfits[0]
        );
        assert_eq!(misfits[1].path, ["deny".into(), 0.into()]);
        assert!(
            misfits[1].message.contains("neither an address nor a network"),
            "{}",
            misfits[1]
        );
    }

    #[test]
    fn a_filter_that_filters_nothing_is_refused() {
        for json in [
            serde_json::json!({}),
            serde_json::json!({ "deny": [] }),
            serde_json::json!({ "allow": [] }),
            serde_json::json!({ "allow": [], "deny": ["10.0.0.0/8"] }),
        ] {
            assert_eq!(compile(json.clone()).unwrap_err().len(), 1, "{json}");
        }
    }

    #[test]
    fn the_example_compiles() {
        for step in steps::<Config>("ip_filter", include_str!("../../conf/examples/ip_filter.yaml")) {
            step.build(&Env::sample()).unwrap();
        }
    }
}
