//! Who goes around a room.

use schemars::JsonSchema;
use serde::Deserialize;

use super::address::Network;
use crate::base::one_or_many::OneOrMany;

/// Who passes a room without a place: at least one of the two. They are counted in a metric and never as inside.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bypass {
    /// Clients of these networks, behind trusted proxies, as in `10.0.0.0/8`. Default: none.
    pub networks: OneOrMany<Network>,
    /// Whether whoever holds a link passes that `tidegate room link` made for this room. Default: false.
    pub links: bool,
}
