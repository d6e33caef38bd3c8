use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::{CHANGES_MAX, Members};
use super::*;
use crate::limiter::terms::{Algorithm, Terms};
use crate::limiter::window::Window;
use crate::store::limits::Fleet;
use proptest::prelude::*;

/// A gateway that stays while others come and go.
const STEADY: GatewayId = GatewayId(1);

const HOUR: u64 = 3_600;

/// Lengths of windows that begin at round moments.
const LENGTHS: [u64; 4] = [60, 900, HOUR, 24 * HOUR];

fn terms(seconds: u64, algorithm: Algorithm) -> Terms {
    Terms {
        allows: 1_000,
        window: Window::new(Duration::from_secs(seconds)),
        algorithm,
    }
}

/// Who has which share of a window, as it was first told.
type Told = BTreeMap<(Kind, u64), BTreeMap<GatewayId, u64>>;

/// The length of a window, and whether it is a log's.
type Kind = (u64, bool);

/// Holds what is told against what was told before: nobody's share changes in a window that runs.
fn hold(told: &mut Told, fleet: &Fleet, now: Timestamp) -> Result<(), TestCaseError> {
    for (seconds, log) in LENGTHS
        .into_iter()
        .flat_map(|seconds| [(seconds, false), (seconds, true)])
    {
        let algorithm = if log {
            Algorithm::SlidingLog
        } else {
            Algorithm::FixedWindow
        };
        let terms = terms(seconds, algorithm);
        let index = terms.frames().index(now);
        let shares = fleet.all_shares(&terms, index);
        for (frame, of) in [(index, false), (index - 1, true)] {
            let known = told.entry(((seconds, log), frame)).or_default();
            let now_told: BTreeMap<_, _> = shares
                .iter()
                .map(|(gateway, shares)| (*gateway, if of { shares.prev } else { shares.cur }))
                .filter(|(_, share)| *share > 0)
                .collect();
            for (gateway, share) in known.iter() {
                let still = now_told.get(gateway).copied().unwrap_or(0);
                prop_assert_eq!(still, *share, "{:?} in frame {} of {} s", gateway, frame, seconds);
            }
            let together: u64 = now_told.values().sum();
            prop_assert!(together <= terms.free(), "{together} in frame {frame} of {seconds} s");
            known.extend(now_told);
        }
    }
    Ok(())
}

/// The fleet of a moment says that it is alive.
fn all_alive(members: &mut Members, present: &BTreeSet<GatewayId>, now: Timestamp) -> Fleet {
    let told = present.iter().map(|who| members.alive(*who, &Fleet::default(), now));
    told.last().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20, ..ProptestConfig::with_cases(6) })]

    /// Some come, some go, and some come for half a minute only, 400 times within a day.
    #[test]
    fn who_has_which_share_of_a_window_is_never_rewritten(
        start in 0u64..20_000_000,
        steps in proptest::collection::vec((20u64..400, 0u8..4, any::<prop::sample::Index>()), 400),
    ) {
        let mut members = Members::default();
        let mut present = BTreeSet::from([STEADY]);
        let mut told = Told::new();
        let mut now = Timestamp::from_secs(1_700_000_000 + start);
        let mut most = 0;
        for (number, (seconds, what, who)) in steps.into_iter().enumerate() {
            let newcomer = GatewayId(1_000 - number as u64);
            match what {
                0 if present.len() > 1 => {
                    let leaves = *present.iter().nth(1 + who.index(present.len() - 1)).unwrap();
                    present.remove(&leaves);
                }
                1 => {
                    let passing: BTreeSet<_> = present.iter().copied().chain([newcomer]).collect();
                    all_alive(&mut members, &passing, now);
                    let fleet = all_alive(&mut members, &passing, now + Duration::from_secs(9));
                    hold(&mut told, &fleet, now + Duration::from_secs(9))?;
                    now = now + Duration::from_secs(9);
                }
                _ => {
                    present.insert(newcomer);
                }
            }
            now = now + Duration::from_secs(seconds);
            let fleet = all_alive(&mut members, &present, now);
            hold(&mut told, &fleet, now)?;
            most = most.max(fleet.timeline.len());
            prop_assert!(fleet.timeline.iter().all(|(_, members)| members.len() <= NAMED_MAX));
        }
        prop_assert_eq!(most, CHANGES_MAX, "there were changes enough");
    }
}

fn history(changes: &[(u64, &[u64])]) -> Vec<Change> {
    let change = |(at, who): &(u64, &[u64])| (Timestamp::from_secs(*at), who.iter().copied().map(GatewayId).collect());
    changes.iter().map(change).collect()
}

#[test]
fn who_came_first_stays_first_and_who_left_is_still_named() {
    let mut changes = history(&[(0, &[1]), (61, &[1, 9]), (65, &[1, 8, 7]), (70, &[1, 7]), (75, &[1])]);
    shorten(&mut changes, Timestamp::from_secs(80));
    let folded = history(&[(0, &[1]), (65, &[1, 9, 8, 7]), (70, &[1, 7]), (75, &[1])]);
    assert_eq!(changes, folded, "8 and 7 come after 9, though their numbers are less");
}

#[test]
fn the_members_at_a_round_moment_stay_the_members() {
    let mut changes = history(&[
        (0, &[1]),
        (58, &[1, 2]),
        (61, &[2]),
        (70, &[2, 3]),
        (75, &[3]),
        (90, &[3, 4]),
    ]);
    shorten(&mut changes, Timestamp::from_secs(100));
    let folded = history(&[(0, &[1]), (58, &[1, 2]), (70, &[2, 3]), (75, &[3]), (90, &[3, 4])]);
    assert_eq!(changes, folded);
}

#[test]
fn founders_are_not_folded() {
    let mut changes = history(&[(0, &[]), (61, &[1]), (62, &[1, 2]), (63, &[1, 2, 3]), (64, &[1, 2])]);
    shorten(&mut changes, Timestamp::from_secs(100));
    let folded = history(&[(0, &[]), (61, &[1]), (63, &[1, 2, 3]), (64, &[1, 2])]);
    assert_eq!(changes, folded);
}
