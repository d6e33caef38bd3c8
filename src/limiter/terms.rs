//! What a limit allows and how it is counted: all that a gateway and a store must agree on.

use super::window::Window;

/// The terms of a limit, for each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How much in a window, at least 1.
    pub allows: u64,
    /// The window.
    pub window: Window,
}
