//! Floor 1: pure arithmetic of limits.
