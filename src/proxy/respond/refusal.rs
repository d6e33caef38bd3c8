//! Why the gateway itself ends a request, and the answer that says so.

use std::time::Duration;

use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use pingora::{Error, ErrorSource, ErrorType};

use crate::base::exchange::Reply;
use crate::proxy::client_closed;
use crate::proxy::forward::NO_SERVER;

/// Why the gateway itself refuses a request, or could not have it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request target is too long.
    TargetTooLong,
    /// The headers are too many or too large.
    HeadTooLarge,
    /// There is no host, more than one, or one that cannot be.
    BadHost,
    /// The path has no canonical spelling.
    BadPath,
    /// The method is one that nobody needs and that tells too much.
    BadMethod,
    /// The end of the body could be read in two ways.
    BadFraming,
    /// The body has a transfer coding other than `chunked`.
    UnknownCoding,
    /// No route takes it.
    NoRoute,
    /// The body is larger than the route takes.
    BodyTooLarge,
    /// The client did not send its request in time.
    RequestTimeout,
    /// The client is gone; nobody reads this answer.
    ClientGone,
    /// What the client sent cannot be read.
    BadRequest,
    /// The upstream works on as many requests as it may.
    UpstreamFull,
    /// No server of the upstream could be reached.
    UpstreamUnreachable,
    /// The server did not answer in time.
    UpstreamTimeout,
    /// What the server answered cannot be passed on.
    UpstreamBroken,
    /// A fault of the gateway's own.
    Internal,
}

/// What may be asked with where a method is refused whatever the route; a route may take fewer.
const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BadHost | Self::BadPath | Self::BadFraming | Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::BadMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::ClientGone => client_closed(),
            Self::UpstreamFull => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamUnreachable | Self::UpstreamBroken => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The label under which it is counted and logged.
    pub const fn reason(self) -> &'static str {
        self.words().0
    }

    /// That label, and the sentence for the client.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::TargetTooLong => ("target_too_long", "The address asked for is too long."),
            Self::HeadTooLarge => ("head_too_large", "The request's headers are too large."),
            Self::BadHost => ("bad_host", "The request must name one valid host."),
            Self::BadPath => ("bad_path", "The path can be read in more than one way."),
            Self::BadMethod => ("bad_method", "This method is not served here."),
            Self::BadFraming => (
                "bad_framing",
                "The end of the request's body can be read in more than one way.",
            ),
            Self::UnknownCoding => (
                "unknown_coding",
                "The only transfer coding that is understood here is chunked.",
            ),
            Self::NoRoute => ("no_route", "There is nothing here."),
            Self::BodyTooLarge => ("body_too_large", "The request's body is too large."),
            Self::RequestTimeout => ("request_timeout", "The request took too long to arrive."),
            Self::ClientGone => ("client_gone", ""),
            Self::BadRequest => ("bad_request", "The request cannot be understood."),
            Self::UpstreamFull => ("upstream_full", "The service is busy. Try again shortly."),
            Self::UpstreamUnreachable => ("upstream_unreachable", "The service cannot be reached."),
            Self::UpstreamTimeout => ("upstream_timeout", "The service did not answer in time."),
            Self::UpstreamBroken => ("upstream_broken", "The service's answer was not valid."),
            Self::Internal => ("internal", "Something went wrong here."),
        }
    }

    /// The answer.
    pub fn reply(self) -> Reply {
        let (status, (reason, detail)) = (self.status(), self.words());
        let reply = Reply::problem(status, reason, detail);
        match self {
            Self::ClientGone => Reply::empty(status, reason),
            Self::UpstreamFull => reply.header(RETRY_AFTER, HeaderValue::from_static("1")),
            Self::BadMethod => reply.header(ALLOW, HeaderValue::from_static(ALLOWED)),
            // What follows is not waited for, or not to be trusted.
            Self::RequestTimeout | Self::BadFraming | Self::UnknownCoding => reply.keep(Some(Duration::ZERO)),
            _ => reply,
        }
    }

    /// What a failure of the proxying comes to; none when the client is gone and nobody is left to answer.
    pub(super) fn of(error: &Error) -> Option<Self> {
        match (error.etype(), error.esource()) {
            (ErrorType::HTTPStatus(413), _) => Some(Self::BodyTooLarge),
            (ErrorType::ReadTimedout, ErrorSource::Downstream) => Some(Self::RequestTimeout),
            (
                ErrorType::ReadError
                | ErrorType::WriteError
                | ErrorType::ConnectionClosed
                | ErrorType::WriteTimedout
                | ErrorType::H2Error,
                ErrorSource::Downstream,
            ) => None,
            (_, ErrorSource::Downstream) => Some(Self::BadRequest),
            (
                ErrorType::ConnectTimedout
                | ErrorType::ConnectRefused
                | ErrorType::ConnectNoRoute
                | ErrorType::ConnectError
                | ErrorType::SocketError,
                _,
            ) => Some(Self::UpstreamUnreachable),
            (kind, _) if *kind == NO_SERVER => Some(Self::UpstreamUnreachable),
            (ErrorType::ReadTimedout | ErrorType::WriteTimedout, _) => Some(Self::UpstreamTimeout),
            (_, ErrorSource::Upstream) => Some(Self::UpstreamBroken),
            (_, ErrorSource::Internal | ErrorSource::Unset) => Some(Self::Internal),
        }
    }
}
