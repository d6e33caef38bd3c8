//! How often a limit decided what.

use prometheus::IntCounter;

use crate::base::name::Name;
use crate::telemetry::metrics::METRICS;

/// What can become of a request, as a label. The order is that of the fields of [`Tally`].
const VERDICTS: [&str; 8] = [
    "allowed",
    "limited",
    "would_limit",
    "skipped",
    "rejected_missing",
    "delayed",
    "expired",
    "to_room",
];

/// Requests by what became of them.
#[derive(Debug)]
pub struct Tally {
    /// They went on.
    pub allowed: IntCounter,
    /// They were refused.
    pub limited: IntCounter,
    /// They went on, because the limit only looks on.
    pub would_limit: IntCounter,
    /// The limit does not apply to them.
    pub skipped: IntCounter,
    /// They lacked what they are counted by, and were refused.
    pub rejected_missing: IntCounter,
    /// They were held before they went on.
    pub delayed: IntCounter,
    /// They were held in vain.
    pub expired: IntCounter,
    /// A room decided about them.
    pub to_room: IntCounter,
}

impl Tally {
    pub(super) fn of(limit: &Name) -> Self {
        let count = |verdict| METRICS.throttle_total.with_label_values(&[limit.as_str(), verdict]);
        let [
            allowed,
            limited,
            would_limit,
            skipped,
            rejected_missing,
            delayed,
            expired,
            to_room,
        ] = VERDICTS.map(count);
        Self {
            allowed,
            limited,
            would_limit,
            skipped,
            rejected_missing,
            delayed,
            expired,
            to_room,
        }
    }
}

/// Takes away what a limit showed that never ran.
pub(super) fn hide(limit: &Name) {
    for verdict in VERDICTS {
        // What was never shown need not be taken away.
        drop(METRICS.throttle_total.remove_label_values(&[limit.as_str(), verdict]));
    }
}
