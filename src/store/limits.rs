//! The contract of a store of limits.
