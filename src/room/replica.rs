//! A gateway's own copy of a room's order: enough to say where anyone stands without asking the store.
//!
//! It knows the last number given, the frontier, and three compressed sets: numbers beyond the frontier that left,
//! numbers called that have not come yet, and numbers inside. A position is a rank in the first, exact as of the
//! last turn. Numbers only ever leave from before a visitor, so a position never grows.
//!
//! Where a lobby was shuffled, the first set holds ranks: a position is the rank of a ticket's rank. The other two hold
//! order numbers, as everything does that gateways and stores say to each other.

use std::mem;
use std::ops::RangeInclusive;
use std::time::Duration;

use roaring::RoaringTreemap;

use super::pace::Pace;
use super::standing::Eta;
use crate::base::clock::Timestamp;
use crate::queue::lobby::{Draw, Ranks};
use crate::queue::log::{Change, Cursor, Snapshot};
use crate::queue::order::PASS_GRACE;
use crate::queue::turn::Counts;
use crate::store::rooms::{News, RoomReply};

/// What a number is worth, as of the last turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the queue.
    Waiting {
        /// Numbers that will be called before it.
        ahead: u64,
        /// Numbers that will be called after it.
        behind: u64,
    },
    /// May enter.
    Called,
    /// Inside.
    Inside,
    /// Given up, too late, or ended.
    Gone,
}

/// What a visitor of a lobby drew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lot {
    /// The number in the lobby, in order of arrival, from 1.
    pub lobby: u64,
    /// The rank in the lobby, in order of calling, from 1.
    pub rank: u64,
    /// The draw, by which anyone can compute the one from the other.
    pub draw: Draw,
}

/// The copy.
#[derive(Debug, Clone)]
pub struct Replica {
    cursor: Cursor,
    counts: Counts,
    /// The permutation of the last lobby that was shuffled.
    ranks: Option<Ranks>,
    /// Ranks beyond the frontier whose visitors left.
    left: RoaringTreemap,
    called: RoaringTreemap,
    inside: RoaringTreemap,
    ended: Ended,
    pace: Pace,
    heard: Option<Timestamp>,
    /// By how much this gateway's clock is before the store's, and by how much behind: one of them is nothing.
    clock: (Duration, Duration),
}

impl Replica {
    /// A copy that has heard nothing yet.
    pub fn new() -> Self {
        Self {
            cursor: Cursor::default(),
            counts: Counts::default(),
            ranks: None,
            left: RoaringTreemap::new(),
            called: RoaringTreemap::new(),
            inside: RoaringTreemap::new(),
            ended: Ended::default(),
            pace: Pace::new(),
            heard: None,
            clock: (Duration::ZERO, Duration::ZERO),
        }
    }

    /// Takes in the answer to a turn, which came at `now` by this gateway's clock. `pass` is the life of a pass.
    pub fn follow(&mut self, reply: &RoomReply, pass: Duration, now: Timestamp) {
        self.ended.turn_over(pass, now);
        self.know(reply.outcome.counts.draw);
        match &reply.news {
            News::Changes(changes) => {
                for change in changes {
                    self.take_in(change, now);
                }
            }
            News::Snapshot(snapshot) => self.start_over(snapshot),
        }
        self.counts = reply.outcome.counts;
        self.cursor = reply.cursor;
        self.heard = Some(now);
        self.clock = (now.since(reply.outcome.now), reply.outcome.now.since(now));
    }

    /// A moment of this gateway's clock by the store's, as far as an answer's way here lets it be known. Whatever is
    /// compared with a moment that the store has set is compared by this, so that clocks may differ by any span.
    pub fn store_time(&self, now: Timestamp) -> Timestamp {
        let (before, behind) = self.clock;
        now - before + behind
    }

    /// How far it has followed.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// How many are where, and the terms in force, as of the last turn.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What a number drew, if it is of the last lobby that was shuffled.
    pub fn lot(&self, number: u64) -> Option<Lot> {
        let ranks = self.ranks.as_ref()?;
        let draw = *ranks.draw();
        let lobby = draw.lobby_number(number)?;
        let rank = ranks.rank(number) - draw.before;
        Some(Lot { lobby, rank, draw })
    }

    /// By what a number is called, as far as that is decided: 0 in a lobby that still stands.
    pub fn rank_drawn(&self, number: u64) -> u64 {
        let drawn = self.ranks.as_ref().map_or(0, |ranks| ranks.draw().last());
        if self.counts.lobby && number > drawn {
            0
        } else {
            self.rank(number)
        }
    }

    /// When the last answer came; none before the first.
    pub fn heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// What `number` is worth.
    ///
    /// A number beyond the last one known was given through another gateway a moment ago: it waits behind all that
    /// are known, and behind the numbers between.
    pub fn place(&self, number: u64) -> Place {
        let (frontier, rank) = (self.counts.frontier, self.rank(number));
        if rank > frontier && !self.left.contains(rank) {
            let between = rank - frontier - 1;
            let ahead = between - self.left.rank(rank - 1).min(between);
            let behind = self.counts.waiting.saturating_sub(ahead + 1);
            Place::Waiting { ahead, behind }
        } else if self.called.contains(number) {
            Place::Called
        } else if self.inside.contains(number) {
            Place::Inside
        } else {
            Place::Gone
        }
    }

    /// Whether the pass of `number` was given back or ran out. Only what is known to have ended has: a pass given a
    /// moment ago by another gateway is good although this copy has not heard of it.
    pub fn has_ended(&self, number: u64) -> bool {
        self.ended.contains(number)
    }

    /// Takes the pass of `number` for ended from now on, ahead of the store's word.
    pub fn end(&mut self, number: u64) {
        self.ended.insert(number);
        self.inside.remove(number);
    }

    /// Visitors before the frontier who wait although later ones were called: whom this copy takes for called, and the
    /// store does not. 0 unless the order was broken.
    pub fn passed_over(&self) -> u64 {
        self.called.len().saturating_sub(self.counts.called)
    }

    /// Visitors called per second of late; none while nobody has been called for ten minutes.
    pub fn calls_per_second(&self, now: Timestamp) -> Option<f64> {
        self.pace.per_second(now)
    }

    /// The expected wait of a visitor with `ahead` before it; none while nobody is being called.
    pub fn eta(&self, ahead: u64, now: Timestamp) -> Option<Eta> {
        self.pace.wait(ahead.saturating_add(1), now)
    }

    /// The number above which all who wait are: the last before a lobby that is being called, or the last called.
    pub(super) fn floor(&self) -> u64 {
        self.lobby_called().map_or(self.counts.frontier, |draw| draw.before)
    }

    /// Numbers of this range that wait.
    pub(super) fn waiting_among(&self, range: RangeInclusive<u64>) -> Vec<u64> {
        let waits = |rank: u64| rank > self.counts.frontier && !self.left.contains(rank);
        range.filter(|number| waits(self.rank(*number))).collect()
    }

    /// The lobby that is being called.
    fn lobby_called(&self) -> Option<Draw> {
        let draw = self.ranks.as_ref().map(|ranks| *ranks.draw());
        draw.filter(|draw| self.counts.frontier < draw.last())
    }

    /// The lowest numbers from `from` on that are called, and that are inside: so many together, or all.
    pub(super) fn people_from(&self, from: u64, most: usize) -> (Vec<u64>, Vec<u64>) {
        let numbers = |set: &RoaringTreemap| {
            let before = set.rank(from.saturating_sub(1));
            let numbers = (before..).map_while(|at| set.select(at));
            numbers.take(most).collect::<Vec<u64>>()
        };
        let (mut called, mut inside) = (numbers(&self.called), numbers(&self.inside));
        while called.len() + inside.len() > most {
            let longer = if called.last() > inside.last() {
                &mut called
            } else {
                &mut inside
            };
            longer.pop();
        }
        (called, inside)
    }

    fn take_in(&mut self, change: &Change, now: Timestamp) {
        self.pace.note(change.called, now);
        let frontier = self.counts.frontier;
        for number in &change.returned {
            self.left.remove(self.rank(*number));
        }
        if change.frontier > frontier {
            self.called |= self.passed(frontier, change.frontier);
            self.left.remove_range(..=change.frontier);
            self.counts.frontier = change.frontier;
        }
        self.counts.last = change.last;
        for number in change.left.iter().chain(&change.unclaimed) {
            self.called.remove(*number);
            let rank = self.rank(*number);
            if rank > change.frontier {
                self.left.insert(rank);
            }
        }
        for number in &change.entered {
            self.called.remove(*number);
            self.inside.insert(*number);
            self.ended.remove(*number);
            let rank = self.rank(*number);
            if rank > change.frontier {
                // By a pass of an earlier life: nobody called it, and it waits no more.
                self.left.insert(rank);
            }
        }
        for number in &change.ended {
            self.end(*number);
        }
    }

    /// The numbers that were called while the frontier went on: who had left was passed over.
    fn passed(&self, from: u64, to: u64) -> RoaringTreemap {
        let mut ranks = RoaringTreemap::new();
        ranks.insert_range(from + 1..=to);
        ranks -= &self.left;
        self.numbers(ranks)
    }

    /// The numbers of these ranks.
    fn numbers(&self, mut ranks: RoaringTreemap) -> RoaringTreemap {
        let Some(shuffled) = &self.ranks else { return ranks };
        let draw = shuffled.draw();
        let lobby = draw.before + 1..=draw.last();
        let mut of_lobby = RoaringTreemap::new();
        of_lobby.insert_range(lobby.clone());
        of_lobby &= &ranks;
        ranks.remove_range(lobby);
        ranks.extend(of_lobby.iter().map(|rank| shuffled.number(rank)));
        ranks
    }

    fn rank(&self, number: u64) -> u64 {
        self.ranks.as_ref().map_or(number, |ranks| ranks.rank(number))
    }

    /// A lobby was shuffled since, or the room is in another life. The store has everyone start over then.
    fn know(&mut self, draw: Option<Draw>) {
        if self.ranks.as_ref().map(|ranks| *ranks.draw()) != draw {
            self.ranks = draw.map(Ranks::new);
        }
    }

    fn start_over(&mut self, snapshot: &Snapshot) {
        self.counts.last = snapshot.last;
        self.counts.frontier = snapshot.frontier;
        self.called = snapshot.called.iter().copied().collect();
        self.inside = snapshot.inside.iter().copied().collect();
        self.left = RoaringTreemap::new();
        self.left.insert_range(snapshot.frontier + 1..=snapshot.last);
        self.left -= snapshot
            .waiting
            .iter()
            .map(|number| self.rank(*number))
            .collect::<RoaringTreemap>();
        // Whoever was called and is neither called nor inside any more has no pass that is worth anything. Nor has anyone
        // of a lobby who does not wait; after a loss its frontier begins anew.
        let mut ranks = RoaringTreemap::new();
        let lobby = self.lobby_called().map_or(snapshot.frontier, |draw| draw.last());
        ranks.insert_range(snapshot.frontier + 1..=lobby);
        ranks &= &self.left;
        ranks.insert_range(1..=snapshot.frontier);
        let mut over = self.numbers(ranks);
        over -= &self.called;
        over -= &self.inside;
        self.ended.start_over(over);
    }
}

impl Default for Replica {
    fn default() -> Self {
        Self::new()
    }
}

/// Passes that ended, remembered for as long as a copy of one could still look alive and no longer than twice that.
#[derive(Debug, Clone, Default)]
struct Ended {
    recent: RoaringTreemap,
    older: RoaringTreemap,
    life: Duration,
    turned: Timestamp,
}

impl Ended {
    fn turn_over(&mut self, pass: Duration, now: Timestamp) {
        // A pass given while passes lived longer keeps its life.
        self.life = self.life.max(pass + PASS_GRACE);
        if now.since(self.turned) >= self.life {
            self.older = mem::take(&mut self.recent);
            self.turned = now;
        }
    }

    fn start_over(&mut self, over: RoaringTreemap) {
        self.recent = over;
        self.older.clear();
    }

    fn contains(&self, number: u64) -> bool {
        self.recent.contains(number) || self.older.contains(number)
    }

    fn insert(&mut self, number: u64) {
        self.recent.insert(number);
    }

    fn remove(&mut self, number: u64) {
        self.recent.remove(number);
        self.older.remove(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;
    use crate::queue::terms::Order;
    use crate::queue::turn::{Join, Otherwise, Turn};
    use crate::room::rule::{Capacity, Rule};
    use crate::store::memory::rooms::MemoryRooms;
    use crate::store::rooms::RoomTurn;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    struct Bench {
        store: MemoryRooms,
        rule: Rule,
        replica: Replica,
    }

    impl Bench {
        fn new(visitors: u64) -> Self {
            let capacity = Capacity {
                visitors: Some(visitors),
                admit: None,
                pass: Duration::from_secs(600),
            };
            Self {
                store: MemoryRooms::new(ManualClock::at(NOW)),
                rule: Rule::new("concert".parse().unwrap(), capacity),
                replica: Replica::new(),
            }
        }

        fn turn(&mut self, fill: impl FnOnce(&mut Turn)) -> RoomReply {
            let cursor = self.replica.cursor();
            let mut turn = Turn::new(self.rule.terms.clone(), cursor.epoch);
            fill(&mut turn);
            let reply = self.store.turn_at(&self.rule.name, &RoomTurn { turn, cursor }, NOW);
            self.replica.follow(&reply, self.rule.terms.pass, NOW);
            reply
        }

        fn join(&mut self, visitors: usize) {
            let join = Join {
                owner: None,
                otherwise: Otherwise::Wait,
                share: None,
            };
            self.turn(|turn| turn.joins = vec![join; visitors]);
        }
    }

    #[test]
    fn a_position_is_the_number_of_those_before() {
        let mut bench = Bench::new(2);
        bench.join(10);
        assert_eq!(bench.replica.place(1), Place::Inside);
        assert_eq!(bench.replica.place(3), Place::Waiting { ahead: 0, behind: 7 });
        assert_eq!(bench.replica.place(10), Place::Waiting { ahead: 7, behind: 0 });
        bench.turn(|turn| turn.leaves = vec![4, 5, 10]);
        assert_eq!(bench.replica.place(9), Place::Waiting { ahead: 4, behind: 0 });
        assert_eq!(bench.replica.place(5), Place::Gone);
        bench.turn(|turn| (turn.leaves, turn.tick) = (vec![1], true));
        assert_eq!(bench.replica.place(3), Place::Called);
        assert_eq!(bench.replica.place(6), Place::Waiting { ahead: 0, behind: 3 });
        bench.turn(|turn| turn.enters = vec![3]);
        assert_eq!(bench.replica.place(3), Place::Inside);
    }

    #[test]
    fn a_number_given_elsewhere_a_moment_ago_waits_behind_all_that_are_known() {
        let mut bench = Bench::new(0);
        bench.join(5);
        assert_eq!(bench.replica.place(8), Place::Waiting { ahead: 7, behind: 0 });
    }

    #[test]
    fn a_pass_given_back_is_over_and_one_not_heard_of_is_not() {
        let mut bench = Bench::new(2);
        bench.join(2);
        bench.turn(|turn| turn.leaves = vec![1]);
        assert!(bench.replica.has_ended(1));
        assert!(!bench.replica.has_ended(2) && !bench.replica.has_ended(77));
    }

    #[test]
    fn a_snapshot_says_the_same_as_the_log_did() {
        let mut bench = Bench::new(2);
        bench.join(1_000);
        bench.turn(|turn| (turn.leaves, turn.tick) = ((1..500).filter(|n| n % 3 == 0).chain([1, 2]).collect(), true));
        let followed = mem::take(&mut bench.replica);
        bench.turn(|_| ());
        for number in 1..=1_000 {
            assert_eq!(bench.replica.place(number), followed.place(number), "{number}");
        }
        assert!(bench.replica.has_ended(1) && bench.replica.has_ended(2));
    }

    /// Positions count those of a lower rank who still wait, and never grow, whoever leaves and whoever comes.
    #[test]
    fn in_a_shuffled_lobby_a_position_is_a_rank_and_never_grows() {
        let mut bench = Bench::new(0);
        (bench.rule.terms.order, bench.rule.terms.open) = (Order::Shuffle, Some(NOW + Duration::from_secs(1)));
        bench.join(3_000);
        bench.turn(|turn| turn.leaves = (1..=3_000).filter(|number| number % 5 == 0).collect());
        bench.rule.terms.open = Some(NOW);
        bench.turn(|turn| turn.nonce = 4711);
        let lot = bench.replica.lot(7).unwrap();
        assert_eq!((lot.lobby, lot.draw.size), (7, 3_000));
        assert_eq!(bench.replica.lot(3_001), None);
        let mut before: Vec<u64> = vec![u64::MAX; 4_000];
        for step in 0..12u64 {
            bench.rule.terms.visitors = Some(step * 150);
            bench.join(40);
            bench.turn(|turn| (turn.leaves, turn.tick) = ((0..30).map(|n| 1 + n * 97 + step).collect(), true));
            let mut fresh = Replica::new();
            let turn = Turn::new(bench.rule.terms.clone(), bench.replica.cursor().epoch);
            let request = RoomTurn {
                turn,
                cursor: Cursor::default(),
            };
            fresh.follow(
                &bench.store.turn_at(&bench.rule.name, &request, NOW),
                bench.rule.terms.pass,
                NOW,
            );
            let mut waiting: Vec<(u64, u64)> = Vec::new();
            for number in 1..=bench.replica.counts().last {
                let place = bench.replica.place(number);
                assert_eq!(
                    place,
                    fresh.place(number),
                    "{number}: the log and a snapshot say the same"
                );
                if let Place::Waiting { ahead, .. } = place {
                    let at = usize::try_from(number).unwrap();
                    assert!(ahead <= before[at], "{number} was {} and is {ahead}", before[at]);
                    before[at] = ahead;
                    let rank = bench.replica.lot(number).map_or(number, |lot| lot.rank);
                    waiting.push((rank, ahead));
                }
            }
            waiting.sort_unstable();
            let positions: Vec<u64> = waiting.iter().map(|(_, ahead)| *ahead).collect();
            assert_eq!(positions, (0..positions.len() as u64).collect::<Vec<_>>());
            assert_eq!(positions.len() as u64, bench.replica.counts().waiting);
        }
        assert!(bench.replica.counts().called > 1_000);
    }

    #[test]
    fn a_visitor_who_waits_takes_no_memory_and_one_who_left_a_bit() {
        let mut replica = Replica::new();
        replica.counts.last = 300_000;
        replica.left = (1..=300_000).filter(|number| number % 3 == 0).collect();
        let bytes = replica.left.serialized_size();
        assert!(bytes < 300_000 / 8 + 10_000, "{bytes}");
        assert_eq!(
            replica.place(299_999),
            Place::Waiting {
                ahead: 199_999,
                behind: 0
            }
        );
    }

    #[test]
    fn what_has_ended_is_forgotten_once_no_copy_of_it_can_look_alive() {
        let mut ended = Ended::default();
        let life = Duration::from_secs(600) + PASS_GRACE;
        ended.turn_over(Duration::from_secs(600), NOW);
        ended.insert(5);
        ended.turn_over(Duration::from_secs(600), NOW + life);
        assert!(ended.contains(5));
        ended.turn_over(Duration::from_secs(600), NOW + 2 * life);
        assert!(!ended.contains(5));
    }
}
