//! What a limit allows and how it is counted: all that a gateway and a store must agree on.

use std::time::Duration;

use super::ratio;
use super::window::{Counts, Window};
use crate::base::clock::Timestamp;

/// Budget is good for so long when little remains.
const SHORT_LIFE: Duration = Duration::from_millis(50);

/// While much remains, budget of a window is good for this part of it, and at most so long: a client that comes to
/// another gateway finds there only what the first does not hold.
const LIFE_OF_WINDOW: u32 = 2;
const LIFE_MOST: Duration = Duration::from_secs(60);

/// The same where use is entered at the end of a budget's life: what it lives too long is counted too long.
const LIFE_OF_LOG: u32 = 100;

/// There, a short life is at most this part.
const SHORT_LIFE_OF_LOG: u32 = 20;

/// One part in so many of a window's free shares is for gateways that come while it is under way.
const SPARE: u64 = 4;

/// In a frame so long or longer a fleet may be replaced several times, and what those may have used who left stays kept
/// back until it ends. So only one part in so many is free in it: however often the fleet is replaced, no more is lost.
const LONG_FRAME: Duration = Duration::from_secs(600);
const FREE_OF_LONG: u64 = 8;

/// At least so much is free nevertheless, where a limit has it: with nothing free every key would be drawn for.
const FREE_OF_LONG_LEAST: u64 = 32;

/// Cells into which a log's window is divided: most entries of one key, but for those of budget that still lives. What
/// falls into one cell counts as of its last moment, so use is counted at most a 64th of the window too long.
pub(super) const LOG_CELLS: u64 = 64;

/// Shortest frame of a bucket: a shorter one would turn more often than gateways and store talk.
const BUCKET_FRAME_MIN: u64 = 100_000;

/// Longer than a calendar's day, shorter than its month.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// How use is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// This window's count, and of the one before it the share that still overlaps the trailing window.
    #[default]
    SlidingWindow,
    /// This window's count alone.
    FixedWindow,
    /// The trailing window in so many slices; one more than that is counted.
    Slices(u64),
    /// The trailing window, entry by entry.
    SlidingLog,
    /// A bucket of so many tokens that fills at the limit's rate.
    TokenBucket {
        /// How many it holds, at least 1.
        burst: u64,
    },
}

/// The terms of a limit, for each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How much in a window, at least 1.
    pub allows: u64,
    /// The window.
    pub window: Window,
    /// How it is counted.
    pub algorithm: Algorithm,
}

impl Terms {
    /// Windows in which gateways count what they use of their free shares.
    pub fn frames(&self) -> Window {
        match self.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => self.window,
            Algorithm::Slices(_) | Algorithm::SlidingLog => Window::aligned(self.span()),
            Algorithm::TokenBucket { .. } => Window::aligned(self.span().max(BUCKET_FRAME_MIN)),
        }
    }

    /// How far back use counts, in microseconds: the trailing window, or the time in which a bucket fills.
    pub fn span(&self) -> u64 {
        let length = self.window.length().as_micros() as u64;
        match self.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow | Algorithm::SlidingLog => length,
            Algorithm::Slices(slices) => self.cell() * slices.max(1),
            Algorithm::TokenBucket { burst } => ratio::ceil(burst, length, self.allows).max(1),
        }
    }

    /// How finely a log tells moments apart, in microseconds.
    pub fn cell(&self) -> u64 {
        let length = self.window.length().as_micros() as u64;
        match self.algorithm {
            Algorithm::Slices(slices) => length.div_ceil(slices.max(1)),
            _ => length.div_ceil(LOG_CELLS),
        }
    }

    /// Most that may come at once.
    pub const fn capacity(&self) -> u64 {
        match self.algorithm {
            Algorithm::TokenBucket { burst } => burst,
            _ => self.allows,
        }
    }

    /// What a whole fleet may give a key in a frame without asking anyone. Where any trailing span counts, two
    /// neighbouring frames may be used at once; so each has half. Of a long frame it is a part.
    pub fn free(&self) -> u64 {
        let most = if self.lag() == 0 {
            self.allows
        } else {
            self.capacity() / 2
        };
        if self.frames().length() < LONG_FRAME {
            return most;
        }
        (most / FREE_OF_LONG).max(FREE_OF_LONG_LEAST).min(most)
    }

    /// The part of [`Terms::free`] that is kept for gateways that come in the middle of a frame. Without it each would
    /// have to draw for every key until the frame ends, which may be days. Logs and buckets have none: what is kept
    /// back of them is debited when a frame begins.
    pub fn spare(&self) -> u64 {
        if self.lag() == 0 { self.free() / SPARE } else { 0 }
    }

    /// How many frames before its own a share is fixed. Where the store must know in one frame what it will have to
    /// keep back in the next, shares are of the fleet at the start of the frame before.
    pub const fn lag(&self) -> u64 {
        match self.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => 0,
            Algorithm::Slices(_) | Algorithm::SlidingLog | Algorithm::TokenBucket { .. } => 1,
        }
    }

    /// How it is counted, in a word: use that was counted under one shape means nothing under another. Amounts are no
    /// part of it, but for a bucket's, whose frames depend on them.
    pub fn shape(&self) -> String {
        let window = match self.window {
            Window::Aligned(length) => length.to_string(),
            Window::Calendar(dates) if self.window.length() > WEEK => format!("month-{:x}", dates.zone),
            Window::Calendar(dates) => format!("day-{:x}", dates.zone),
        };
        match self.algorithm {
            Algorithm::SlidingWindow => window,
            Algorithm::FixedWindow => format!("fixed-{window}"),
            Algorithm::Slices(slices) => format!("slices-{slices}-{window}"),
            Algorithm::SlidingLog => format!("log-{window}"),
            Algorithm::TokenBucket { burst } => format!("bucket-{burst}-{}", self.span()),
        }
    }

    /// How long the limit takes to bring so much: as many whole windows as it fills, or the time at a bucket's rate.
    pub fn brings_in(&self, cost: u64) -> Duration {
        let length = self.window.length().as_micros() as u64;
        Duration::from_micros(match self.algorithm {
            Algorithm::TokenBucket { .. } => ratio::floor(cost, length, self.allows),
            _ => (cost / self.allows.max(1)).saturating_mul(length),
        })
    }

    /// How long budget is good for, while much remains and when little does.
    pub fn life(&self, much_remains: bool) -> Duration {
        let length = self.frames().length();
        let (short, long) = match self.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => (SHORT_LIFE, LIFE_MOST.min(length / LIFE_OF_WINDOW)),
            Algorithm::Slices(_) | Algorithm::SlidingLog | Algorithm::TokenBucket { .. } => {
                (SHORT_LIFE.min(length / SHORT_LIFE_OF_LOG), length / LIFE_OF_LOG)
            }
        };
        if much_remains { long.max(short) } else { short }
    }

    /// How long budget is to last that is asked for while much remains. Where a later grant prolongs what is left of an
    /// earlier one that is half its life, so that a key in steady use never comes to the end of it.
    pub fn ahead(&self) -> Duration {
        self.life(true) / if self.mixes_lots() { 2 } else { 1 }
    }

    /// What use weighs at `now`, to be compared with shares.
    pub fn weigh(&self, used: Counts, now: Timestamp) -> u64 {
        match self.algorithm {
            Algorithm::SlidingWindow => used.used(self.window, now),
            _ => used.turned_to(self.frames().index(now)).cur,
        }
    }

    /// What use weighs for a gateway that is on its own, because nobody can tell more. What has no windows is then
    /// counted by a sliding one: in frames, with what is carried over.
    pub fn weigh_alone(&self, used: Counts, now: Timestamp) -> u64 {
        match self.algorithm {
            Algorithm::FixedWindow => self.weigh(used, now),
            _ => used.used(self.frames(), now),
        }
    }

    /// How long, for such a gateway, until `cost` more fits under `share`.
    pub fn wait_alone(&self, used: Counts, share: u64, cost: u64, now: Timestamp) -> Duration {
        let frames = self.frames();
        match self.algorithm {
            Algorithm::FixedWindow => frames.end(now).since(now),
            _ => used.wait(frames, share, cost, now).unwrap_or(frames.length()),
        }
    }

    /// How long from `now` until a key of which `remaining` is left has all of it again, if it is used no more.
    pub fn reset(&self, remaining: u64, now: Timestamp) -> Duration {
        match self.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => self.window.end(now).since(now),
            Algorithm::Slices(_) | Algorithm::SlidingLog => Duration::from_micros(self.span()),
            Algorithm::TokenBucket { burst } => {
                let missing = burst.saturating_sub(remaining);
                Duration::from_micros(ratio::ceil(
                    missing,
                    self.window.length().as_micros() as u64,
                    self.allows,
                ))
            }
        }
    }

    /// Until when budget that is granted at `now` may be spent: never beyond its frame.
    pub fn valid_until(&self, much_remains: bool, now: Timestamp) -> Timestamp {
        self.frames().end(now).min(now + self.life(much_remains))
    }

    /// Which lot a budget belongs to that was granted at `now`: budget of one lot may be mixed, because it is counted as
    /// of the same moment. A lot of windows is their number; else it is that moment in microseconds.
    pub fn lot(&self, now: Timestamp, valid_until: Timestamp) -> u64 {
        let last = valid_until - Duration::from_micros(1);
        match self.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => self.window.index(last),
            Algorithm::Slices(_) => (last.as_micros() / self.cell() + 1) * self.cell(),
            Algorithm::SlidingLog => valid_until.as_micros(),
            Algorithm::TokenBucket { .. } => now.as_micros(),
        }
    }

    /// Whether a later grant may be of the same lot, and so prolong it.
    pub const fn mixes_lots(&self) -> bool {
        matches!(self.algorithm, Algorithm::SlidingWindow | Algorithm::FixedWindow)
    }

    /// The frame that a lot lies in.
    pub fn frame_of_lot(&self, lot: u64) -> u64 {
        match self.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => lot,
            Algorithm::TokenBucket { .. } => self.frames().index(Timestamp::from_micros(lot)),
            Algorithm::Slices(_) | Algorithm::SlidingLog => {
                self.frames().index(Timestamp::from_micros(lot.saturating_sub(1)))
            }
        }
    }
}
