//! The terms under which a queue admits: what the operator wrote, and what the operator has since said.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::rate::Rate;

/// Most visitors that a room may be made for: more than there are people, and few enough for every number type on the way,
/// in scripts too.
pub const VISITORS_MAX: u64 = 1_000_000_000_000;

/// Who decides whether visitors wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The capacity does: the room engages when it is used up and lets go by itself.
    #[default]
    Auto,
    /// Everyone new waits and nobody is called. Visitors already called may come, and passes go on working.
    Hold,
    /// Nobody waits: everyone passes, counted by nobody. Places in the queue stay until they are given up.
    Off,
    /// Takes no new visitors: newcomers are told that the queue is closed, those waiting go on being called.
    Drain,
}

impl Mode {
    /// As the operator writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Hold => "hold",
            Self::Off => "off",
            Self::Drain => "drain",
        }
    }
}

/// Who is called next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// First come, first served.
    #[default]
    Arrival,
    /// Whoever comes before the opening stands in a lobby, which is shuffled once, at the opening, by a seed that is
    /// published. Whoever comes later stands behind, in order of arrival.
    Shuffle,
}

/// Everything the state machine must know of a room's rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Most visitors called or inside at once, up to [`VISITORS_MAX`]; none: any number.
    pub visitors: Option<u64>,
    /// Most visitors called in any window; none: any number.
    pub admit: Option<Rate>,
    /// Life of a pass without use.
    pub pass: Duration,
    /// Before this moment everyone waits and nobody is called.
    pub open: Option<Timestamp>,
    /// Who is called next.
    pub order: Order,
    /// A waiting place without a sign of life for so long is given up.
    pub abandon_after: Duration,
    /// A called place that nobody enters for so long goes to the next.
    pub claim_within: Duration,
    /// Time between two ticks: the grain of calling, and the burst that `admit` may show.
    pub tick: Duration,
    /// Most visitors waiting at once; who comes then is refused.
    pub max_waiting: u64,
    /// Who decides whether visitors wait.
    pub mode: Mode,
}

impl Terms {
    /// Whether the opening, if there is one, has come.
    pub fn opened(&self, now: Timestamp) -> bool {
        self.open.is_none_or(|open| open <= now)
    }

    /// Whether those who wait may be called at all.
    pub fn calls(&self, now: Timestamp) -> bool {
        self.opened(now) && matches!(self.mode, Mode::Auto | Mode::Drain)
    }
}

/// What an operator says to a running room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// From now on this mode.
    Mode(Mode),
    /// From now on so many visitors at once. Those inside stay; nobody is called until there is room.
    Visitors(u64),
    /// From now on so many called per window.
    Admit(Rate),
    /// Back to what the rule file says.
    AsWritten,
    /// What the rule file says of mode and capacity at a gateway, as a hash: below 2^48, and never 0. Where the room has
    /// heard another, that is [`Setting::AsWritten`]; the first that it hears of is only remembered. Whatever else a turn
    /// carries was said after it.
    Written(u64),
    /// The place or the pass of this number is over. Nothing brings it back.
    Revoke(u64),
    /// A gateway's word about a measured rate. It counts for a while, and what an operator said counts more.
    Measured {
        /// Whose word.
        gateway: u64,
        /// How many called per window.
        rate: Rate,
    },
}

#[cfg(test)]
impl Terms {
    /// What tests begin with: so many visitors at once, whoever comes first, and no rate.
    pub(crate) fn sample(visitors: u64) -> Self {
        Self {
            visitors: Some(visitors),
            admit: None,
            pass: Duration::from_secs(600),
            open: None,
            order: Order::Arrival,
            abandon_after: Duration::from_secs(300),
            claim_within: Duration::from_secs(120),
            tick: Duration::from_millis(200),
            max_waiting: 1_000,
            mode: Mode::Auto,
        }
    }
}

impl Setting {
    /// Whether it is an operator's word about the room. That is a change like any other, so that a gateway that has heard
    /// of it is ahead of one that has not, should the room be lost.
    pub(super) fn steers(&self) -> bool {
        match self {
            Self::Mode(_) | Self::Visitors(_) | Self::Admit(_) | Self::AsWritten | Self::Written(_) => true,
            Self::Revoke(_) | Self::Measured { .. } => false,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mode(mode) => write!(f, "mode {}", mode.as_str()),
            Self::Visitors(visitors) => write!(f, "{visitors} visitors at once"),
            Self::Admit(rate) => write!(f, "{rate} admitted"),
            Self::AsWritten => f.write_str("back to the rule file"),
            Self::Written(hash) => write!(f, "rule file {hash:012x}"),
            Self::Revoke(number) => write!(f, "number {number} revoked"),
            Self::Measured { rate, .. } => write!(f, "{rate} proposed"),
        }
    }
}

/// What operators have said to a running room. It stands until they say otherwise, and outlives a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overrides {
    mode: Option<Mode>,
    visitors: Option<u64>,
    admit: Option<Rate>,
    /// The rule file under which they said it.
    file: Option<u64>,
}

impl Overrides {
    /// Takes in what a turn carries: another rule file first, which takes back all that was said before. Whether it did.
    /// To take it in twice changes nothing.
    pub fn hear(&mut self, settings: &[Setting]) -> bool {
        let mut is_over = false;
        for setting in settings {
            let Setting::Written(file) = *setting else { continue };
            if self.file.is_some_and(|before| before != file) {
                *self = Self::default();
                is_over = true;
            }
            self.file = Some(file);
        }
        settings.iter().for_each(|setting| self.apply(*setting));
        is_over
    }

    fn apply(&mut self, setting: Setting) {
        match setting {
            Setting::Mode(mode) => self.mode = Some(mode),
            Setting::Visitors(visitors) => self.visitors = Some(visitors),
            Setting::Admit(rate) => self.admit = Some(rate),
            Setting::AsWritten => {
                let file = self.file;
                *self = Self {
                    file,
                    ..Self::default()
                };
            }
            Setting::Written(_) | Setting::Revoke(_) | Setting::Measured { .. } => {}
        }
    }

    /// The terms as they are in force. A measured rate stands for the written one, which is the lowest.
    #[must_use]
    pub fn over(&self, written: &Terms, measured: Option<Rate>) -> Terms {
        Terms {
            mode: self.mode.unwrap_or(written.mode),
            visitors: self.visitors.or(written.visitors),
            admit: self.admit.or(measured).or(written.admit),
            ..written.clone()
        }
    }
}
