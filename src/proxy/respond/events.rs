//! An answer without an end of its own: a visitor's place as server-sent events. It ends when there is nothing more to
//! tell, when its time is over, when the process stops, and when the client is gone, which is noticed at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::{StatusCode, Version};
use pingora::{Error, ErrorType};
use pingora_proxy::Session;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{head, own, prepare};
use crate::proxy::{Ctx, Gateway};
use crate::room::events::{Events, LOOK_EVERY, Look};

/// Why the request ended here, for the access log.
const EVENTS: &str = "queue_events";

/// Writes a stream from its head to its end.
pub(in crate::proxy) async fn write(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut Ctx,
    mut events: Box<Events>,
) -> pingora::Result<()> {
    ctx.reason = Some(EVENTS);
    ctx.effects.place = events.place();
    let mut head = head(StatusCode::OK, own(events.headers(), None, ctx)?);
    if session.req_header().version == Version::HTTP_11 {
        head.insert_header(TRANSFER_ENCODING, "chunked")?;
    }
    prepare(gateway, session, &mut head);
    let head = session.write_response_header(Box::new(head), false);
    head.await.map_err(Error::into_down)?;
    ctx.began_after = Some(gateway.clock.now().since(ctx.started));
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        next(session, &mut looks).await?;
        if gateway.stopping.load(Ordering::Relaxed) {
            break;
        }
        // What the plan of its beginning holds is not to live as long as the stream.
        let plan = gateway.plan.load();
        if !Arc::ptr_eq(&ctx.plan, &plan) {
            ctx.plan = Arc::clone(&plan);
        }
        drop(plan);
        match events.look(gateway.clock.now()) {
            Look::Quiet => {}
            Look::Say(text) => say(session, Some(text)).await?,
            Look::Last(text) => {
                say(session, Some(text)).await?;
                break;
            }
            Look::End => break,
        }
    }
    say(session, None).await
}

/// Sends some of the stream; nothing is its end.
async fn say(session: &mut Session, text: Option<String>) -> pingora::Result<()> {
    let is_end = text.is_none();
    let said = session.write_response_body(text.map(Bytes::from), is_end);
    said.await.map_err(Error::into_down)
}

/// Waits for the next look; an error when the client is gone meanwhile.
async fn next(session: &mut Session, looks: &mut Interval) -> pingora::Result<()> {
    tokio::select! {
        biased;
        _ = looks.tick() => Ok(()),
        // There is no body to come: what this tells is the end of the connection, or of the stream.
        _ = session.as_downstream_mut().read_body_or_idle(true) => {
            Err(Error::new_down(ErrorType::ConnectionClosed))
        }
    }
}
