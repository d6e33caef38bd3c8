//! What visitors did since the last turn, kept until the next. It decides when that is due; it does nothing itself.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::time::Duration;

use tokio::sync::oneshot;

use super::late::nobodys_number;
use super::recall::Recall;
use crate::base::clock::Timestamp;
use crate::queue::earlier::{Return, Returned};
use crate::queue::terms::{Setting, Terms};
use crate::queue::turn::{Entered, Join, Joined, Outcome, Turn};
use crate::store::rooms::RoomFault;

/// Joins, or enters, that are worth a turn of their own; and the most of each that one turn carries.
pub(super) const CALLERS_PER_TURN: usize = 256;

/// Most visitors who wait for a turn at once; who comes then is told that the store is unavailable.
pub(super) const CALLERS_MAX: usize = 16_384;

/// Most signs of life (touches, renewals, leaves) that one turn carries of each kind.
pub(super) const SIGNS_PER_TURN: usize = 4_096;

/// Most signs of life of each kind that are kept while the store is away.
pub(super) const SIGNS_MAX: usize = 1_048_576;

/// A room that nobody is in or waits for follows its log so often.
pub(super) const IDLE_TURN: Duration = Duration::from_secs(1);

/// Least time from the end of a turn to the beginning of the next, whatever asks for it: a full turn's worth of
/// callers, an operator, the admission rate. So no room makes more than 200 calls a second.
pub(super) const TURN_GAP_MIN: Duration = Duration::from_millis(5);

/// Least time from the end of a turn to one that sets out for a few callers. A visitor who comes alone is answered at
/// once and nobody notices this much, while a steady stream of them costs at most 50 calls a second, however many
/// they are, until they fill whole turns.
pub(super) const CALLER_GAP_MIN: Duration = Duration::from_millis(20);

/// An answer on its way to a visitor who waits for a turn.
type Answer<T> = oneshot::Sender<Result<T, RoomFault>>;

/// What was gathered.
#[derive(Debug, Default)]
pub(super) struct Gather {
    settings: Vec<(Vec<Setting>, Answer<()>)>,
    /// What the rule file says, as a hash.
    file: Option<u64>,
    /// The same, as the store heard it last from here.
    file_heard: Option<u64>,
    proposal: Option<Setting>,
    renewals: HashMap<u64, Timestamp>,
    touches: HashSet<u64>,
    leaves: HashSet<u64>,
    enters: Vec<(u64, Answer<Entered>)>,
    joins: Vec<(Join, Answer<Joined>)>,
    returns: Vec<(Return, Answer<Returned>)>,
    fault: Option<RoomFault>,
    restoring: bool,
}

/// What one turn takes along.
#[derive(Debug, Default)]
pub(super) struct Batch {
    settings: Vec<(Vec<Setting>, Answer<()>)>,
    file: Option<u64>,
    proposal: Option<Setting>,
    renewals: Vec<(u64, Timestamp)>,
    touches: Vec<u64>,
    leaves: Vec<u64>,
    enters: Vec<(u64, Answer<Entered>)>,
    joins: Vec<(Join, Answer<Joined>)>,
    returns: Vec<(Return, Answer<Returned>)>,
}

/// The rhythm of a room's turns.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Beat {
    /// When the last turn was begun; none before the first.
    pub(super) last: Option<Timestamp>,
    /// When it ended. Gaps are counted from here: a slow store is not asked again the moment that it answers.
    pub(super) ended: Timestamp,
    /// Whether somebody waits or is called.
    pub(super) engaged: bool,
    /// When the admission rate makes a turn worth while before the next tick.
    pub(super) tick_at: Option<Timestamp>,
    /// What was told to a room that was lost; none when the room was not.
    pub(super) recall: Option<Recall>,
}

impl Gather {
    pub(super) fn join(&mut self, join: Join) -> Result<oneshot::Receiver<Result<Joined, RoomFault>>, RoomFault> {
        self.open_to_callers()?;
        let (answer, receiver) = oneshot::channel();
        self.joins.push((join, answer));
        Ok(receiver)
    }

    /// Somebody who shows a slip of an earlier life.
    pub(super) fn come_back(
        &mut self,
        shown: Return,
    ) -> Result<oneshot::Receiver<Result<Returned, RoomFault>>, RoomFault> {
        self.open_to_callers()?;
        let (answer, receiver) = oneshot::channel();
        self.returns.push((shown, answer));
        Ok(receiver)
    }

    /// What a room that listens should hear of at once: the slip of the latest life that is shown. Its holder is
    /// answered later.
    pub(super) fn latest_return(&self) -> Option<Return> {
        let shown = self.returns.iter().map(|(shown, _)| *shown);
        shown.max_by_key(|shown| shown.epoch)
    }

    pub(super) fn enter(&mut self, number: u64) -> Result<oneshot::Receiver<Result<Entered, RoomFault>>, RoomFault> {
        self.open_to_callers()?;
        let (answer, receiver) = oneshot::channel();
        self.enters.push((number, answer));
        Ok(receiver)
    }

    /// Settings that go with one turn, in this order; none for a visitor who only needs the room to have been heard of.
    pub(super) fn set(
        &mut self,
        settings: Vec<Setting>,
    ) -> Result<oneshot::Receiver<Result<(), RoomFault>>, RoomFault> {
        self.open_to_callers()?;
        let (answer, receiver) = oneshot::channel();
        self.settings.push((settings, answer));
        Ok(receiver)
    }

    /// What the rule file says now, as a hash. The store is told with every turn, until it has heard it.
    pub(super) fn read(&mut self, file: u64) {
        self.file = Some(file);
    }

    /// The rule file that the store has heard of from here, and what operators said has been said under it.
    pub(super) fn file_heard(&self) -> Option<u64> {
        self.file_heard
    }

    /// A measured rate. It rides with the next turn, and the next proposal takes its place.
    pub(super) fn propose(&mut self, proposal: Setting) {
        self.proposal = Some(proposal);
    }

    pub(super) fn touch(&mut self, number: u64) {
        keep(&mut self.touches, number);
    }

    /// What was given back is not renewed, whichever of the two was gathered first.
    pub(super) fn renew(&mut self, number: u64, until: Timestamp) {
        let has_room = self.renewals.len() < SIGNS_MAX || self.renewals.contains_key(&number);
        if has_room && !self.leaves.contains(&number) {
            self.renewals.insert(number, until);
        }
    }

    pub(super) fn leave(&mut self, number: u64) {
        self.renewals.remove(&number);
        keep(&mut self.leaves, number);
    }

    /// Why the last turn failed, if it did.
    pub(super) fn fault(&self) -> Option<RoomFault> {
        self.fault
    }

    /// How long until the next turn; zero when it is due.
    pub(super) fn due(&self, beat: &Beat, tick: Duration, now: Timestamp) -> Duration {
        let Some(last) = beat.last else { return Duration::ZERO };
        if self.fault.is_some() || self.restoring {
            return (last + tick).since(now);
        }
        let is_idle = !beat.engaged && self.touches.is_empty() && self.renewals.is_empty();
        let regular = last + if is_idle { IDLE_TURN } else { tick };
        let sooner = [
            self.presses().then_some(beat.ended + TURN_GAP_MIN),
            self.has_callers().then_some(beat.ended + CALLER_GAP_MIN),
            beat.tick_at
                .filter(|_| beat.engaged)
                .map(|at| at.max(beat.ended + TURN_GAP_MIN)),
        ];
        let at = sooner.into_iter().flatten().fold(regular, Timestamp::min);
        at.since(now)
    }

    /// Takes along as much as a turn carries. A visitor who has gone meanwhile gets no place.
    pub(super) fn take(&mut self) -> Batch {
        self.joins.retain(|(_, answer)| !answer.is_closed());
        Batch {
            settings: mem::take(&mut self.settings),
            file: self.file.filter(|_| self.file != self.file_heard),
            proposal: self.proposal.take(),
            renewals: self.some_renewals(),
            touches: some_of(&mut self.touches),
            leaves: some_of(&mut self.leaves),
            enters: first_of(&mut self.enters),
            joins: first_of(&mut self.joins),
            returns: first_of(&mut self.returns),
        }
    }

    fn some_renewals(&mut self) -> Vec<(u64, Timestamp)> {
        let numbers: Vec<u64> = self.renewals.keys().take(SIGNS_PER_TURN).copied().collect();
        let taken = numbers.into_iter();
        taken.filter_map(|number| self.renewals.remove_entry(&number)).collect()
    }

    /// The store has heard what the turn carried. Whether it did not answer before.
    pub(super) fn heal(&mut self, batch: &Batch) -> bool {
        self.restoring = false;
        self.file_heard = batch.file.or(self.file_heard);
        self.fault.take().is_some()
    }

    /// Whether callers wait for a room that is being restored.
    pub(super) fn is_restoring(&self) -> bool {
        self.restoring
    }

    /// The turn was not done, because the room is being restored: all of it, callers too, waits until it is. Whether
    /// this is the first time.
    pub(super) fn postpone(&mut self, mut batch: Batch) -> bool {
        self.fault = None;
        self.keep_signs(&mut batch);
        batch.settings.append(&mut self.settings);
        batch.enters.append(&mut self.enters);
        batch.joins.append(&mut self.joins);
        batch.returns.append(&mut self.returns);
        (self.settings, self.enters) = (batch.settings, batch.enters);
        (self.joins, self.returns) = (batch.joins, batch.returns);
        !mem::replace(&mut self.restoring, true)
    }

    /// The turn failed. Signs of life are kept for the next, for they may be given twice; callers are told, and
    /// from now on told at once, until a turn succeeds. Whether this is the first failure after a success.
    pub(super) fn fail(&mut self, mut batch: Batch, fault: RoomFault) -> bool {
        let first = self.fault.replace(fault).is_none();
        self.keep_signs(&mut batch);
        let settings = batch.settings.into_iter().chain(self.settings.drain(..));
        settings.for_each(|(_, answer)| tell(answer, Err(fault)));
        let enters = batch.enters.into_iter().chain(self.enters.drain(..));
        enters.for_each(|(_, answer)| tell(answer, Err(fault)));
        let joins = batch.joins.into_iter().chain(self.joins.drain(..));
        joins.for_each(|(_, answer)| tell(answer, Err(fault)));
        let returns = batch.returns.into_iter().chain(self.returns.drain(..));
        returns.for_each(|(_, answer)| tell(answer, Err(fault)));
        first
    }

    fn keep_signs(&mut self, batch: &mut Batch) {
        batch.leaves.drain(..).for_each(|number| self.leave(number));
        for (number, until) in batch.renewals.drain(..) {
            if !self.renewals.contains_key(&number) {
                self.renew(number, until);
            }
        }
        batch.touches.drain(..).for_each(|number| self.touch(number));
    }

    fn open_to_callers(&self) -> Result<(), RoomFault> {
        match self.fault {
            Some(fault) => Err(fault),
            None if self.callers() >= CALLERS_MAX => Err(RoomFault::Unavailable),
            None => Ok(()),
        }
    }

    fn callers(&self) -> usize {
        self.joins.len() + self.enters.len() + self.settings.len() + self.returns.len()
    }

    fn has_callers(&self) -> bool {
        self.callers() > self.settings.len() || !self.leaves.is_empty()
    }

    fn presses(&self) -> bool {
        let callers = self.joins.len().max(self.enters.len()).max(self.returns.len());
        !self.settings.is_empty()
            || self.file != self.file_heard
            || callers >= CALLERS_PER_TURN
            || self.leaves.len() >= SIGNS_PER_TURN
    }
}

impl Batch {
    /// The turn that carries it.
    pub(super) fn turn(&self, terms: Terms, epoch: u64) -> Turn {
        let file = self.file.map(Setting::Written);
        let said = self.settings.iter().flat_map(|(said, _)| said.iter().copied());
        Turn {
            settings: file.into_iter().chain(said).chain(self.proposal).collect(),
            renewals: self.renewals.clone(),
            touches: self.touches.clone(),
            enters: self.enters.iter().map(|(number, _)| *number).collect(),
            leaves: self.leaves.clone(),
            tick: true,
            joins: self.joins.iter().map(|(join, _)| *join).collect(),
            returns: self.returns.iter().map(|(shown, _)| *shown).collect(),
            ..Turn::new(terms, epoch)
        }
    }

    /// Who comes with it.
    pub(super) fn joins(&self) -> Vec<Join> {
        self.joins.iter().map(|(join, _)| *join).collect()
    }

    /// Tells everyone what came of it. Gives the numbers that went to nobody, because who asked has gone meanwhile.
    pub(super) fn settle(self, outcome: &Outcome) -> Vec<u64> {
        self.settings.into_iter().for_each(|(_, answer)| tell(answer, Ok(())));
        for ((_, answer), entered) in self.enters.into_iter().zip(&outcome.enters) {
            tell(answer, Ok(*entered));
        }
        for ((_, answer), returned) in self.returns.into_iter().zip(&outcome.returns) {
            tell(answer, Ok(*returned));
        }
        let mut unheld = Vec::new();
        for ((join, answer), joined) in self.joins.into_iter().zip(&outcome.joins) {
            if answer.send(Ok(*joined)).is_err() {
                unheld.extend(nobodys_number(join, *joined));
            }
        }
        unheld
    }
}

/// A visitor who has gone meanwhile is not told.
fn tell<T>(answer: Answer<T>, result: Result<T, RoomFault>) {
    drop(answer.send(result));
}

fn keep(signs: &mut HashSet<u64>, number: u64) {
    if signs.len() < SIGNS_MAX {
        signs.insert(number);
    }
}

fn some_of(signs: &mut HashSet<u64>) -> Vec<u64> {
    if signs.len() <= SIGNS_PER_TURN {
        return signs.drain().collect();
    }
    let numbers: Vec<u64> = signs.iter().take(SIGNS_PER_TURN).copied().collect();
    numbers.into_iter().filter(|number| signs.remove(number)).collect()
}

fn first_of<T>(callers: &mut Vec<T>) -> Vec<T> {
    let count = callers.len().min(CALLERS_PER_TURN);
    callers.drain(..count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::turn::Otherwise;

    const TICK: Duration = Duration::from_millis(200);
    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const JOIN: Join = Join {
        owner: None,
        otherwise: Otherwise::Wait,
        share: None,
    };

    fn beat(engaged: bool) -> Beat {
        Beat {
            last: Some(NOW),
            ended: NOW,
            engaged,
            tick_at: None,
            recall: None,
        }
    }

    #[test]
    fn a_lone_join_sets_out_a_short_gap_after_the_last_turn_and_a_full_turn_sooner() {
        for engaged in [false, true] {
            let mut gather = Gather::default();
            let regular = if engaged { TICK } else { IDLE_TURN };
            assert_eq!(gather.due(&beat(engaged), TICK, NOW), regular);
            let _answer = gather.join(JOIN);
            assert_eq!(gather.due(&beat(engaged), TICK, NOW), CALLER_GAP_MIN);
            assert_eq!(gather.due(&beat(engaged), TICK, NOW + CALLER_GAP_MIN), Duration::ZERO);
            let _answers: Vec<_> = (1..CALLERS_PER_TURN).map(|_| gather.join(JOIN)).collect();
            assert_eq!(gather.due(&beat(engaged), TICK, NOW), TURN_GAP_MIN);
        }
    }

    #[test]
    fn an_operator_waits_no_longer_than_the_least_gap_and_not_less() {
        let mut gather = Gather::default();
        let _answer = gather.set(Vec::new());
        assert_eq!(gather.due(&beat(true), TICK, NOW), TURN_GAP_MIN);
    }

    #[test]
    fn a_slow_store_gets_the_gap_after_its_answer() {
        let mut gather = Gather::default();
        let _answer = gather.join(JOIN);
        let answered = NOW + Duration::from_millis(90);
        let slow = Beat {
            ended: answered,
            ..beat(true)
        };
        assert_eq!(gather.due(&slow, TICK, answered), CALLER_GAP_MIN);
    }

    #[test]
    fn signs_of_life_wait_for_the_tick_and_are_sent_once() {
        let mut gather = Gather::default();
        for _ in 0..100 {
            gather.touch(7);
            gather.renew(8, NOW);
        }
        assert_eq!(gather.due(&beat(false), TICK, NOW), TICK);
        let batch = gather.take();
        assert_eq!((batch.touches, batch.renewals), (vec![7], vec![(8, NOW)]));
    }

    #[test]
    fn a_failed_turn_tells_its_callers_keeps_its_signs_and_lets_nobody_else_wait() {
        let mut gather = Gather::default();
        let mut answer = gather.join(JOIN).unwrap();
        gather.touch(7);
        let batch = gather.take();
        assert!(gather.fail(batch, RoomFault::Timeout));
        assert_eq!(answer.try_recv().unwrap(), Err(RoomFault::Timeout));
        assert!(gather.join(JOIN).is_err());
        assert_eq!(gather.due(&beat(false), TICK, NOW), TICK);
        assert_eq!(gather.take().touches, vec![7]);
        assert!(gather.heal(&Batch::default()));
        assert!(gather.join(JOIN).is_ok());
    }

    #[test]
    fn what_is_given_back_is_not_renewed_by_a_sign_that_was_kept() {
        let mut gather = Gather::default();
        gather.renew(7, NOW);
        gather.leave(7);
        let batch = gather.take();
        assert_eq!(
            (batch.renewals.as_slice(), batch.leaves.as_slice()),
            (&[][..], &[7][..])
        );
        gather.renew(8, NOW);
        let batch = gather.take();
        gather.leave(8);
        gather.fail(batch, RoomFault::Timeout);
        let batch = gather.take();
        assert_eq!(
            (batch.renewals.as_slice(), batch.leaves.as_slice()),
            (&[][..], &[8][..])
        );
    }

    #[test]
    fn a_turn_carries_a_bounded_number_of_callers_and_the_rest_are_next() {
        let mut gather = Gather::default();
        let _answers: Vec<_> = (0..CALLERS_PER_TURN + 9).map(|_| gather.join(JOIN)).collect();
        assert_eq!(gather.take().joins.len(), CALLERS_PER_TURN);
        assert_eq!(gather.take().joins.len(), 9);
        let answers: Vec<_> = (0..CALLERS_MAX + 1).map(|_| gather.join(JOIN)).collect();
        assert!(answers[CALLERS_MAX].is_err());
    }

    #[test]
    fn the_rate_may_ask_for_a_turn_before_the_tick() {
        let gather = Gather::default();
        let early = Beat {
            tick_at: Some(NOW + Duration::from_millis(10)),
            ..beat(true)
        };
        assert_eq!(gather.due(&early, TICK, NOW), Duration::from_millis(10));
        let hasty = Beat {
            tick_at: Some(NOW),
            ..beat(true)
        };
        assert_eq!(gather.due(&hasty, TICK, NOW), TURN_GAP_MIN);
    }
}
