//! `waiting_room`: lets visitors with a pass through and sends everyone else to the queue of a room.
//!
//! ```yaml
//! chain:
//!   - waiting_room: { room: concert }
//! ```
//!
//! * A visitor with a good pass goes through: no store call, no waiting; one HMAC per request.
//! * A visitor without one goes straight in while there is room, in the same request.
//! * Else a browser (GET or HEAD that would rather have HTML) gets the waiting page, with the room's `status`
//!   (200 unless it says otherwise). Any other client gets 503 with `Retry-After` and a problem document that has
//!   the members of the queue API's status: a client that is no browser must not take a place in a queue for the
//!   resource it asked for, so the page's status is not for it.
//! * A method other than GET or HEAD, without a ticket, goes straight in or nowhere: its sender cannot be shown a
//!   page to wait on, so a place would be taken that nobody comes for.
//! * CORS preflights and the room's `exempt` paths go through. Tickets, passes and `Tidegate-*` headers that the
//!   client sent reach no upstream, with this step or without it.
//! * Clients of the room's `bypass: { networks }`, and holders of a link (`bypass: { links: true }`, made by
//!   `tidegate room link`), go through without a place. A link in the address becomes a cookie.
//! * An upstream that answers with `Tidegate-Pass: end` ends the visit: the place inside is the next visitor's, and
//!   the pass is worth nothing from then on. The header does not reach the client, whose cookie is cleared.
//! * Store away: those inside go on, those waiting keep seeing their place; newcomers follow the room's
//!   `on_store_fault`.

use std::sync::Arc;

use http::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Env, Plugin, Verdict};
use crate::base::exchange::{Effects, Request};
use crate::base::misfit::Misfit;
use crate::base::name::Name;
use crate::room::Room;
use crate::room::registry::find;

/// As written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The room, by its name under `rooms:`.
    room: Name,
}

/// As run.
#[derive(Debug)]
pub struct WaitingRoom {
    room: Arc<Room>,
}

impl Config {
    pub(super) fn build(self, env: &Env<'_>) -> Result<WaitingRoom, Vec<Misfit>> {
        let Self { room } = self;
        let room = find(env.rooms, &room).map_err(|misfit| vec![misfit.under("room")])?;
        Ok(WaitingRoom { room })
    }
}

impl Plugin for WaitingRoom {
    fn request<'a>(&'a self, request: &'a Request<'a>, effects: &'a mut Effects) -> Verdict<'a> {
        if let Some(reply) = self.room.take_link(request) {
            return Verdict::Reply(Box::new(reply));
        }
        if !self.room.concerns(request) {
            return Verdict::Continue;
        }
        match self.room.pass(request) {
            Some(ruling) => Verdict::of(self.room.carry_out(ruling, request, effects)),
            None => Verdict::Hold(Box::pin(async move {
                Verdict::of(self.room.receive(request, effects).await)
            })),
        }
    }

    fn answer(&self, request: &Request<'_>, headers: &HeaderMap, effects: &mut Effects) {
        self.room.heed(request, headers, &mut effects.to_client);
    }
}

#[cfg(test)]
mod tests;
