//! Who may go through: passes, tickets, and the visitors who have neither.
//!
//! A good pass costs no store call and no waiting. Everything else is a place in the queue: the one that the
//! visitor's ticket speaks of, or a new one.

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Room;
use super::price::Price;
use super::reception::wants_page;
use super::replica::Place;
use super::standing::{Standing, State};
use crate::base::clock::Timestamp;
use crate::base::exchange::{HeaderEdit, Request, Scheme};
use crate::queue::ticket::{self, Claim, Kind, Slip};
use crate::queue::turn::{Entered, Join, Joined, Otherwise, Refusal, Stage};
use crate::store::rooms::RoomFault;

/// A pass is renewed once more than such a part of its life is used: often enough that it never runs out under
/// somebody who uses it, and not with every request.
const RENEW_AFTER_PART: u32 = 10;

/// The header in which an origin speaks of the visit that its answer belongs to.
pub const TIDEGATE_PASS: HeaderName = HeaderName::from_static("tidegate-pass");

/// What [`TIDEGATE_PASS`] says when the visit is over.
const END: &str = "end";

/// What goes with a ruling.
#[derive(Debug, Default)]
pub struct Given {
    /// The order number of the place that the request is about.
    pub number: Option<u64>,
    /// The cookies that the answer sets.
    pub cookies: Vec<HeaderValue>,
}

/// What a room says of a request.
#[derive(Debug)]
pub enum Ruling {
    /// It may go on.
    Through(Given),
    /// It must wait.
    Wait(Standing, Given),
    /// It must pay first.
    Challenge(Price),
    /// It gets no place.
    Refused(Refusal),
    /// The store is away, and the rule holds newcomers until it is back.
    Fault,
}

/// What a request's ticket cookie is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Nothing, or nothing genuine, or somebody else's.
    Nothing,
    /// Genuine, from an earlier life of the queue.
    Old,
    /// Genuine: it speaks of this number.
    Ticket(Claim),
}

impl Room {
    /// Whether the request holds a pass that is good now. It may have been renewed by this: then there is a cookie
    /// to set. Costs no store call.
    pub fn pass(&self, request: &Request<'_>) -> Option<Ruling> {
        let claim = self.live_pass(request)?;
        Some(Ruling::Through(Given {
            number: Some(claim.number),
            cookies: self.renewed(&claim, request).into_iter().collect(),
        }))
    }

    /// Ends the visit of whoever asked, if these headers of the origin's answer say so: the pass of the request, or
    /// the one that this very answer was about to bring, is worth nothing from now on, and the browser is told to
    /// forget it. `to_client` is what will be done to the answer. Nothing happens to who has no good pass.
    pub fn heed(&self, request: &Request<'_>, answer: &HeaderMap, to_client: &mut Vec<HeaderEdit>) {
        if !answer.get_all(TIDEGATE_PASS).iter().any(|said| said == END) {
            return;
        }
        let given = self.given(request.scheme, to_client);
        let Some(claim) = given.or_else(|| self.live_pass(request)) else {
            return;
        };
        self.leave(claim.number);
        self.replica_mut().end(claim.number);
        let forget = self.cookies.forget(Kind::Pass, request.scheme);
        to_client.push(HeaderEdit::Add(SET_COOKIE, forget));
    }

    /// The pass that an answer was about to bring: a new one, or a renewed. It is taken out.
    fn given(&self, scheme: Scheme, to_client: &mut Vec<HeaderEdit>) -> Option<Claim> {
        let pass = |edit: &HeaderEdit| match edit {
            HeaderEdit::Add(SET_COOKIE, line) => {
                let value = self.cookies.value_set(Kind::Pass, scheme, line)?;
                ticket::verify(&self.keyring, Kind::Pass, &self.name, value)
            }
            HeaderEdit::Add(..) | HeaderEdit::Set(..) | HeaderEdit::Remove(_) => None,
        };
        let at = to_client.iter().position(|edit| pass(edit).is_some())?;
        pass(&to_client.remove(at))
    }

    /// Lets the request through, or gives it a place: by its ticket, or by a new one. May wait for a turn. Who finds more
    /// callers here than a healthy store's turns carry is held whatever the rule says of faults: it opens the room to
    /// an outage, never to a rush.
    pub async fn admit(&self, request: &Request<'_>, otherwise: Otherwise) -> Ruling {
        match self.try_admit(request, otherwise).await {
            Ok(ruling) => ruling,
            Err(_) if self.is_open_to_all() => Ruling::Through(Given::default()),
            Err(_) => Ruling::Fault,
        }
    }

    async fn try_admit(&self, request: &Request<'_>, otherwise: Otherwise) -> Result<Ruling, RoomFault> {
        self.heard_of().await?;
        if let Some(through) = self.pass(request) {
            return Ok(through);
        }
        if let Shown::Ticket(claim) = self.shown(request)
            && let Some(ruling) = self.by_ticket(&claim, request).await?
        {
            return Ok(ruling);
        }
        if let Some((claim, stage)) = self.regain(request).await? {
            return self.by_place(&claim, stage, request).await;
        }
        if let Some(price) = self.price(request, wants_page(request)) {
            return Ok(Ruling::Challenge(price));
        }
        let rule = self.rule();
        let (owner, share) = (rule.owner(request), rule.share(request));
        let joined = self
            .join(Join {
                owner,
                otherwise,
                share,
            })
            .await?;
        self.by_joining(joined, request).await
    }

    /// What the place of a ticket is worth to a guarded page; none when a new place is needed.
    async fn by_ticket(&self, claim: &Claim, request: &Request<'_>) -> Result<Option<Ruling>, RoomFault> {
        self.catch_up_with(claim).await?;
        let place = self.replica().place(claim.number);
        match place {
            Place::Gone => Ok(None),
            Place::Waiting { .. } => {
                self.touch(claim.number);
                let cookies = self.freshened(claim, request).into_iter().collect();
                Ok(Some(self.wait(claim, cookies, request.now)))
            }
            Place::Called | Place::Inside => self.by_entering(claim, request).await,
        }
    }

    /// A guarded page asked for with a called ticket enters by itself. One that entered a moment ago gets the same
    /// pass again (the same number, slot and expiry): its first answer may never have arrived.
    async fn by_entering(&self, claim: &Claim, request: &Request<'_>) -> Result<Option<Ruling>, RoomFault> {
        let claim_within = self.rule().terms.claim_within;
        let entered = self.enter(claim.number).await?;
        let now = self.store_time(request.now);
        Ok(match entered {
            Entered::Now { until } => Some(self.through(claim, until, request, Vec::new())),
            Entered::Already { since, until } if now.since(since) < claim_within && now < until => {
                Some(self.through(claim, until, request, Vec::new()))
            }
            Entered::NotYet => Some(self.wait(claim, Vec::new(), request.now)),
            Entered::Already { .. } | Entered::Gone => None,
        })
    }

    async fn by_joining(&self, joined: Joined, request: &Request<'_>) -> Result<Ruling, RoomFault> {
        let Joined::Place { number, since, stage } = joined else {
            return Ok(match joined {
                Joined::Refused(Refusal::Off) => Ruling::Through(Given::default()),
                Joined::Refused(refusal) => Ruling::Refused(refusal),
                Joined::Place { .. } => unreachable!("matched above"),
            });
        };
        let claim = self.claim(number, since, request);
        self.by_place(&claim, stage, request).await
    }

    /// What a place is worth that was given just now, with the slips that it is held by.
    async fn by_place(&self, claim: &Claim, stage: Stage, request: &Request<'_>) -> Result<Ruling, RoomFault> {
        let cookies = vec![self.ticket_cookie(claim, request.scheme)];
        Ok(match stage {
            Stage::Inside { until } => self.through(claim, until, request, cookies),
            Stage::Waiting => self.wait(claim, cookies, request.now),
            Stage::Called => match self.by_entering(claim, request).await? {
                Some(Ruling::Through(mut given)) => {
                    given.cookies.extend(cookies);
                    Ruling::Through(given)
                }
                _ => self.wait(claim, cookies, request.now),
            },
        })
    }

    fn through(&self, claim: &Claim, until: Timestamp, request: &Request<'_>, mut cookies: Vec<HeaderValue>) -> Ruling {
        cookies.push(self.pass_cookie(claim, until, request));
        let number = Some(claim.number);
        Ruling::Through(Given { number, cookies })
    }

    fn wait(&self, claim: &Claim, cookies: Vec<HeaderValue>, now: Timestamp) -> Ruling {
        let standing = self.standing(claim.number, now);
        let standing = standing.unwrap_or_else(|| self.arrived(State::Called, now));
        let (since, number) = (Some(claim.moment), Some(claim.number));
        Ruling::Wait(Standing { since, ..standing }, Given { number, cookies })
    }

    /// The request's pass, if it is genuine, of this life of the queue, the holder's, and neither over nor ended.
    pub(super) fn live_pass(&self, request: &Request<'_>) -> Option<Claim> {
        let holder = self.rule().holder(request);
        let epoch = self.epoch()?;
        let now = self.store_time(request.now);
        let mut claims = self.claims(Kind::Pass, request);
        claims.find(|claim| {
            let theirs = claim.epoch == epoch && claim.binding.admits(holder);
            theirs && claim.moment > now && !self.replica().has_ended(claim.number)
        })
    }

    /// The request's ticket. Where a cookie was planted beside the genuine one, the one that is worth most counts.
    pub fn shown(&self, request: &Request<'_>) -> Shown {
        let holder = self.rule().holder(request);
        let epoch = self.epoch();
        let mut shown = Shown::Nothing;
        for claim in self
            .claims(Kind::Ticket, request)
            .filter(|claim| claim.binding.admits(holder))
        {
            if Some(claim.epoch) == epoch {
                return Shown::Ticket(claim);
            }
            shown = Shown::Old;
        }
        shown
    }

    pub(super) fn claims<'a>(&'a self, kind: Kind, request: &'a Request<'a>) -> impl Iterator<Item = Claim> + 'a {
        let values = self.cookies.values(kind, request);
        values.filter_map(move |text| ticket::verify(&self.keyring, kind, &self.name, text))
    }

    fn renewed(&self, claim: &Claim, request: &Request<'_>) -> Option<HeaderValue> {
        let life = self.rule().terms.pass;
        let now = self.store_time(request.now);
        let left = claim.moment.since(now);
        if left + life / RENEW_AFTER_PART >= life {
            return None;
        }
        let until = now + life;
        self.gather().renew(claim.number, until);
        Some(self.pass_cookie(claim, until, request))
    }

    pub(super) fn claim(&self, number: u64, moment: Timestamp, request: &Request<'_>) -> Claim {
        let binding = self.rule().holder(request);
        Claim {
            epoch: self.epoch().unwrap_or(0),
            number,
            moment,
            binding,
            rank: 0,
            heard: Timestamp::default(),
        }
    }

    pub(super) fn ticket_cookie(&self, claim: &Claim, scheme: Scheme) -> HeaderValue {
        self.cookies.ticket(&self.sign(Kind::Ticket, claim), scheme)
    }

    pub(super) fn pass_cookie(&self, claim: &Claim, until: Timestamp, request: &Request<'_>) -> HeaderValue {
        let pass = Claim {
            moment: until,
            ..*claim
        };
        self.cookies.pass(
            &self.sign(Kind::Pass, &pass),
            until.since(self.store_time(request.now)),
            request.scheme,
        )
    }

    /// With the rank as it is known now; a ticket also as of now.
    fn sign(&self, kind: Kind, claim: &Claim) -> Slip {
        let rank = self.replica().rank_drawn(claim.number);
        let heard = match kind {
            Kind::Ticket => self.store_time(self.clock.now()),
            Kind::Pass | Kind::Link => Timestamp::default(),
        };
        let claim = Claim { rank, heard, ..*claim };
        ticket::sign(&self.keyring, kind, &self.name, &claim)
    }
}
