//! What a limit or a room tells its clients apart by, as operators write it.

use schemars::JsonSchema;
use serde::Deserialize;

use super::one_or_many::OneOrMany;

/// One part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyPart {
    /// The client's address, behind trusted proxies.
    ClientIp,
    /// The route that took the request.
    Route,
    /// The host asked for.
    Host,
    /// The normalised path.
    Path,
    /// The value of this request header.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The value of this query parameter.
    Query(String),
    /// The value of this claim of a verified JWT.
    Jwt(String),
}

/// One part, or several that count together.
pub type KeySpec = OneOrMany<KeyPart>;
