//! Who goes around a room: clients of networks that the operator knows, and whoever holds a link.
//!
//! A link is a signed slip with an expiry, a kind of its own beside tickets and passes. It comes in the address of a
//! page, as `?tidegate-link=...`, and becomes a cookie with the first page that is asked for with it; the browser is
//! sent on to the same address without it, so that it is not passed on by a copied address or a `Referer`.
//! Who goes around is counted in a metric and nowhere else: takes no place, and is never inside. A link cannot be taken
//! back by itself: it ends with its expiry, with `links: false`, or with the key that signed it.

use std::time::Duration;

use http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};

use super::Room;
use crate::base::client_ip::Networks;
use crate::base::clock::Timestamp;
use crate::base::exchange::{Reply, Request};
use crate::base::name::Name;
use crate::base::secret::Keyring;
use crate::queue::ticket::{self, Binding, Claim, Kind, Slip};

/// The query parameter that carries a link.
pub const LINK_PARAMETER: &str = "tidegate-link";

/// Longest life of a link. A browser would forget the cookie of a longer one anyway.
pub const LINK_LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// Why a request ends here, as a metric label.
const TAKEN: &str = "room_link";

/// Who goes around. By default nobody.
#[derive(Debug, Clone, Default)]
pub struct Bypass {
    /// Clients of these networks.
    pub networks: Networks,
    /// Whether links are taken.
    pub links: bool,
}

/// Why somebody goes around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The client's network.
    Network,
    /// A link that is good.
    Link,
}

impl By {
    /// Every one, in the order of its declaration.
    pub(super) const ALL: [Self; 2] = [Self::Network, Self::Link];

    /// As a metric label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Link => "link",
        }
    }
}

/// A link around `room` that is good until `until`.
pub fn link(keyring: &Keyring, room: &Name, until: Timestamp) -> Slip {
    let claim = Claim {
        epoch: 0,
        number: 0,
        moment: until,
        binding: Binding::to(None),
        rank: 0,
        heard: Timestamp::default(),
    };
    ticket::sign(keyring, Kind::Link, room, &claim)
}

impl Room {
    /// Whether the request goes around the room, and why.
    pub fn bypass(&self, request: &Request<'_>) -> Option<By> {
        let rule = self.rule();
        if rule.bypass.networks.contain(request.client_ip) {
            return Some(By::Network);
        }
        let shown = || self.cookies.values(Kind::Link, request).chain(asked_with(request));
        let good = rule.bypass.links && shown().any(|text| self.link_expiry(text, request.now).is_some());
        good.then_some(By::Link)
    }

    /// What a page that is asked for with a good link in its address gets: the link as a cookie, and the address
    /// without it. Other methods than GET and HEAD are not sent elsewhere; their link is good as it is.
    pub fn take_link(&self, request: &Request<'_>) -> Option<Reply> {
        let reading = request.method == Method::GET || request.method == Method::HEAD;
        if !reading || !self.rule().bypass.links {
            return None;
        }
        let text = asked_with(request)?;
        let until = self.link_expiry(text, request.now)?;
        let location = HeaderValue::try_from(without_link(request)).ok()?;
        let cookie = self.cookies.link(text, until.since(request.now), request.scheme);
        let reply = Reply::empty(StatusCode::SEE_OTHER, TAKEN).header(LOCATION, location);
        Some(
            reply
                .header(SET_COOKIE, cookie)
                .header(CACHE_CONTROL, HeaderValue::from_static("no-store")),
        )
    }

    fn link_expiry(&self, text: &str, now: Timestamp) -> Option<Timestamp> {
        let claim = ticket::verify(&self.keyring, Kind::Link, &self.name, text)?;
        (claim.moment > now).then_some(claim.moment)
    }
}

fn asked_with<'r>(request: &Request<'r>) -> Option<&'r str> {
    request.query_value(LINK_PARAMETER)
}

/// The address of the request on this very host. One leading slash: two would name another host.
fn without_link(request: &Request<'_>) -> String {
    let is_link = |pair: &&str| pair.split_once('=').map_or(*pair, |(name, _)| name) == LINK_PARAMETER;
    let pairs = request.query.unwrap_or_default().split('&');
    let rest: Vec<&str> = pairs.filter(|pair| !is_link(pair)).collect();
    let path = request.path.trim_start_matches('/');
    match rest.is_empty() {
        true => format!("/{path}"),
        false => format!("/{path}?{}", rest.join("&")),
    }
}

#[cfg(test)]
mod tests;
