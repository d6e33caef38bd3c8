//! A place regained by a slip of an earlier life of the room, where the store and all gateways have lost it.
//!
//! What a slip is worth then is the queue's to say (`queue/earlier`). Here it is found in a request, and a ticket is kept
//! fresh enough to be worth something: it is signed anew with a poll now and then.

use std::time::Duration;

use http::HeaderValue;

use super::Room;
use super::replica::Place;
use crate::base::exchange::Request;
use crate::queue::earlier::{Return, Returned, Shows};
use crate::queue::ticket::{Claim, Kind};
use crate::queue::turn::Stage;
use crate::store::rooms::RoomFault;

/// A ticket is signed anew after such a part of `abandon_after`: with about every poll, for those far from the front.
const FRESH_PART: u32 = 8;

/// A ticket that was signed so shortly before this gateway last heard of the room, or since, may be news to it: gateways
/// turn once a second at least.
const SIGNED_LATELY: Duration = Duration::from_secs(1);

impl Room {
    /// The place that the request's holder had in an earlier life of the room and has again, as a claim of this life and
    /// where it stands. None where nothing of the kind is shown, or it is worth nothing.
    pub(super) async fn regain(&self, request: &Request<'_>) -> Result<Option<(Claim, Stage)>, RoomFault> {
        let Some((claim, shown)) = self.of_earlier_life(request) else {
            return Ok(None);
        };
        Ok(match self.come_back(shown).await? {
            Returned::Unknown => None,
            Returned::Place { number, stage, .. } => {
                let moment = match shown.shows {
                    Shows::Ticket { .. } => claim.moment,
                    Shows::Pass { .. } => self.store_time(request.now),
                };
                Some((self.claim(number, moment, request), stage))
            }
        })
    }

    /// Hears of the room once more, where a ticket that looks as if its place were gone was signed a moment ago: maybe
    /// another gateway gave the place back, and this one has not heard of it.
    pub(super) async fn catch_up_with(&self, claim: &Claim) -> Result<(), RoomFault> {
        let is_gone = self.replica().place(claim.number) == Place::Gone;
        let heard = self.replica().heard();
        let heard = heard.map(|heard| self.store_time(heard));
        if is_gone && heard.is_some_and(|heard| claim.heard + SIGNED_LATELY > heard) {
            self.caught_up().await?;
        }
        Ok(())
    }

    /// The slip of an earlier life that is worth most: a pass that is good, or else a ticket whose pass is not there.
    fn of_earlier_life(&self, request: &Request<'_>) -> Option<(Claim, Return)> {
        let epoch = self.epoch()?;
        let holder = self.rule().holder(request);
        let of_earlier = |claim: &Claim| claim.epoch != epoch && claim.binding.admits(holder);
        let now = self.store_time(request.now);
        let passes: Vec<Claim> = self.claims(Kind::Pass, request).filter(of_earlier).collect();
        let good = passes.iter().filter(|claim| claim.moment > now);
        let pass = good.max_by_key(|claim| claim.epoch).map(|claim| {
            let until = claim.moment;
            (*claim, Shows::Pass { until })
        });
        let is_used = |ticket: &Claim| {
            let same = |pass: &Claim| (pass.epoch, pass.number) == (ticket.epoch, ticket.number);
            passes.iter().any(same)
        };
        let (claim, shows) = pass.or_else(|| {
            let tickets = self.claims(Kind::Ticket, request).filter(of_earlier);
            let ticket = tickets
                .filter(|claim| !is_used(claim))
                .max_by_key(|claim| claim.epoch)?;
            Some((ticket, Shows::Ticket { heard: ticket.heard }))
        })?;
        let shown = Return {
            epoch: claim.epoch,
            rank: claim.rank,
            shows,
            owner: self.rule().owner(request).ok(),
        };
        Some((claim, shown))
    }

    /// The ticket signed anew, where what it says of its holder has become old.
    pub(super) fn freshened(&self, claim: &Claim, request: &Request<'_>) -> Option<HeaderValue> {
        let abandon_after = self.rule().terms.abandon_after;
        let now = self.store_time(request.now);
        let is_old = claim.heard + abandon_after / FRESH_PART <= now;
        let drawn = self.replica().rank_drawn(claim.number) != claim.rank;
        (is_old || drawn).then(|| self.ticket_cookie(claim, request.scheme))
    }
}
