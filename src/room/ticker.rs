//! The rhythm of a room: when to hand over what was gathered, and what to do with the answer.
//!
//! An engaged room turns every tick. A visitor who comes between two ticks is not kept waiting for the next: a turn
//! sets out at once, unless one is under way or has only just ended, and those who come meanwhile ride with the next
//! (a group commit). So a lone visitor waits for nobody, and a rush does not become a call each: the gaps in
//! `gather` are the bound.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot::error::RecvError;
use tokio::time::timeout;

use super::Room;
use super::gather::{Batch, Beat, TURN_GAP_MIN};
use super::late::Underway;
use super::recall::Recall;
use crate::base::clock::Timestamp;
use crate::base::secret::random_bytes;
use crate::queue::restore::{Memory, RESTORE_WITHIN};
use crate::queue::terms::{Setting, Terms};
use crate::queue::turn::Turn;
use crate::store::rooms::{RoomFault, RoomReply, RoomTurn};
use crate::telemetry::metrics::METRICS;

/// Longest a turn is waited for. Half a second is little to somebody who comes for a place; and the places that a turn
/// gave whose answer was not waited for are nobody's, until that answer is heard or they are given up.
pub const STORE_TIMEOUT: Duration = Duration::from_millis(500);

/// What a turn is called where calls of the store are counted.
const SCRIPT: &str = "room_turn";

impl Room {
    /// Does one turn, whether or not it is due.
    pub async fn turn(&self) {
        let mut beat = self.beat.lock().await;
        self.measure(self.clock.now());
        self.give_back_late();
        let recall = beat.recall;
        let batch = match recall {
            // What is gathered waits until the room is restored.
            Some(_) => Batch::default(),
            None => self.gather().take(),
        };
        let memory = recall.and_then(|recall| recall.next(&self.replica(), &self.written()));
        let memory = memory.map(|memory| self.under_its_file(memory));
        let begun = self.clock.now();
        let result = self.call(&batch, memory.clone()).await;
        *beat = Beat {
            last: Some(begun),
            ended: self.clock.now(),
            ..*beat
        };
        match result {
            Ok(RoomReply { outcome, .. }) if let Some(answer) = outcome.restoring => {
                beat.recall = Some(Recall::after(recall, memory.as_ref(), &answer));
                self.postpone(batch);
            }
            Ok(reply) => self.succeed(batch, &reply, &mut beat),
            Err(fault) => self.fail(batch, fault),
        }
    }

    /// Turns for as long as the room is in use.
    pub(super) async fn drive(&self) {
        while !self.retired.load(Ordering::Acquire) {
            let wait = self.due().await;
            if wait.is_zero() {
                self.turn().await;
                // The store may answer without ever yielding; others on this thread want to run too.
                tokio::task::yield_now().await;
            } else {
                // Woken or timed out, what is due is looked at again.
                drop(timeout(wait, self.wake.notified()).await);
            }
        }
    }

    async fn due(&self) -> Duration {
        let beat = self.beat.lock().await;
        let tick = self.rule.load().terms.tick;
        let now = self.clock.now();
        let gather = self.gather();
        let due = gather.due(&beat, tick, now);
        match beat.recall {
            Some(recall) if gather.fault().is_none() && recall.goes_on(&self.replica()) => {
                due.min((beat.ended + TURN_GAP_MIN).since(now))
            }
            _ => due,
        }
    }

    /// The rule as far as what is in force tells what operators have said. A measured rate is nobody's word.
    fn written(&self) -> Terms {
        let rule = self.rule.load();
        let mut written = rule.terms.clone();
        if rule.measured.is_some() {
            written.admit = self.replica().counts().admit;
        }
        written
    }

    /// What operators said, they said under the rule file that the store was last told of. One that was read since is
    /// news to the room, restored or not.
    fn under_its_file(&self, mut memory: Memory) -> Memory {
        let file = self.gather().file_heard().map(Setting::Written);
        memory.said.extend(file);
        memory
    }

    async fn call(&self, batch: &Batch, memory: Option<Memory>) -> Result<RoomReply, RoomFault> {
        let cursor = self.replica().cursor();
        let mut turn = Turn {
            nonce: u128::from_be_bytes(random_bytes()),
            memory,
            ..batch.turn(self.rule.load().terms.clone(), cursor.epoch)
        };
        if turn.returns.is_empty() {
            // Only where the room listens, and they wait until it has, are there any.
            turn.returns.extend(self.gather().latest_return());
        }
        let mut underway = self.set_out(RoomTurn { turn, cursor });
        let set_out = self.clock.now();
        let answer = timeout(STORE_TIMEOUT, underway.as_mut()).await;
        if answer.is_err() {
            self.late().keep(batch.joins(), underway);
        }
        METRICS.store_calls_total.with_label_values(&[SCRIPT]).inc();
        let took = self.clock.now().since(set_out).as_secs_f64();
        METRICS.store_seconds.with_label_values(&[SCRIPT]).observe(took);
        answer.unwrap_or(Err(RoomFault::Timeout))
    }

    fn set_out(&self, request: RoomTurn) -> Underway {
        let (store, name) = (Arc::clone(&self.store), self.name.clone());
        Box::pin(async move { store.room_turn(&name, request).await })
    }

    /// What earlier turns turn out to have given to visitors who were told that there was no answer.
    fn give_back_late(&self) {
        let Some(epoch) = self.epoch() else { return };
        let unheld = self.late().heard(epoch);
        self.give_back(unheld);
    }

    /// Gives back places of which nobody holds a ticket, with the next turn.
    pub(super) fn give_back(&self, unheld: Vec<u64>) {
        self.meters.gave_back(unheld.len());
        unheld.into_iter().for_each(|number| self.leave(number));
    }

    fn postpone(&self, batch: Batch) {
        if self.gather().postpone(batch) {
            log::info!(
                "room {}: the store may have lost it; what gateways remember is put together",
                self.name
            );
        }
    }

    fn succeed(&self, batch: Batch, reply: &RoomReply, beat: &mut Beat) {
        let now = self.clock.now();
        let pass = self.rule.load().terms.pass;
        let drawn = self.replica().counts().draw;
        self.replica_mut().follow(reply, pass, now);
        let counts = &reply.outcome.counts;
        self.publish(counts.draw.filter(|draw| Some(*draw) != drawn));
        beat.engaged = counts.waiting > 0 || counts.called > 0;
        beat.tick_at = reply.outcome.tick_at.map(|at| here(at, reply.outcome.now, now));
        if beat.recall.take().is_some() {
            let (waiting, inside) = (counts.waiting, counts.called + counts.inside);
            log::info!(
                "room {}: complete again: {waiting} wait, {inside} are called or inside",
                self.name
            );
        }
        self.meters.note(&reply.outcome, &self.replica());
        if self.gather().heal(&batch) {
            log::info!("room {}: the store answers again", self.name);
        }
        let unheld = batch.settle(&reply.outcome);
        self.give_back(unheld);
    }

    fn fail(&self, batch: Batch, fault: RoomFault) {
        METRICS.store_faults_total.with_label_values(&[fault.as_str()]).inc();
        if self.gather().fail(batch, fault) {
            log::warn!("room {}: {fault}; nobody new is let in until it answers", self.name);
        }
    }

    /// Waits for the answer to something gathered: as long as a turn may be in flight, until the next tick, and
    /// that turn's own time.
    pub(super) async fn answered<T>(
        &self,
        answer: impl Future<Output = Result<Result<T, RoomFault>, RecvError>>,
    ) -> Result<T, RoomFault> {
        self.wake.notify_one();
        let patience = 2 * STORE_TIMEOUT + self.rule.load().terms.tick;
        let mut answer = pin!(answer);
        let mut result = timeout(patience, answer.as_mut()).await;
        if result.is_err() && self.gather().is_restoring() {
            result = timeout(RESTORE_WITHIN, answer.as_mut()).await;
        }
        match result {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(RoomFault::Timeout),
        }
    }
}

/// A moment of the store's clock, by this gateway's.
fn here(at: Timestamp, store_now: Timestamp, now: Timestamp) -> Timestamp {
    now + at.since(store_now)
}

#[cfg(test)]
mod tests;
