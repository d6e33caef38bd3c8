//! The price of a new place: what a request must show before anything is asked of the store for it.
//!
//! Whoever holds a ticket or a pass pays nothing. A solution stands in the header `Tidegate-Work`; it is checked with one
//! HMAC and one hash, and taken once at each gateway. Without a script there is nothing to solve with: where the rule
//! says `no_script: wait`, the page keeps a challenge in a cookie and is let on once that is [`NO_SCRIPT_DELAY`] old,
//! one visitor from each network in each span of that length. That is a brake and no lock: a program can wait too.

use std::time::Duration;

use http::HeaderName;

use super::Room;
use super::rule::NoScript;
use crate::base::client_ip::{CLIENT_PREFIX_V6, fold};
use crate::base::exchange::Request;
use crate::base::mix::mix;
use crate::base::secret::random_bytes;
use crate::queue::work::{self, Audience, Challenge, LIFE, Worthless};

/// Where a client puts its solution.
pub const TIDEGATE_WORK: HeaderName = HeaderName::from_static("tidegate-work");

/// How long a page without a script waits instead of solving.
const NO_SCRIPT_DELAY: Duration = Duration::from_secs(10);

/// A challenge, as its receiver needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// The challenge to solve.
    pub challenge: String,
    /// Zero bits that the solution must start with.
    pub bits: u8,
    /// How long it may be solved and used.
    pub good_for: Duration,
    /// When a page without a script may come again; none where it need not.
    pub again_in: Option<Duration>,
}

/// What became of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bill {
    Given,
    Solved,
    Waited,
    Wrong,
    Expired,
    Replayed,
}

impl Bill {
    /// Every one, in the order of its declaration.
    pub(super) const ALL: [Self; 6] = [
        Self::Given,
        Self::Solved,
        Self::Waited,
        Self::Wrong,
        Self::Expired,
        Self::Replayed,
    ];

    /// As a metric label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Solved => "solved",
            Self::Waited => "waited",
            Self::Wrong => "wrong",
            Self::Expired => "expired",
            Self::Replayed => "replayed",
        }
    }
}

impl Room {
    /// What this request must do before it may have a new place; none when it has, or need not. `is_page`: it is a
    /// browser's, which would be shown a page.
    pub(super) fn price(&self, request: &Request<'_>, is_page: bool) -> Option<Price> {
        let rule = self.rule();
        let terms = rule.challenge.as_ref()?;
        if let Some(solution) = request.header(TIDEGATE_WORK) {
            let bill = self.settle(solution, request);
            self.meters.bill(bill);
            if bill == Bill::Solved {
                return None;
            }
        }
        let waits = is_page && terms.no_script == NoScript::Wait;
        if waits && let Some((text, challenge)) = self.shown_challenge(request) {
            let passed = request.now.since(challenge.issued);
            if passed < NO_SCRIPT_DELAY {
                return Some(price(text.to_owned(), &challenge, request));
            }
            if self.spend(self.span_of(request, &challenge), request) {
                self.meters.bill(Bill::Waited);
                return None;
            }
        }
        self.meters.bill(Bill::Given);
        let salt = u64::from_be_bytes(random_bytes());
        let text = work::issue(&self.keyring, self.audience(request), terms.work, request.now, salt);
        let challenge = Challenge {
            bits: terms.work,
            issued: request.now,
            mark: 0,
        };
        let price = price(text, &challenge, request);
        Some(Price {
            again_in: price.again_in.filter(|_| waits),
            ..price
        })
    }

    fn settle(&self, solution: &str, request: &Request<'_>) -> Bill {
        match work::solved(&self.keyring, self.audience(request), solution, request.now) {
            Ok(challenge) if self.spend(challenge.mark, request) => Bill::Solved,
            Ok(_) => Bill::Replayed,
            Err(Worthless::Wrong) => Bill::Wrong,
            Err(Worthless::Expired) => Bill::Expired,
        }
    }

    /// The challenge that a page without a script waits with.
    fn shown_challenge<'r>(&self, request: &Request<'r>) -> Option<(&'r str, Challenge)> {
        let texts = self.cookies.works(request);
        let mut kept = texts.filter_map(|text| Some((text, work::read(&self.keyring, self.audience(request), text)?)));
        kept.find(|(_, challenge)| !work::has_expired(challenge, request.now))
    }

    /// All that was given to one network within one delay counts as one.
    fn span_of(&self, request: &Request<'_>, challenge: &Challenge) -> u64 {
        let network = self.audience(request).network.to_be_bytes();
        let (high, low) = network.split_at(8);
        let number = |half: &[u8]| half.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        let span = challenge.issued.as_secs() / NO_SCRIPT_DELAY.as_secs();
        mix(mix(mix(number(high)) ^ number(low)) ^ span)
    }

    fn spend(&self, mark: u64, request: &Request<'_>) -> bool {
        self.spent().spend(mark, request.now)
    }

    fn audience(&self, request: &Request<'_>) -> Audience<'_> {
        let network = match fold(request.client_ip, CLIENT_PREFIX_V6) {
            std::net::IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            std::net::IpAddr::V6(address) => address.to_bits(),
        };
        Audience {
            room: &self.name,
            network,
        }
    }
}

fn price(challenge: String, of: &Challenge, request: &Request<'_>) -> Price {
    let passed = request.now.since(of.issued);
    Price {
        challenge,
        bits: of.bits,
        good_for: LIFE.saturating_sub(passed),
        again_in: Some(NO_SCRIPT_DELAY.saturating_sub(passed)),
    }
}

#[cfg(test)]
mod tests;
