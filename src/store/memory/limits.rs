//! Limits in memory.
