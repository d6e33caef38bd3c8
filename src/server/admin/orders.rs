//! Orders about a room: what an operator may say to it, read with suspicion, and carried out for the whole fleet.

use std::num::NonZeroU64;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, ORIGIN};
use pingora::protocols::http::ServerSession;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{json, problem};
use crate::base::exchange::Reply;
use crate::base::rate::Rate;
use crate::queue::terms::{Mode, Setting, VISITORS_MAX};
use crate::room::Room;
use crate::room::snapshot::RoomSnapshot;
use crate::store::rooms::RoomFault;

/// Largest body of an order, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// For the whole of it to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// An order about a room. A field left out stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Back to what the rule file says, before anything else of this order is done.
    #[serde(default)]
    reset: bool,
    mode: Option<Mode>,
    #[serde(default)]
    capacity: CapacityOrder,
    /// The order number whose place or pass ends.
    revoke: Option<NonZeroU64>,
}

impl Order {
    /// An order that may be carried out.
    ///
    /// # Errors
    /// With what is wrong with it.
    fn read(body: &[u8]) -> Result<Self, String> {
        let order: Self =
            serde_json::from_slice(body).map_err(|error| format!("The order cannot be read: {error}."))?;
        match order.capacity.visitors.map(NonZeroU64::get) {
            Some(visitors) if visitors > VISITORS_MAX => {
                Err(format!("`visitors` is {visitors}: it is from 1 to {VISITORS_MAX}."))
            }
            _ => Ok(order),
        }
    }

    /// What it says to the room, in the order in which it counts.
    fn settings(&self) -> Vec<Setting> {
        let CapacityOrder { visitors, admit } = self.capacity;
        let settings = [
            self.reset.then_some(Setting::AsWritten),
            visitors.map(|visitors| Setting::Visitors(visitors.get())),
            admit.map(Setting::Admit),
            self.mode.map(Setting::Mode),
        ];
        settings.into_iter().flatten().collect()
    }
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CapacityOrder {
    visitors: Option<NonZeroU64>,
    admit: Option<Rate>,
}

/// What came of it: the room as it then is.
#[derive(Debug, Serialize)]
struct Done {
    #[serde(flatten)]
    room: RoomSnapshot,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Revoked>,
}

/// Whose place or pass was ended.
#[derive(Debug, Serialize)]
struct Revoked {
    number: NonZeroU64,
    /// `waiting`, `called` or `inside`.
    was: &'static str,
}

/// Reads an order, carries it out, and answers with the room as it then is.
pub(super) async fn carry_out(room: &Room, session: &mut ServerSession) -> Result<Reply, Reply> {
    // A browser says which site's page orders something, and operators' tools do not. The type alone, which it sends to
    // other sites only with their leave, would not do: a site's name can be made to point here once its page is there.
    if session.get_header(ORIGIN).is_some() {
        return Err(problem(StatusCode::FORBIDDEN, "Web pages give no orders."));
    }
    let typed = session
        .get_header(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !typed {
        return Err(problem(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Send the order as application/json.",
        ));
    }
    let body = timeout(BODY_WITHIN, read_body(session)).await.map_err(|_| late())??;
    let order = Order::read(&body).map_err(|detail| problem(StatusCode::BAD_REQUEST, &detail))?;
    let settings = order.settings();
    if !settings.is_empty() {
        room.set_all(settings.clone()).await.map_err(unheard)?;
    }
    for setting in settings {
        log::info!("room {}: {setting} by order", room.name());
    }
    let revoked = match order.revoke {
        Some(number) => Some(revoke(room, number).await?),
        None => None,
    };
    let room = room.snapshot();
    Ok(json(&Done { room, revoked }))
}

async fn revoke(room: &Room, number: NonZeroU64) -> Result<Revoked, Reply> {
    let was = room.revoke(number.get()).await.map_err(unheard)?;
    let was = was.ok_or_else(|| {
        let detail = format!(
            "Number {number} of room {} holds neither a place nor a pass.",
            room.name()
        );
        problem(StatusCode::NOT_FOUND, &detail)
    })?;
    let was = was.as_str();
    log::info!(
        "room {}: number {number}, which was {was}, was revoked by order",
        room.name()
    );
    Ok(Revoked { number, was })
}

fn unheard(_: RoomFault) -> Reply {
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "The store did not answer; ask for the room to see what holds.",
    )
}

fn late() -> Reply {
    problem(StatusCode::REQUEST_TIMEOUT, "The order did not arrive in time.")
}

async fn read_body(session: &mut ServerSession) -> Result<Vec<u8>, Reply> {
    let mut body = Vec::new();
    loop {
        match session.read_request_body().await {
            Ok(Some(piece)) if body.len() + piece.len() <= BODY_BYTES_MAX => body.extend_from_slice(&piece),
            Ok(None) => return Ok(body),
            Ok(Some(_)) => return Err(problem(StatusCode::PAYLOAD_TOO_LARGE, "An order is small.")),
            Err(_) => return Err(problem(StatusCode::BAD_REQUEST, "The order did not arrive whole.")),
        }
    }
}
