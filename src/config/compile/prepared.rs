//! A plan that is built and of which nothing is in force yet. Between the two its servers are asked for, which may take
//! seconds; meanwhile the plan before it goes on whole, with its rooms and its limits.

use std::fmt;
use std::sync::Arc;

use crate::plan::Route;
use crate::room::registry::Reload;
use crate::routing::table::Table;
use crate::throttle::Throttles;

/// Dropped without a commit, it leaves nothing behind.
pub struct Prepared {
    routes: Table<Arc<Route>>,
    rooms: Reload,
    limits: Drafted,
}

impl Prepared {
    pub(super) fn new(routes: Table<Arc<Route>>, rooms: Reload, limits: Drafted) -> Self {
        Self { routes, rooms, limits }
    }

    pub(super) fn commit(self) -> Table<Arc<Route>> {
        let Self { routes, rooms, limits } = self;
        rooms.commit();
        limits.0.commit_plan();
        routes
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

/// The limits of the plan in the making. They are forgotten with this, unless they took effect before.
pub(super) struct Drafted(Arc<Throttles>);

impl Drafted {
    pub(super) fn begin(throttles: &Arc<Throttles>) -> Self {
        throttles.begin_plan();
        Self(Arc::clone(throttles))
    }
}

impl Drop for Drafted {
    fn drop(&mut self) {
        self.0.abandon_plan();
    }
}
