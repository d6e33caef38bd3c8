//! How a long history of a fleet is kept short, without rewriting who has which free share in a window that runs.
//!
//! A window asks a history for two things: who was a member when it began, and who came later, in which order. That
//! somebody left while it ran changes nothing in it. So a change may be folded into the next one if no window begins or
//! ends between the two: who came with it comes with the next, before those who come there, and has the same share as
//! ever. Who came with it and was gone by the next still has a share, and may have used it; so it is counted among those
//! of the next change, if no window begins under that one either. Shares of every window thus stay what they were, to
//! the last one, and so does their sum, which is within the limit.
//!
//! Which windows there are is not known here. But windows begin at round moments: every calendar's day and month at a
//! quarter of an hour, most at an hour, and what has the length of minutes or hours at multiples of them. So what lies
//! between two round moments is folded, and the longer ago it is the rounder they are: by then shorter windows are over.
//! A gateway that is started anew every five minutes so fills a history in six weeks. From then on windows that are older
//! may be rewritten, and at any time those that begin at no round moment.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::store::limits::GatewayId;

/// From when on these are the members.
pub(super) type Change = (Timestamp, Vec<GatewayId>);

/// Round moments are multiples of these, in seconds. A day begins at a multiple of three hours in zones from Rio by way
/// of London and Moscow to Seoul, at one of an hour or a quarter in all.
const ROUND: [u64; 6] = [60, 300, 900, 3_600, 10_800, 86_400];

/// What is folded between two round moments is this many times as long ago as they are apart, if possible: windows that
/// begin between them are then over.
const AGO: [u64; 3] = [3, 1, 0];

/// A change that names so many gateways takes no more of those that are gone. Windows from before have by then given
/// nearly all of their spare part away.
const NAMED_MAX: usize = 512;

/// Makes a history shorter by one change. The last two, and what is not yet in force, stay as they are.
pub(super) fn shorten(changes: &mut Vec<Change>, now: Timestamp) {
    let foldable = |round: u64, ago: u64| {
        let past = now - Duration::from_secs(ago * round);
        changes.windows(4).position(|near| can_fold(near, round, past))
    };
    let at = |ago: &u64| ROUND.iter().find_map(|round| foldable(*round, *ago));
    let Some(before) = AGO.iter().find_map(at) else {
        changes.remove(0);
        return;
    };
    changes[before + 2].1 = fold(&changes[before..before + 3]);
    changes.remove(before + 1);
}

/// Whether the second of four changes, which were all before `past`, can be folded into the third: no round moment lies
/// where that can be seen. Where there was nobody before, the second are founders, and have more than who comes later.
fn can_fold(near: &[Change], round: u64, past: Timestamp) -> bool {
    let [before, change, next, after] = near else {
        return false;
    };
    let next_round = Timestamp::from_secs(change.0.as_secs().div_ceil(round) * round);
    let nobody_passed = || {
        change
            .1
            .iter()
            .all(|who| before.1.contains(who) || next.1.contains(who))
    };
    after.0 <= past && !before.1.is_empty() && next_round > next.0 && (next_round > after.0 || nobody_passed())
}

/// Who the third of these changes names when it stands for the second too, in the order in which they came.
fn fold(near: &[Change]) -> Vec<GatewayId> {
    let [(_, before), (_, change), (_, next)] = near else {
        return Vec::new();
    };
    let mut room = NAMED_MAX.saturating_sub(next.len());
    let mut folded = Vec::new();
    for who in change {
        let passed = !next.contains(who);
        if passed && (before.contains(who) || room == 0) {
            continue;
        }
        room -= usize::from(passed);
        folded.push(*who);
    }
    folded.extend(next.iter().filter(|who| !change.contains(who)));
    folded
}

#[cfg(test)]
mod tests;
