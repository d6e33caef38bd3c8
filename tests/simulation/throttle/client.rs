//! A request: it passes every limit, or gives back what it spent.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::base::key::Key;
use tidegate::throttle::{Decision, Limit, OnStoreFault, Receipt};
use tokio::time::Instant;

use super::books::{Admission, Books};
use super::world::{Halting, Node, STORE_TIMEOUT, key};

/// The key of a client that one gateway has for itself and that stays far under its share.
pub(crate) fn quiet_key(gateway: u64) -> Key {
    key(1_000_000 + gateway)
}

pub(crate) fn is_quiet(key: Key) -> bool {
    (key.0 >> 64) >= 1_000_000
}

pub(crate) struct Request {
    node: Arc<Node>,
    books: Arc<Mutex<Books>>,
    key: Key,
    spent: Vec<(Arc<Limit>, Receipt, Admission)>,
    waited: Duration,
}

impl Request {
    /// Decides what can be decided at once, and leaves the rest to a task.
    pub(crate) fn begin(node: &Arc<Node>, books: &Arc<Mutex<Books>>, key: Key) {
        if node.halt.is_on() {
            return;
        }
        let mut request = Self {
            node: Arc::clone(node),
            books: Arc::clone(books),
            key,
            spent: Vec::new(),
            waited: Duration::ZERO,
        };
        let limits = node.throttles.active();
        for (at, limit) in limits.iter().enumerate() {
            match limit.try_spend(key, 1, node.clock.now()) {
                Decision::Draw => {
                    let rest = limits[at..].to_vec();
                    tokio::spawn(Halting(Box::pin(request.finish(rest)), Arc::clone(&node.halt)));
                    return;
                }
                decision => {
                    let by_fault = request.is_let_through(limit);
                    if !request.pass(limit, decision, by_fault) {
                        return;
                    }
                }
            }
        }
        request.admit();
    }

    async fn finish(mut self, limits: Vec<Arc<Limit>>) {
        for limit in limits {
            let clock = &self.node.clock;
            let mut decision = limit.try_spend(self.key, 1, clock.now());
            let mut by_fault = self.is_let_through(&limit);
            if decision == Decision::Draw {
                let (set_out, arrived, cut_off) = (Instant::now(), clock.now(), self.node.throttles.is_cut_off());
                decision = limit.draw(self.key, 1, arrived).await;
                let waited = set_out.elapsed();
                self.waited += waited;
                by_fault = self.node.throttles.is_cut_off() || waited >= STORE_TIMEOUT;
                if !self.node.dead.load(Ordering::Relaxed) {
                    self.books
                        .lock()
                        .unwrap()
                        .note_wait(&self.node, set_out, waited, cut_off);
                }
            }
            if !self.pass(&limit, decision, by_fault) {
                return;
            }
        }
        if !self.node.dead.load(Ordering::Relaxed) {
            self.admit();
        }
    }

    /// Whether a limit asks nobody now, because its store is gone.
    fn is_let_through(&self, limit: &Limit) -> bool {
        limit.rule().on_fault == OnStoreFault::Allow && self.node.throttles.is_cut_off()
    }

    /// Notes one limit's decision; a refusal gives back what was spent of the others.
    fn pass(&mut self, limit: &Arc<Limit>, decision: Decision, by_fault: bool) -> bool {
        if let Decision::Spent { receipt, .. } = decision {
            let admission = Admission {
                gateway: self.node.number,
                limit: self.spent.len(),
                key: self.key,
                view: self.node.throttles.fleet_time(),
                at: self.books.lock().unwrap().now(),
                by_fault,
            };
            if by_fault {
                self.books.lock().unwrap().note_fault();
            }
            self.spent.push((Arc::clone(limit), receipt, admission));
            return true;
        }
        for (limit, receipt, _) in self.spent.drain(..) {
            limit.give_back(self.key, 1, receipt);
        }
        self.books.lock().unwrap().note_refusal(&self.node, self.key, limit);
        false
    }

    fn admit(self) {
        let mut books = self.books.lock().unwrap();
        for (_, _, admission) in &self.spent {
            books.note_admission(admission);
        }
    }
}
