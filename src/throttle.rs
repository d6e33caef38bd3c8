//! Floor 3: budgets in front of a store.

/// All limits by name.
#[derive(Debug)]
pub struct Throttles {}
