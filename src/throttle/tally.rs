//! How often a limit decided what.

use prometheus::IntCounter;

use crate::base::name::Name;
use crate::telemetry::metrics::METRICS;

/// What can become of a request, each as a field and as a label of the same name.
macro_rules! verdicts {
    ($($(#[$doc:meta])+ $verdict:ident,)+) => {
        /// Requests by what became of them.
        #[derive(Debug)]
        pub struct Tally {
            $($(#[$doc])+ pub $verdict: IntCounter,)+
        }

        impl Tally {
            pub(super) fn of(limit: &Name) -> Self {
                let count = |verdict| METRICS.throttle_total.with_label_values(&[limit.as_str(), verdict]);
                Self { $($verdict: count(stringify!($verdict)),)+ }
            }
        }

        /// Takes away what a limit showed that never ran.
        pub(super) fn hide(limit: &Name) {
            $(
                let label = [limit.as_str(), stringify!($verdict)];
                // What was never shown need not be taken away.
                drop(METRICS.throttle_total.remove_label_values(&label));
            )+
        }
    };
}

verdicts! {
    /// They went on.
    allowed,
    /// They were refused.
    limited,
    /// They went on, because the limit only looks on.
    would_limit,
    /// The limit does not apply to them.
    skipped,
    /// They lacked what they are counted by, and were refused.
    rejected_missing,
    /// They were refused because the store could not be asked.
    store_fault,
    /// They were held and got their budget; what came of them after that is counted besides.
    delayed,
    /// They were held in vain; they are counted as limited or handed to a room besides.
    expired,
    /// A room decided about them.
    to_room,
}
