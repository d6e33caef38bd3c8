//! A token bucket in front of gateways that have free shares of it.
//!
//! In any span of `t`, a key gets at most `burst + t * rate`. The bucket holds `burst` tokens and fills at the rate.
//! What gateways use of their free shares is not seen until they report, so it is debited beforehand: at the start of
//! each frame the shares of all that are silent, and as long as they are, the bucket holds so much less. A gateway
//! that reports puts back its share of the frame, less what it used. Before a frame ends, as much is kept as the next
//! one's debit will need.
//!
//! Why that is enough. Take a span from a moment in frame `i` to a grant in frame `j`, and let `S(m)` be the shares of
//! frame `m`. At its beginning the bucket holds at most `burst - S(i)`; in the span it gains at most `t * rate`, and the
//! debits `S(i+1) .. S(j)` are taken off; so that is what the pool can grant. The silent gateways use at most
//! `S(i) + S(i+1) .. S(j)`. Together: `burst + t * rate`. What is kept for `S(j+1)` makes the same hold for a span that
//! ends in the frame after the grant.
//!
//! The moments are those of grants. Between a grant and its spending up to the life of the budget passes, so a span
//! that is measured by spending may be longer by that.

use std::time::Duration;

use super::ratio;
use super::share::Shares;
use super::terms::Terms;
use super::window::Counts;
use crate::base::clock::{Timestamp, micros};

/// After so many frames in which nobody spoke of it a bucket is full that owed no more than so many times what it holds:
/// a frame brings as much as it holds, and at most half of that is debited.
const FRAMES_MAX: u64 = 8;
const OWED_OF_CAPACITY: i64 = 3;

/// What is owed is remembered for so long at most, and nobody is told to wait longer.
const OWED_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What one key's bucket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Below zero after overdraft, or after reports of more than was thought.
    level: i64,
    /// How far gains are in the level.
    at: Timestamp,
    /// The frame whose shares are debited.
    frame: u64,
}

impl Bucket {
    /// The bucket of a key of which nobody has reported anything: gateways may have used their shares in this frame and
    /// in the one before, and no more. One of them is known to have left so much of the one before `unused`.
    pub fn fresh(terms: &Terms, silent: Shares, unused: u64, now: Timestamp) -> Self {
        let frames = terms.frames();
        let frame = frames.index(now);
        let mut bucket = Self {
            level: signed(terms.capacity()) - signed(silent.prev.saturating_sub(unused)) - signed(silent.cur),
            at: frames.start(frame),
            frame,
        };
        bucket.fill(terms, silent.cur, now);
        bucket
    }

    /// Carries on to `now`. Frames that passed unseen are debited with what silent gateways have now, if these are the same
    /// as then, else with the most that shares can be; each gains at least twice that.
    pub fn turn(&mut self, terms: &Terms, silent: Shares, same_since: Option<Timestamp>, now: Timestamp) {
        let frames = terms.frames();
        let frame = frames.index(now);
        if self.frame > frame + 1 {
            // The clock was set back: nothing would be gained until it shows again what it showed.
            (self.frame, self.at) = (frame, self.at.min(now));
        }
        let passed = frame.saturating_sub(self.frame);
        if passed > FRAMES_MAX && self.level >= -OWED_OF_CAPACITY * signed(terms.capacity()) {
            *self = Self::fresh(terms, silent, 0, now);
            return;
        }
        if passed > 0 {
            let seen = frames.start(self.frame);
            let same = same_since.is_some_and(|since| since <= seen);
            let unseen = if same { silent.cur } else { terms.free() };
            self.fill_up(terms, frames.start(frame));
            self.level -= signed(unseen) * (signed(passed) - 1);
            self.cap(terms, silent.prev, frames.start(frame));
            self.level -= signed(silent.cur);
            self.frame = frame;
        }
        self.fill(terms, silent.cur, now);
    }

    /// A silent gateway says what it used: it has no share any more. What it used beyond its shares (because it had
    /// drawn, and the store forgot) is owed.
    pub fn report(&mut self, own: Counts, shares: Shares) {
        self.level += signed(shares.cur) - signed(own.cur) - signed(own.prev.saturating_sub(shares.prev));
    }

    /// Takes tokens, whether or not they are there.
    pub fn take(&mut self, tokens: u64) {
        self.level -= signed(tokens);
    }

    /// Puts tokens back that were granted at `lot` and not spent, less what the bucket has gained since, rounded up: as
    /// much may have found it full if they had been in it.
    pub fn give_back(&mut self, lot: u64, tokens: u64, terms: &Terms, now: Timestamp) {
        let since = now.as_micros().saturating_sub(lot);
        if since > FRAMES_MAX * micros(terms.frames().length()) {
            return;
        }
        let gained = ratio::ceil(since, terms.allows, micros(terms.window.length()));
        self.level += signed(tokens.saturating_sub(gained));
    }

    /// What may be granted now.
    pub fn left(&self, terms: &Terms, silent: Shares, now: Timestamp) -> u64 {
        let kept = silent.next.saturating_sub(self.sure_gain(terms, now));
        u64::try_from(self.level - signed(kept)).unwrap_or(0)
    }

    /// What is missing to a full bucket, shares that are debited included.
    pub fn count(&self, terms: &Terms) -> u64 {
        u64::try_from(signed(terms.capacity()) - self.level).unwrap_or(0)
    }

    /// What is owed.
    pub fn excess(&self) -> u64 {
        u64::try_from(-self.level).unwrap_or(0)
    }

    /// In how many frames from now nothing is owed any more.
    pub fn owed_frames(&self, terms: &Terms) -> u64 {
        let paid_in = self.time_for(terms, self.excess()).min(OWED_MAX);
        micros(paid_in).div_ceil(micros(terms.frames().length()))
    }

    /// How long until one token may be granted, as far as is known now.
    pub fn wait(&self, terms: &Terms, silent: Shares, now: Timestamp) -> Duration {
        let end = terms.frames().end(now);
        let at_end = self.level + signed(self.sure_gain(terms, now)) - signed(silent.next);
        // Where nothing will be debited nothing is kept, and a token that comes may be had at once.
        let (from, missing) = if at_end >= 1 || silent.next == 0 {
            (self.at, 1 - self.level)
        } else {
            (end, 1 - at_end)
        };
        let missing = u64::try_from(missing).unwrap_or(0);
        (from + self.time_for(terms, missing).min(OWED_MAX)).since(now)
    }

    /// What the bucket gains until its frame ends, at least. Every filling before then rounds anew, which may cost one
    /// token.
    fn sure_gain(&self, terms: &Terms, now: Timestamp) -> u64 {
        self.gain_until(terms, terms.frames().end(now)).saturating_sub(1)
    }

    fn gain_until(&self, terms: &Terms, moment: Timestamp) -> u64 {
        let elapsed = micros(moment.since(self.at));
        ratio::floor(elapsed, terms.allows, micros(terms.window.length()))
    }

    fn time_for(&self, terms: &Terms, tokens: u64) -> Duration {
        Duration::from_micros(ratio::ceil(tokens, micros(terms.window.length()), terms.allows))
    }

    fn fill(&mut self, terms: &Terms, silent: u64, now: Timestamp) {
        self.fill_up(terms, now);
        self.cap(terms, silent, now);
    }

    fn fill_up(&mut self, terms: &Terms, now: Timestamp) {
        let gained = self.gain_until(terms, now);
        self.level += signed(gained);
        self.at = self.at + self.time_for(terms, gained);
    }

    /// A full bucket gains nothing, so its time is now.
    fn cap(&mut self, terms: &Terms, silent: u64, now: Timestamp) {
        let most = signed(terms.capacity()) - signed(silent);
        if self.level >= most {
            self.level = most;
            self.at = self.at.max(now);
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
