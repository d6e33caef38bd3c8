//! Floor 4: what may be done to a request. One file a plugin, one line in the table below.
//!
//! A plugin sees a [`Request`], may leave [`Effects`], and answers with a [`Verdict`]. It never sees the
//! connection, so it can be tested with plain values, and nothing but `proxy/` can answer a client.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::exchange::{Effects, Reply, Request};
use crate::base::header_rules::HeaderChanges;
use crate::base::misfit::Misfit;
use crate::base::name::Name;
use crate::room::Room;
use crate::throttle::Throttles;

/// One step of a chain, compiled: immutable, shared by all requests of its plan.
pub trait Plugin: fmt::Debug + Send + Sync {
    /// Decides about one request. What needs no waiting is decided at once, without a future.
    fn request<'a>(&'a self, request: &'a Request<'a>, effects: &'a mut Effects) -> Verdict<'a>;

    /// Sees the headers of the upstream's answer on its way to the client; what is still in `effects` will be done to
    /// them. Steps are asked in the order opposite to that of requests, and none about an answer of the gateway's own.
    fn answer(&self, _request: &Request<'_>, _headers: &HeaderMap, _effects: &mut Effects) {}
}

/// What a plugin says of a request.
#[must_use]
pub enum Verdict<'a> {
    /// The next step may look at it.
    Continue,
    /// This is the answer; no later step sees the request.
    Reply(Box<Reply>),
    /// The decision takes time: a draw from the store, a place in a queue. It ends within a bound of its own.
    Hold(Pin<Box<dyn Future<Output = Verdict<'a>> + Send + 'a>>),
}

impl Verdict<'_> {
    /// This answer; without one, the next step.
    fn of(reply: Option<Reply>) -> Self {
        reply.map_or(Self::Continue, |reply| Self::Reply(Box::new(reply)))
    }
}

/// What a request must have passed before a step makes sense. A chain may not go backwards through these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Whether they may.
    Access,
    /// Whether there is room for them now.
    Admission,
    /// What is changed on the way, or answered in the upstream's place.
    Transform,
}

/// What a plugin can reach while it is being built.
#[derive(Debug)]
pub struct Env<'a> {
    /// Limits, by name; they outlive a plan.
    pub throttles: &'a Throttles,
    /// The rooms of this plan, by name.
    pub rooms: &'a HashMap<Name, Arc<Room>>,
}

/// Both plugins that change headers are this; they differ in which way the headers go.
impl Plugin for HeaderChanges {
    fn request<'a>(&'a self, request: &'a Request<'a>, effects: &'a mut Effects) -> Verdict<'a> {
        self.apply(request, effects);
        Verdict::Continue
    }
}

/// Declares the plugins: their modules, the steps an operator may write, and the table that lists them.
macro_rules! plugins {
    ($($stage:ident: $step:ident in $module:ident,)*) => {
        $(pub mod $module;)*

        /// A step of a chain as the operator writes it.
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ChainStep {
            $(
                #[doc = concat!("`", stringify!($module), "`: see that plugin's own description.")]
                $step($module::Config),
            )*
        }

        impl ChainStep {
            /// The name under which the operator wrote it.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$step(_) => stringify!($module),)* }
            }

            /// The stage it belongs to.
            pub const fn stage(&self) -> Stage {
                match self { $(Self::$step(_) => Stage::$stage,)* }
            }

            /// What runs.
            pub fn build(self, env: &Env<'_>) -> Result<Box<dyn Plugin>, Vec<Misfit>> {
                match self { $(Self::$step(config) => Ok(Box::new(config.build(env)?)),)* }
            }
        }
    };
}

plugins! {
    Access: IpFilter in ip_filter,
    Access: Methods in methods,
    Access: MaxBody in max_body,
    Admission: RateLimit in rate_limit,
    Admission: WaitingRoom in waiting_room,
    Transform: RequestHeaders in request_headers,
    Transform: ResponseHeaders in response_headers,
    Transform: Rewrite in rewrite,
    Transform: Redirect in redirect,
    Transform: Respond in respond,
}

#[cfg(test)]
mod sample {
    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};
    use crate::store::memory::limits::MemoryLimits;
    use crate::throttle::Settings;

    impl Env<'static> {
        /// Nothing to reach: no limit yet, and no room. It is never given back, which a test can afford.
        pub(super) fn sample() -> Self {
            let clock = ManualClock::at(Timestamp::default());
            let store = Arc::new(MemoryLimits::new(Arc::<ManualClock>::clone(&clock)));
            Self {
                throttles: Box::leak(Box::new(Throttles::new(Settings::default(), store, clock))),
                rooms: Box::leak(Box::default()),
            }
        }
    }
}
