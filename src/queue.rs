//! Floor 1: pure state machine of a queue.
