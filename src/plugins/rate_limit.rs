//! `rate_limit`: may this client ask so often?
//!
//! One limit, or several that a request must pass together: all are asked before any is charged for good, and a
//! request that one of them refuses costs the others nothing. What is spent here stays spent when a later step of the
//! chain answers the request.
//!
//! A request that stays within its budgets is decided without a future, a lock of its own or a look at the store.
//! Where a budget must be drawn first, the request is held until the draw is answered, at most the store's timeout.
//! What happens while the store is gone is each limit's `on_store_fault`.
//!
//! A request over a limit climbs that limit's ladder, `over`:
//!
//! * `delay` holds it until there is budget again, first come, first served for each key, no longer than written and
//!   counted from the moment at which the request came. Nobody of the same key overtakes those who are held, on
//!   whatever route. One that would surely have to wait longer is not held at all, and neither is one too many. What it
//!   had paid to other limits is given back before it waits and paid again afterwards.
//! * `room` hands it to a waiting room. A visitor with a pass goes on and spends nothing on this limit; the room admits
//!   others by its own capacity and shows its queue to the rest. So what reaches the upstream is what the limit admits
//!   *and* what the room's visitors ask for: size `capacity` for what is to come on top. An upstream that answers with
//!   `Tidegate-Pass: end` ends the visit. Requests that the room does not
//!   decide about (preflights, exempt paths, a room that is open to all) are rejected.
//! * `reject` answers 429. Whatever the rungs before it left over ends here.
//!
//! A request costs 1, a fixed number, or what one of its headers says. With `cost: response_bytes` it is admitted while
//! anything is left, and what was sent is debited when the answer is over: answers under way together can overrun the
//! limit by what they send, and nothing more is admitted until that is made up for, by a token bucket wholly, by windows
//! within two of them. What costs more than the limit ever
//! has is answered 429 without a time to come back.
//!
//! A dry run counts and shows in the metrics and the access log alone: it refuses nothing, holds nothing and tells clients nothing. What it
//! has to ask the store for it asks aside, and counts once that has answered.

mod answer;
mod config;
mod cost;
mod counting;
mod over;
mod tab;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use self::answer::{Notice, announce, retry_seconds};
pub use self::config::Config;
use self::config::Missing;
use self::cost::{Cost, never_fits};
use self::over::Ladder;
use self::tab::{Progress, Tab};
use super::{Plugin, Verdict};
use crate::base::client_ip::Networks;
use crate::base::exchange::{Effects, Reply, Request};
use crate::base::key::KeyExtractor;
use crate::room::Room;
use crate::throttle::{Limit, Tally};

/// Most limits of one step.
const LIMITS_MAX: usize = 8;

/// The limits of one step, in the order written.
#[derive(Debug)]
pub struct RateLimit {
    rules: Vec<Rule>,
    /// `RateLimit-Policy`; none when every limit is a dry run.
    policy: Option<HeaderValue>,
}

/// One limit, and all that can be said about it beforehand.
#[derive(Debug)]
struct Rule {
    limit: Arc<Limit>,
    extractor: KeyExtractor,
    cost: Cost,
    missing: Missing,
    /// Clients that it does not apply to.
    except: Networks,
    over: Ladder<Arc<Room>>,
    dry_run: bool,
    /// Clients are told of it.
    announced: bool,
    notice: Notice,
}

impl Rule {
    fn tally(&self) -> &Tally {
        self.limit.tally()
    }
}

impl Plugin for RateLimit {
    fn request<'a>(&'a self, request: &'a Request<'a>, effects: &'a mut Effects) -> Verdict<'a> {
        let mut tab = match Tab::open(&self.rules, request) {
            Ok(tab) => tab,
            Err(lacking) => {
                announce(effects, self.policy.as_ref(), std::iter::empty());
                return Verdict::Reply(Box::new(lacking.notice.missing_key()));
            }
        };
        match tab.spend() {
            Progress::Passed => self.pass(&mut tab, effects),
            Progress::Refused(wait) => self.refuse(&mut tab, wait, request, effects),
            Progress::Never => self.never(&mut tab, effects),
            Progress::Denied => self.deny(&mut tab, effects),
            slow => Verdict::Hold(Box::pin(self.hold(tab, slow, request, effects))),
        }
    }

    fn answer(&self, request: &Request<'_>, headers: &HeaderMap, effects: &mut Effects) {
        // A dry run hands nobody to its room, so a service that speaks of a visit means no such room.
        let rules = self.rules.iter().filter(|rule| !rule.dry_run);
        let rooms = rules.filter_map(|rule| rule.over.room.as_ref());
        rooms.for_each(|room| room.heed(request, headers, &mut effects.to_client));
    }
}

impl RateLimit {
    async fn hold<'a>(
        &'a self,
        mut tab: Tab<'a>,
        mut progress: Progress<'a>,
        request: &'a Request<'a>,
        effects: &'a mut Effects,
    ) -> Verdict<'a> {
        loop {
            progress = match progress {
                Progress::Passed => return self.pass(&mut tab, effects),
                Progress::Refused(wait) => return self.refuse(&mut tab, wait, request, effects),
                Progress::Never => return self.never(&mut tab, effects),
                Progress::Denied => return self.deny(&mut tab, effects),
                Progress::Draw => tab.draw().await,
                Progress::Held(place) => tab.wait(place).await,
                Progress::Room(room, wait) if !room.concerns(request) => tab.reject(wait),
                Progress::Room(room, wait) => {
                    tab.hand_over(wait);
                    match through(room, request, effects).await {
                        None => tab.excuse(),
                        Some(reply) => {
                            self.tell(&mut tab, effects);
                            return Verdict::Reply(Box::new(reply));
                        }
                    }
                }
            }
        }
    }

    fn pass<'a>(&'a self, tab: &mut Tab<'_>, effects: &mut Effects) -> Verdict<'a> {
        tab.settle();
        effects.at_end.extend(tab.owed());
        self.tell(tab, effects);
        Verdict::Continue
    }

    fn never<'a>(&'a self, tab: &mut Tab<'_>, effects: &mut Effects) -> Verdict<'a> {
        tab.give_back();
        self.tell(tab, effects);
        Verdict::Reply(Box::new(never_fits()))
    }

    fn deny<'a>(&'a self, tab: &mut Tab<'_>, effects: &mut Effects) -> Verdict<'a> {
        tab.give_back();
        self.tell(tab, effects);
        Verdict::Reply(Box::new(Notice::denied()))
    }

    fn refuse<'a>(
        &'a self,
        tab: &mut Tab<'_>,
        wait: Duration,
        request: &Request<'_>,
        effects: &mut Effects,
    ) -> Verdict<'a> {
        tab.give_back();
        self.tell(tab, effects);
        let seconds = retry_seconds(wait, request.id);
        Verdict::Reply(Box::new(tab.current().notice.refusal(seconds)))
    }

    /// Tells the client how its limits stand, and the log which of them refused it.
    fn tell(&self, tab: &mut Tab<'_>, effects: &mut Effects) {
        announce(effects, self.policy.as_ref(), tab.standings());
        if let Some(limited) = tab.limited() {
            effects.limited = Some(limited);
        }
    }
}

/// What the room answers; none lets the request through.
async fn through(room: &Room, request: &Request<'_>, effects: &mut Effects) -> Option<Reply> {
    match room.pass(request) {
        Some(ruling) => room.carry_out(ruling, request, effects),
        None => room.receive(request, effects).await,
    }
}

#[cfg(test)]
mod tests;
