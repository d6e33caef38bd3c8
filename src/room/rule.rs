//! A room as its rule file describes it, ready to run.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use siphasher::sip::SipHasher13;

use super::bypass::Bypass;
use super::holder::Bind;
use super::measure::Measured;
use crate::base::client_ip::{CLIENT_PREFIX_V6, fold};
use crate::base::exchange::Request;
use crate::base::name::Name;
use crate::base::rate::Rate;
use crate::queue::terms::{Mode, Order, Terms};
use crate::queue::turn::Share;

/// Life of a pass without use, unless the rule says otherwise.
pub const PASS_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// Silence after which a waiting place is given up, unless the rule says otherwise.
const ABANDON_AFTER_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Time to answer a call, unless the rule says otherwise.
const CLAIM_WITHIN_DEFAULT: Duration = Duration::from_secs(2 * 60);

/// Time between two turns of a room that is engaged.
const TICK_DEFAULT: Duration = Duration::from_millis(200);

/// How long the connection of a waiting visitor is kept, unless the rule says otherwise.
pub const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(5);

/// Visitors who may wait at once, unless the rule says otherwise. A waiting visitor costs the memory store some
/// 150 bytes.
const MAX_WAITING_DEFAULT: u64 = 1_000_000;

/// A compiled room.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name: part of its cookies' names and of its metrics' labels.
    pub name: Name,
    /// Who is let in, and when: all that the queue itself needs to know.
    pub terms: Terms,
    /// What moves the rate of `terms`, where it is measured; there stands the lowest rate then.
    pub measured: Option<Measured>,
    /// Paths that are let through without a pass.
    pub exempt: Vec<ExemptPath>,
    /// The status of the waiting page.
    pub status: StatusCode,
    /// What becomes of newcomers while the store is away.
    pub on_store_fault: OnStoreFault,
    /// How long the connection of a waiting visitor is kept for the next poll.
    pub keepalive: Duration,
    /// The key that has one place.
    pub owner: Option<OwnerKey>,
    /// Most places of one client network; none: as many as it asks for.
    pub places_per_network: Option<u32>,
    /// What a new place costs.
    pub challenge: Option<Challenge>,
    /// Who may show a ticket or a pass that was given to somebody.
    pub bind: Bind,
    /// Who needs no place.
    pub bypass: Bypass,
}

/// What a new place costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// Zero bits that a solution must start with.
    pub work: u8,
    /// What becomes of browsers without JavaScript.
    pub no_script: NoScript,
}

/// What becomes of browsers that cannot solve anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoScript {
    /// They get a place after ten seconds, one from each network at a time.
    #[default]
    Wait,
    /// They get none.
    Refuse,
}

/// What a room lets through. Either bound may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Visitors called or inside at once.
    pub visitors: Option<u64>,
    /// Visitors called per window.
    pub admit: Option<Rate>,
    /// Life of a pass without use.
    pub pass: Duration,
}

/// What becomes of newcomers while the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStoreFault {
    /// They wait until it is back.
    #[default]
    Hold,
    /// They go through, uncounted.
    Admit,
}

impl Rule {
    /// A room with this capacity and defaults for everything else.
    pub fn new(name: Name, capacity: Capacity) -> Self {
        let Capacity { visitors, admit, pass } = capacity;
        let terms = Terms {
            visitors,
            admit,
            pass,
            open: None,
            order: Order::Arrival,
            abandon_after: ABANDON_AFTER_DEFAULT,
            claim_within: CLAIM_WITHIN_DEFAULT,
            tick: TICK_DEFAULT,
            max_waiting: MAX_WAITING_DEFAULT,
            mode: Mode::Auto,
        };
        Self {
            name,
            terms,
            measured: None,
            exempt: Vec::new(),
            status: StatusCode::OK,
            on_store_fault: OnStoreFault::Hold,
            keepalive: KEEPALIVE_DEFAULT,
            owner: None,
            places_per_network: None,
            challenge: None,
            bind: Bind::None,
            bypass: Bypass::default(),
        }
    }

    /// Whether a path needs no pass.
    pub fn exempts(&self, path: &str) -> bool {
        self.exempt.iter().any(|exempt| exempt.takes(path))
    }

    /// The share of the room that a place for this request would be part of.
    pub fn share(&self, request: &Request<'_>) -> Option<Share> {
        let most = self.places_per_network?;
        let network = network_hash(&self.name, request.client_ip);
        Some(Share { network, most })
    }

    /// The owner of whatever place this request is about.
    pub fn owner(&self, request: &Request<'_>) -> Option<u128> {
        self.owner.as_ref().and_then(|owner| (owner.0)(request))
    }
}

/// Equal at every gateway, and of no use in another room.
fn network_hash(room: &Name, client: IpAddr) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(room.as_str().as_bytes());
    match fold(client, CLIENT_PREFIX_V6) {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    hasher.finish()
}

/// A path that is let through without a pass: `/exact`, or `/prefix/**`, which takes `/prefix` too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExemptPath {
    prefix: String,
    below: bool,
}

impl ExemptPath {
    /// Reads one of the two forms.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (prefix, below) = match text.strip_suffix("/**") {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        let rooted = text.starts_with('/');
        if !rooted || prefix.contains(['*', '{', '?', '#']) {
            return Err(format!(
                "`{text}` is not an exempt path: write `/exact`, or `/prefix/**` for all below it"
            ));
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            below,
        })
    }

    fn takes(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.prefix.as_str());
        rest.is_some_and(|rest| rest.is_empty() || (self.below && rest.starts_with('/')))
    }
}

/// How the owner of a place is read from a request: a hash of the key the rule names.
#[derive(Clone)]
pub struct OwnerKey(Arc<ReadOwner>);

type ReadOwner = dyn Fn(&Request<'_>) -> Option<u128> + Send + Sync;

impl OwnerKey {
    /// Reads owners by `read`. It must give equal hashes for equal owners at every gateway of a fleet.
    pub fn new(read: impl Fn(&Request<'_>) -> Option<u128> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exempt_path_takes_what_is_below_it_and_nothing_beside_it() {
        let below = ExemptPath::parse("/assets/**").unwrap();
        let exact = ExemptPath::parse("/robots.txt").unwrap();
        for (path, expected) in [
            ("/assets", true),
            ("/assets/a/b", true),
            ("/assetsx", false),
            ("/", false),
        ] {
            assert_eq!(below.takes(path), expected, "{path}");
        }
        assert!(exact.takes("/robots.txt") && !exact.takes("/robots.txt/x"));
        assert!(ExemptPath::parse("/**").unwrap().takes("/anything"));
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_the_upper_half_of_an_ipv6_one_and_each_room_has_its_own() {
        let [hall, foyer]: [Name; 2] = ["hall", "foyer"].map(|name| name.parse().unwrap());
        let of = |room: &Name, address: &str| network_hash(room, address.parse().unwrap());
        assert_eq!(of(&hall, "2001:db8::1"), of(&hall, "2001:db8::ffff:ffff:ffff:1"));
        assert_eq!(of(&hall, "192.0.2.1"), of(&hall, "::ffff:192.0.2.1"));
        assert_ne!(of(&hall, "192.0.2.1"), of(&hall, "192.0.2.2"));
        assert_ne!(of(&hall, "2001:db8::1"), of(&hall, "2001:db8:0:1::1"));
        assert_ne!(of(&hall, "192.0.2.1"), of(&foyer, "192.0.2.1"));
    }

    #[test]
    fn a_pattern_that_is_neither_form_is_refused_with_what_is() {
        for wrong in ["assets/**", "", "/a/*/b", "/users/{id}", "~ ^/a"] {
            let message = ExemptPath::parse(wrong).unwrap_err();
            assert!(message.contains("/prefix/**"), "{message}");
        }
    }
}
