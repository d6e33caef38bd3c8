//! Which addresses of servers are passed over, by what real requests met there. Pure: time is an argument.
//!
//! An address is out after so many failures in a row, and an answer in between starts the row anew: who answers most
//! requests and fails a few is slow or busy, not gone, and to pass it over would only push its load onto the others.
//! After a while a single request tries it again. How requests are spread, and what happens when every address is
//! out, is for [`super::Upstream`] to say.

use std::time::Duration;

use crate::base::clock::Timestamp;

/// When an address is passed over, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// So many failures in a row, at least 1.
    pub after: u32,
    /// The longest time between the first of them and the last.
    pub within: Duration,
    /// How long it is out before a request tries it again.
    pub lasting: Duration,
}

/// A server that is gone costs three requests a detour, and one every ten seconds while it stays away.
impl Default for Terms {
    fn default() -> Self {
        Self {
            after: 3,
            within: Duration::from_secs(10),
            lasting: Duration::from_secs(10),
        }
    }
}

/// An address that failed and has not answered since. One that is well has none of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trouble {
    failures: u32,
    since: Timestamp,
    out_until: Option<Timestamp>,
}

impl Trouble {
    /// Notes one failure more; whether the address was in until now and is out by it.
    pub fn failed(&mut self, terms: &Terms, now: Timestamp) -> bool {
        if self.failures == 0 || now.since(self.since) > terms.within {
            (self.failures, self.since) = (0, now);
        }
        self.failures = self.failures.saturating_add(1);
        let was_out = self.is_out();
        if was_out || self.failures >= terms.after {
            self.out_until = Some(now + terms.lasting);
        }
        !was_out && self.is_out()
    }

    /// Whether it has failed too often, and not answered since.
    pub fn is_out(&self) -> bool {
        self.out_until.is_some()
    }

    /// Whether a request may go there now.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.out_until.is_none_or(|until| until <= now)
    }

    /// [`Self::is_open`], for a request that then goes there. If the address was out, that request tries it for all the
    /// others, and they go on passing it over until it has an answer, or for as long again.
    pub fn take(&mut self, terms: &Terms, now: Timestamp) -> bool {
        let is_open = self.is_open(now);
        if is_open && self.is_out() {
            self.out_until = Some(now + terms.lasting);
        }
        is_open
    }

    /// Lets the next request try it, if it is out.
    pub fn try_soon(&mut self) {
        if self.is_out() {
            self.out_until = Some(Timestamp::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TERMS: Terms = Terms {
        after: 3,
        within: Duration::from_secs(10),
        lasting: Duration::from_secs(30),
    };

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_000 + secs)
    }

    fn fail(trouble: &mut Trouble) {
        let said = [(); 3].map(|()| trouble.failed(&TERMS, at(0)));
        assert_eq!(said, [false, false, true]);
    }

    #[test]
    fn the_last_failure_of_a_row_puts_it_out_and_says_so_once() {
        let mut trouble = Trouble::default();
        let said: Vec<bool> = (0..5).map(|second| trouble.failed(&TERMS, at(second))).collect();
        assert_eq!(said, [false, false, true, false, false]);
        assert!(!trouble.is_open(at(33)) && trouble.is_open(at(34)));
    }

    #[test]
    fn failures_far_apart_make_no_row() {
        let mut trouble = Trouble::default();
        assert!((0..20).all(|n| !trouble.failed(&TERMS, at(n * 6))));
        assert!(trouble.is_open(at(120)));
    }

    #[test]
    fn one_request_tries_it_again_and_the_others_wait_for_what_it_meets() {
        let mut trouble = Trouble::default();
        fail(&mut trouble);
        assert!(!trouble.take(&TERMS, at(29)));
        assert!(trouble.take(&TERMS, at(30)));
        assert!(!trouble.take(&TERMS, at(30)) && !trouble.take(&TERMS, at(59)));
        assert!(!trouble.failed(&TERMS, at(31)), "it was out already");
        assert!(
            !trouble.take(&TERMS, at(60)),
            "out for as long again, from its last failure"
        );
        assert!(trouble.take(&TERMS, at(61)));
        assert!(
            trouble.take(&TERMS, at(91)),
            "nobody said what became of the one before"
        );
    }

    #[test]
    fn it_is_tried_at_once_when_asked_for() {
        let mut trouble = Trouble::default();
        trouble.try_soon();
        assert!(!trouble.is_out());
        fail(&mut trouble);
        trouble.try_soon();
        assert!(trouble.take(&TERMS, at(1)) && !trouble.take(&TERMS, at(1)));
    }

    proptest! {
        /// Whatever happens, it is never shut for longer than `lasting` after the last failure or attempt.
        #[test]
        fn it_is_never_out_for_good(steps in proptest::collection::vec((0u64..40, any::<bool>()), 1..60)) {
            let (mut trouble, mut now) = (Trouble::default(), 0);
            for (later, fails) in steps {
                now += later;
                let _ = if fails { trouble.failed(&TERMS, at(now)) } else { trouble.take(&TERMS, at(now)) };
            }
            prop_assert!(trouble.is_open(at(now + 30)));
        }
    }
}
