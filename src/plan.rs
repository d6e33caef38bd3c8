//! Floor 5: the compiled gateway. A plan is immutable and swapped whole; a request keeps the plan it came under.

use std::fmt;
use std::sync::Arc;

use crate::base::name::Name;
use crate::plugins::Plugin;
use crate::routing::table::Table;
use crate::telemetry::route_meter::RouteMeter;
use crate::upstream::Upstream;

/// What the rule files amount to.
#[derive(Debug)]
pub struct Plan {
    /// Counted from 1 at start, one more with every reload that was applied.
    pub generation: u64,
    /// Which route takes a request.
    pub routes: Table<Arc<Route>>,
}

/// What happens to the requests of one route.
pub struct Route {
    /// Its name.
    pub name: Name,
    /// Its steps, in the order written.
    pub chain: Vec<Box<dyn Plugin>>,
    /// Where requests go that no step answered.
    pub upstream: Option<Arc<Upstream>>,
    /// Its counters.
    pub meter: RouteMeter,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("name", &self.name)
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}
