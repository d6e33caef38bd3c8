//! Who shows a slip, as far as a room binds its tickets and passes to whom they were given.
//!
//! Binding is a bar to passing tickets around, not proof of who somebody is: people of one network can use each
//! other's, and a phone that leaves its network loses its place. So the default is to bind to nothing.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use super::rule::Rule;
use crate::base::client_ip::{CLIENT_PREFIX_V6, fold};
use crate::base::exchange::Request;
use crate::base::mix::mix;
use crate::queue::ticket::Binding;

/// Bits of an IPv4 address that are its network: people change the rest of it within one connection's life.
const PREFIX_V4: u32 = 24;

/// The key of all requests that do not have the room's key: with `bind: key` they are as good as one another.
const NOBODY: u128 = 1;

/// Who may show a ticket or a pass that was given to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bind {
    /// Anyone; where a room has `one_place_per`, anyone who does not show another key.
    #[default]
    None,
    /// Clients of the same network: IPv4 by /24, IPv6 by /64, behind trusted proxies.
    Network,
    /// Whoever shows the same key of `one_place_per`.
    Key,
}

impl Rule {
    /// Whose a slip is that is given for this request, and who shows those that came with it.
    pub fn holder(&self, request: &Request<'_>) -> Binding {
        let owner = self.owner(request);
        match self.bind {
            Bind::None => Binding::to(owner),
            Bind::Network => Binding::to(owner).within(network(request.client_ip)),
            Bind::Key => Binding::to(Some(owner.unwrap_or(NOBODY))),
        }
    }
}

/// A hash of the network, so that a slip does not say where its holder is.
fn network(address: IpAddr) -> u64 {
    match fold(address, CLIENT_PREFIX_V6) {
        IpAddr::V4(address) => {
            let network = address.to_bits() >> (u32::BITS - PREFIX_V4);
            mix(u64::from(network) | 1 << 32)
        }
        IpAddr::V6(address) => mix((address.to_bits() >> 64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::exchange::sample::Sample;
    use crate::room::rule::{Capacity, OwnerKey};

    fn rule(bind: Bind) -> Rule {
        let capacity = Capacity {
            visitors: Some(1),
            admit: None,
            pass: Duration::from_secs(600),
        };
        let mut rule = Rule::new("concert".parse().unwrap(), capacity);
        rule.bind = bind;
        rule.owner = Some(OwnerKey::new(|request| request.header("x-user")?.parse().ok()));
        rule
    }

    fn holder(bind: Bind, from: &str, user: &'static str) -> Binding {
        let mut sample = Sample::new().header("x-user", user);
        sample.client_ip = from.parse().unwrap();
        rule(bind).holder(&sample.request())
    }

    #[test]
    fn a_network_is_24_bits_of_an_old_address_and_64_of_a_new_one() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.254", true),
            ("192.0.2.1", "::ffff:192.0.2.9", true),
            ("192.0.2.1", "192.0.3.1", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("192.0.2.1", "2001:db8::1", false),
        ] {
            let given = holder(Bind::Network, one, "7");
            assert_eq!(given.admits(holder(Bind::Network, other, "7")), same, "{one} {other}");
            assert!(holder(Bind::None, one, "7").admits(holder(Bind::None, other, "7")));
        }
    }

    #[test]
    fn a_bound_key_must_be_shown_again_and_one_that_is_not_bound_must_not_differ() {
        let shown = |bind, user| holder(bind, "192.0.2.1", "7").admits(holder(bind, "198.51.100.1", user));
        assert!(shown(Bind::Key, "7") && !shown(Bind::Key, "8") && !shown(Bind::Key, ""));
        assert!(shown(Bind::None, "7") && !shown(Bind::None, "8") && shown(Bind::None, ""));
        let nobody = holder(Bind::Key, "192.0.2.1", "");
        assert!(nobody.admits(nobody) && !nobody.admits(holder(Bind::Key, "192.0.2.1", "8")));
    }
}
